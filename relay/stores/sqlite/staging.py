"""An ordinary batch with one statement of the writer's thread. The event loop lays its rows out in tables of the
connection's own before, in memory; the statement fires a trigger that writes them all and is the whole transaction.

Python's module lets go of Python's lock whenever SQLite has something to do. If the event loop wants it as well, the
two wait for each other at each of these places, and each time one of them is woken by the kernel: with a statement for
each table, `BEGIN` and `COMMIT` some ten times for each commit. So whatever takes Python's lock is done by the loop
while the thread has nothing to do, and the thread has but one call that takes long, and needs the lock at its end. On
the loop too there is a statement for each table and not for each row: others may be busy, a template or a reload.

Ordinary are events that nobody sent before, with plain deliveries (`Owed.plain`) of known shapes, and results that find
their deliveries as they were left. That all is so shows only as it is written. Where it is not, nothing is written, and
the batch goes table by table (`joining`, `transaction`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NoReturn

from relay.delivery import Added, State
from relay.immutable import immutable
from relay.stores._sql import repeats, rows
from relay.stores._sql.batch import Add
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.joining import Adding
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row
from relay.stores._sql.shapes import Shapes
from relay.stores.sqlite import joining
from relay.stores.sqlite.bulk import insert
from relay.stores.sqlite.joining import Forgetting
from relay.stores.sqlite.transaction import Interfered

MOST_BYTES = 1 << 20
"""Of the bodies of a batch, of what else of an event may be long, and of what was answered. They are copied into the
tables and out of them, and what memory the tables once took they keep."""
MOST_ROWS = 1000
"""Of a batch: events, deliveries and results. While they are laid out the loop does nothing else, for some microseconds
each."""


def _columns(prefix: str, names: str) -> list[str]:
    """The columns of the table that are for columns of another one."""
    return [f"{prefix}_{name.strip().strip(chr(34))}" for name in names.split(",")]


_EVENT = _columns("event", f"{rows.EVENT_COLUMNS}, shape")
_SEEN = ["key", "value", "event_id", "until"]
_DELIVERY = _columns("delivery", rows.DELIVERY_COLUMNS)
_RESULT = _columns("result", "state, due, attempts, tries, code, error_code, error_message, duration_ms, updated_at")
_FOUND = _columns("result", "id, n, route")
_ATTEMPT = _columns("attempt", f"delivery_id, {rows.ATTEMPT_COLUMNS}")
_TABLES = {
    "staged_event": [*_EVENT, "content", "key", "value", "until"],
    "staged_delivery": _DELIVERY,
    "staged_result": [*_RESULT, *_FOUND, *_ATTEMPT],
}
# What is bound but once where all rows of a batch have it in common, as they mostly do.
_SHARED = {
    "staged_event": _columns("event", "type, event, environment, branch, locale, model, stage, action, matched"),
    "staged_delivery": _columns("delivery", "route, attempts, tries, trigger"),
    "staged_result": [
        *_columns("result", "state, due, attempts, tries, code, error_code, error_message, n, route"),
        *_columns("attempt", "n, trigger, method, url, status, truncated, error_code, error_message"),
    ],
}
_LAY_OUT = [insert(f"INTO temp.{table}", ", ".join(_TABLES[table]), ", ".join(_SHARED[table])) for table in _TABLES]
_EMPTY = [f"DELETE FROM temp.{table}" for table in _TABLES]  # noqa: S608
_LONG = [rows.EVENT_COLUMNS.split(", ").index(name) for name in ("changes", "extra", "headers")]
_ANSWER = [1 + rows.ATTEMPT_COLUMNS.split(", ").index(name) for name in ("response_headers", "response_body")]


def _taken(into: str, names: str, columns: Sequence[str], table: str, where: str = "true") -> str:
    return f"INSERT {into} ({names}) SELECT {', '.join(columns)} FROM staged_{table} WHERE {where}"  # noqa: S608


_INTERFERED = "interfered"
_SET_UP = (
    "PRAGMA temp.secure_delete = OFF",  # it lies in memory, see `connection`
    "DROP VIEW IF EXISTS temp.batch",
    *[f"DROP TABLE IF EXISTS temp.{table}" for table in _TABLES],
    *[f"CREATE TEMP TABLE {table} ({', '.join(names)})" for table, names in _TABLES.items()],
    "CREATE TEMP VIEW batch AS SELECT 0 AS marks, 0 AS results, 0 AS now, 0 AS forgotten",
    # OR ROLLBACK as in `joining` and `transaction`. RAISE says why the batch is no ordinary one. A trigger may not say
    # NOT INDEXED: without the plus, and without being told how few rows there are, SQLite would go through all that is
    # pending, or all deliveries, where somebody has had it ANALYZE the file.
    f"""
    CREATE TEMP TRIGGER write INSTEAD OF INSERT ON batch BEGIN
        DELETE FROM seen WHERE key IN (
            SELECT key FROM seen INDEXED BY seen_until WHERE until <= new.now LIMIT new.forgotten
        );
        {_taken("OR IGNORE INTO seen", ", ".join(_SEEN), _SEEN, "event", "key IS NOT NULL")};
        SELECT RAISE(ROLLBACK, 'repeated') WHERE changes() <> new.marks;
        {_taken("OR ROLLBACK INTO event", f"{rows.EVENT_COLUMNS}, shape", _EVENT, "event")};
        {_taken("OR ROLLBACK INTO body", "event_id, content", ["event_id", "content"], "event")};
        {_taken("OR ROLLBACK INTO delivery", rows.DELIVERY_COLUMNS, _DELIVERY, "delivery")};
        UPDATE OR ROLLBACK delivery SET "trigger" = 'retry', retried = 1, taken = 0, open = 0,
            state = result_state, due = coalesce(result_due, delivery.due), attempts = result_attempts,
            tries = result_tries, code = result_code, error_code = result_error_code,
            error_message = result_error_message, duration_ms = result_duration_ms, updated_at = result_updated_at
        FROM staged_result r WHERE likelihood(r.rowid <= new.results, 0.000001) AND delivery.id = result_id
            AND +delivery.state = 'pending' AND delivery.attempts < result_n AND delivery.route = result_route;
        SELECT RAISE(ROLLBACK, '{_INTERFERED}') WHERE changes() <> new.results;
        {_taken("OR IGNORE INTO attempt", f"delivery_id, {rows.ATTEMPT_COLUMNS}", _ATTEMPT, "result")};
        {"; ".join(_EMPTY).replace("temp.", "")};
    END
    """,  # noqa: S608 - our own words
)
_WRITE = "INSERT INTO batch VALUES (?, ?, ?, ?)"


class Unusual(Exception):
    """The batch is not an ordinary one: nothing of it is written."""


class _Nothing:
    """Stands for the connection where nothing may be asked of the tables."""

    in_transaction = False

    def execute(self, *_: object) -> NoReturn:
        raise Unusual

    executemany = execute


class _Collected(joining.Joining):
    """Collects what joins the queue, as if nothing of it were a repeat."""

    def __init__(self, waiting: Mapping[str, int], deltas: Deltas, shapes: Shapes, forgetting: Forgetting) -> None:
        super().__init__(_Nothing(), waiting, deltas, shapes, forgetting)
        self.events: list[Row] = []
        self.deliveries: Sequence[Row] = ()
        self.marks = self.now = self.forgotten = 0

    def _known(self, adds: Sequence[Adding], now: int) -> None:
        self.marks, self.now = len(adds), now
        if self._forgetting.due(self.marks, now):
            self.forgotten = max(repeats.PRUNED_AT_ONCE, 2 * self.marks)

    def _write_events(self, adds: Sequence[Adding]) -> None:
        for add in adds:
            event, mark = add.event, add.mark
            shape = self._shape(event)
            if mark is None:
                self.events.append((*event, shape, add.content, None, None, None))
            else:
                until = repeats.until(mark, self.now)
                self.events.append((*event, shape, add.content, mark.key, mark.value, until))

    def _write_deliveries(self, table: Sequence[Row]) -> None:
        self.deliveries = table


@immutable
class Staged:
    """A batch that lies ready in the tables."""

    connection: sqlite3.Connection
    counts: tuple[int, ...]
    """The values of `_WRITE`."""
    added: Sequence[Added]
    """What becomes of each event."""
    deltas: Deltas


class Staging:
    """Writes ordinary batches: lays each one out, then writes it. Never both at once."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        """The one that has the tables and the trigger."""
        self._dirty = False
        """Whether something may have been left in the tables."""

    def lay_out(
        self,
        connection: sqlite3.Connection,
        adds: Sequence[Add],
        records: Sequence[Record],
        waiting: Mapping[str, int],
        shapes: Shapes,
        forgetting: Forgetting,
    ) -> Staged:
        """Lay a batch out in memory: nothing of the file is read, and no lock taken. Raises Unusual."""
        adding = [add.adding for add in adds]
        _look(adding, records)
        deltas: Deltas = {}
        collected = _Collected(waiting, deltas, shapes, forgetting)
        added = collected.add(adding) if adding else []
        results = [(*record.update, *record.attempt) for record in records if record.update and record.attempt]
        for record in records:
            if record.result.state is not State.PENDING:
                shift(deltas, record.result.delivery.route, -1, 0)
        try:
            self._fill(connection, collected.events, collected.deliveries, results)
        except (sqlite3.Error, OverflowError, ValueError, TypeError) as error:
            # Mostly a value that cannot be written: whose, shows when they are written one by one.
            self._connection = None
            raise Unusual from error
        counts = collected.marks, len(results), collected.now, collected.forgotten
        return Staged(connection, counts, added, deltas)

    def write(self, staged: Staged) -> None:
        """Write what was laid out last, and commit.

        Raises Unusual or Interfered with nothing written; else what SQLite raises, and then only the file knows.
        """
        try:
            staged.connection.execute(_WRITE, staged.counts)
        except sqlite3.IntegrityError as error:
            raise (Interfered if str(error) == _INTERFERED else Unusual) from error
        self._dirty = False

    def _fill(self, connection: sqlite3.Connection, *tables: Sequence[Row]) -> None:
        if self._connection is not connection:
            for statement in _SET_UP:
                connection.execute(statement)
            self._connection, self._dirty = connection, False
        elif self._dirty:
            for statement in _EMPTY:
                connection.execute(statement)
        self._dirty = True
        for lay_out, table in zip(_LAY_OUT, tables, strict=True):
            lay_out(connection, table)


def _look(adds: Sequence[Adding], records: Sequence[Record]) -> None:
    """Raise Unusual where that can be seen at once."""
    number = len(adds) + len(records)
    if not 0 < number <= MOST_ROWS:
        raise Unusual
    size = 0
    for add in adds:
        number += len(add.owed)
        size += len(add.content)
        for place in _LONG:
            size += len(add.event[place] or "")
        if add.mentions:
            raise Unusual
        for owed in add.owed:
            if not owed.plain:
                raise Unusual
    for record in records:
        result = record.result
        if (
            record.update is None
            or record.attempt is None
            or result.ordered
            or result.latest
            or result.delivery.lane is not None
        ):
            raise Unusual
        for place in _ANSWER:
            size += len(record.attempt[place] or b"")
    if size > MOST_BYTES or number > MOST_ROWS:
        raise Unusual
