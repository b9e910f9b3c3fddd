"""An ordinary batch with two statements: the first lays its rows out in a table of the connection's own (of more than
64 rows each 64), the second fires a trigger that writes them all and is the whole transaction.

Python's module lets go of Python's lock whenever SQLite has something to do. The event loop takes it then, and the
writer waits for it again: with a statement for each table, `BEGIN` and `COMMIT` the lock changed hands some ten times
for each commit, in which the other one of the two waited, and of two processors hardly one was used.

Ordinary are events that nobody sent before, with plain deliveries (`Owed.plain`) of known shapes, and results that find
their deliveries as they were left. That all is so shows only as it is written. Where it is not, nothing is written, and
the batch goes table by table (`joining`, `transaction`).
"""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NoReturn

from relay.delivery import Added, State
from relay.stores._sql import repeats, rows
from relay.stores._sql.batch import Add
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.joining import Adding
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row
from relay.stores._sql.shapes import Shapes
from relay.stores.sqlite import joining
from relay.stores.sqlite.bulk import Many, insert
from relay.stores.sqlite.joining import Forgetting
from relay.stores.sqlite.transaction import Interfered

MOST_BYTES = 1 << 20
"""Of the bodies of a batch, of what was answered, and of what is written again in each row. They are copied into the
table and out of it, and what memory the table once took it keeps."""


def _columns(prefix: str, names: str) -> list[str]:
    """The columns of the table that are for columns of another one."""
    return [f"{prefix}_{name.strip().strip(chr(34))}" for name in names.split(",")]


# A row has room for an event, a delivery and a result, which have nothing to do with each other: one table takes one
# statement.
_EVENT = _columns("event", f"{rows.EVENT_COLUMNS}, shape")
_BODY = ["content", "key", "value", "until"]
_DELIVERY = _columns("delivery", rows.DELIVERY_COLUMNS)
_RESULT = _columns("result", "state, due, attempts, tries, code, error_code, error_message, duration_ms, updated_at")
_FOUND = _columns("result", "id, n, route")
_ATTEMPT = _columns("attempt", f"delivery_id, {rows.ATTEMPT_COLUMNS}")
_PARTS = ([*_EVENT, *_BODY], _DELIVERY, [*_RESULT, *_FOUND, *_ATTEMPT])
_SHARED = (
    _columns("event", "type, event, environment, branch, locale, model, stage, action, changes, extra, matched"),
    _columns("delivery", "route, attempts, tries, trigger"),
    [
        *_columns("result", "state, due, attempts, tries, code, error_code, error_message, n, route"),
        *_columns("attempt", "n, trigger, method, url, status, truncated, error_code, error_message"),
    ],
)
# What of a part is bound but once.
_ALIKE = tuple(tuple(name in shared for name in part) for part, shared in zip(_PARTS, _SHARED, strict=True))
_LONG = [rows.EVENT_COLUMNS.split(", ").index(name) for name in ("changes", "extra")]
_ANSWER = 1 + rows.ATTEMPT_COLUMNS.split(", ").index("response_body")


def _stage(parts: Sequence[int]) -> Many:
    """Lays out rows that have these parts."""
    columns, shared = (", ".join([name for part in parts for name in of[part]]) for of in (_PARTS, _SHARED))
    return insert("INTO temp.staged", columns, shared)


_STAGE = {parts: _stage(parts) for number in (1, 2, 3) for parts in combinations(range(len(_PARTS)), number)}


def _taken(into: str, names: str, columns: Sequence[str], number: str) -> str:
    return f"INSERT {into} ({names}) SELECT {', '.join(columns)} FROM staged WHERE id <= new.{number}"  # noqa: S608


_INTERFERED = "interfered"
_SET_UP = (
    "PRAGMA temp.secure_delete = OFF",  # it is in memory alone
    "DROP VIEW IF EXISTS temp.batch",
    "DROP TABLE IF EXISTS temp.staged",
    f"CREATE TEMP TABLE staged (id INTEGER PRIMARY KEY, {', '.join(name for part in _PARTS for name in part)})",
    "CREATE TEMP VIEW batch AS SELECT 0 AS events, 0 AS marks, 0 AS deliveries, 0 AS results, 0 AS now, 0 AS forgotten",
    # OR ROLLBACK as in `joining` and `transaction`. RAISE says why the batch is no ordinary one. A trigger may not say
    # NOT INDEXED: without the plus, and without being told how few rows there are, SQLite would go through all that is
    # pending, or all deliveries, where somebody has had it ANALYZE the file.
    f"""
    CREATE TEMP TRIGGER write INSTEAD OF INSERT ON batch BEGIN
        DELETE FROM seen WHERE key IN (
            SELECT key FROM seen INDEXED BY seen_until WHERE until <= new.now LIMIT new.forgotten
        );
        {_taken("OR IGNORE INTO seen", "key, value, event_id, until", ["key", "value", "event_id", "until"], "events")}
            AND key IS NOT NULL;
        SELECT RAISE(ROLLBACK, 'repeated') WHERE changes() <> new.marks;
        {_taken("OR ROLLBACK INTO event", f"{rows.EVENT_COLUMNS}, shape", _EVENT, "events")};
        {_taken("OR ROLLBACK INTO body", "event_id, content", ["event_id", "content"], "events")};
        {_taken("OR ROLLBACK INTO delivery", rows.DELIVERY_COLUMNS, _DELIVERY, "deliveries")};
        UPDATE OR ROLLBACK delivery SET "trigger" = 'retry', retried = 1, taken = 0, open = 0,
            state = result_state, due = coalesce(result_due, delivery.due), attempts = result_attempts,
            tries = result_tries, code = result_code, error_code = result_error_code,
            error_message = result_error_message, duration_ms = result_duration_ms, updated_at = result_updated_at
        FROM staged WHERE likelihood(staged.id <= new.results, 0.000001) AND delivery.id = result_id
            AND +delivery.state = 'pending' AND delivery.attempts < result_n AND delivery.route = result_route;
        SELECT RAISE(ROLLBACK, '{_INTERFERED}') WHERE changes() <> new.results;
        {_taken("OR IGNORE INTO attempt", f"delivery_id, {rows.ATTEMPT_COLUMNS}", _ATTEMPT, "results")};
        DELETE FROM staged;
    END
    """,  # noqa: S608 - our own words
)
_WRITE = "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)"


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


class Staging:
    """Writes ordinary batches. All methods are called by the writer's thread."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        """The one that has the table and the trigger."""
        self._dirty = False
        """Whether something may have been left in the table."""

    def write(
        self,
        connection: sqlite3.Connection,
        adds: Sequence[Add],
        records: Sequence[Record],
        waiting: Mapping[str, int],
        deltas: Deltas,
        shapes: Shapes,
        forgetting: Forgetting,
    ) -> list[Added]:
        """Write these and commit, note in `deltas` what they changed; what became of each event.

        Raises Unusual or Interfered with nothing written; else what SQLite raises, and then only the file knows.
        """
        adding = [add.adding for add in adds]
        _look(adding, records)
        collected = _Collected(waiting, deltas, shapes, forgetting)
        added = collected.add(adding) if adding else []
        events, deliveries = collected.events, collected.deliveries
        results = [(*record.update, *record.attempt) for record in records if record.update and record.attempt]
        self._set_up(connection)
        try:
            _lay_out(connection, events, deliveries, results)
        except (sqlite3.Error, OverflowError, ValueError, TypeError) as error:
            # Mostly a value that cannot be written: whose, shows when they are written one by one.
            self._connection = None
            raise Unusual from error
        self._dirty = True
        counts = (len(events), collected.marks, len(deliveries), len(results), collected.now, collected.forgotten)
        try:
            connection.execute(_WRITE, counts)
        except sqlite3.IntegrityError as error:
            raise (Interfered if str(error) == _INTERFERED else Unusual) from error
        self._dirty = False
        for record in records:
            if record.result.state is not State.PENDING:
                shift(deltas, record.result.delivery.route, -1, 0)
        return added

    def _set_up(self, connection: sqlite3.Connection) -> None:
        if self._connection is not connection:
            for statement in _SET_UP:
                connection.execute(statement)
            self._connection = connection
        elif self._dirty:
            connection.execute("DELETE FROM temp.staged")
        self._dirty = False


def _look(adds: Sequence[Adding], records: Sequence[Record]) -> None:
    """Raise Unusual where that can be seen at once."""
    if not (adds or records):
        raise Unusual  # it is written to see whether one can
    size = longest = deliveries = 0
    for add in adds:
        size += len(add.content)
        deliveries += len(add.owed)
        for place in _LONG:
            if add.event[place] is not None:
                longest = max(longest, len(add.event[place]))
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
        size += len(record.attempt[_ANSWER] or b"")
    # What many events have in common each row has, also those that are of deliveries and results alone.
    if size + longest * max(len(adds), deliveries, len(records)) > MOST_BYTES:
        raise Unusual


def _lay_out(connection: sqlite3.Connection, *lists: Sequence[Row]) -> None:
    """Events, deliveries and results beside each other. What fills up is like the rest in what all have in common,
    which is bound but once, and has nothing else: a body may be large."""
    parts = tuple([part for part, rows in enumerate(lists) if rows])
    number = max(map(len, lists))
    first, *others = [_filled(part, lists[part], number) for part in parts]
    for other in others:
        first = list(map(operator.add, first, other))
    _STAGE[parts](connection, first)


def _filled(part: int, table: Sequence[Row], number: int) -> Sequence[Row]:
    if len(table) == number:
        return table
    filler = tuple([value if alike else None for value, alike in zip(table[0], _ALIKE[part], strict=True)])
    return [*table, *[filler] * (number - len(table))]
