"""What one transaction writes beside new events (`joining`): results, refused requests, commands.

Each function is a few large calls, whatever the size of the batch, and notes in `deltas` how many deliveries it made
pending or held. None of them begins or commits.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from relay.clock import to_ms
from relay.delivery import Result, State
from relay.jsontext import whole
from relay.store import Counts
from relay.stores.sqlite import lanes, rows
from relay.stores.sqlite.deltas import Deltas as Deltas
from relay.stores.sqlite.deltas import shift as shift
from relay.stores.sqlite.rows import Row

T = TypeVar("T")
Command = Callable[[sqlite3.Connection, Deltas], T]

_REJECTIONS_KEPT = 1000
SIZES = (64, 16, 4, 1)


@dataclass(slots=True)
class Record:
    """A result, waiting."""

    result: Result
    update: Row | None
    attempt: Row | None
    done: asyncio.Future[None]


def some(table: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """A table in pieces of few sizes, so that each statement over one is compiled once and kept."""
    done = 0
    for size in SIZES:
        while len(table) - done >= size:
            yield table[done : done + size]
            done += size


def values(rows: int, columns: int) -> str:
    """Places for so many rows."""
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"


def flat(table: Sequence[Row]) -> list[Any]:
    """The values of a table, row by row."""
    return [value for row in table for value in row]


class Insert:
    """Rows into a table, many with each statement: a tenth faster than one by one, and Python's lock changes hands
    once a statement instead of once a row."""

    __slots__ = ("_statements",)

    def __init__(self, into: str, columns: str) -> None:
        width = columns.count(",") + 1
        self._statements = {size: f"INSERT {into} ({columns}) {values(size, width)}" for size in SIZES}

    def __call__(self, connection: sqlite3.Connection, table: Sequence[Row]) -> None:
        for piece in some(table):
            connection.execute(self._statements[len(piece)], flat(piece))


_insert_attempts = Insert("OR IGNORE INTO attempt", f"delivery_id, {rows.ATTEMPT_COLUMNS}")
_insert_rejections = Insert("OR IGNORE INTO rejection", rows.REJECTION_COLUMNS)

_UPDATE = (
    "UPDATE delivery SET state = ?, due = coalesce(?, due), attempts = ?, tries = ?,"
    " \"trigger\" = 'retry', retried = 1, taken = 0, open = 0,"
    " code = ?, error_code = ?, error_message = ?, duration_ms = ?, updated_at = ?"
)
# The common case, many with one statement: nobody touched the delivery while its attempt was made. The row count tells.
_RECORDS = {
    size: "UPDATE delivery NOT INDEXED SET state = v.column1, due = coalesce(v.column2, delivery.due),"  # noqa: S608
    " attempts = v.column3, tries = v.column4, \"trigger\" = 'retry', retried = 1, taken = 0, open = 0,"
    " code = v.column5, error_code = v.column6, error_message = v.column7, duration_ms = v.column8,"
    f" updated_at = v.column9 FROM ({values(size, 12)}) AS v"
    " WHERE delivery.id = v.column10 AND delivery.state = 'pending' AND delivery.attempts < v.column11"
    " AND delivery.route = v.column12"
    for size in SIZES
}


def _changes(result: Result) -> Row:
    """The values that `_UPDATE` sets."""
    attempt, failure = result.attempt, result.failure
    return (
        result.state.value,
        None if result.due is None else to_ms(result.due),
        result.delivery.attempts if attempt is None else attempt.n,
        result.tries,
        None if attempt is None or attempt.response is None else attempt.response.status,
        None if failure is None else failure.code.value,
        None if failure is None else whole(failure.message),
        None if attempt is None else attempt.duration_ms,
        to_ms(result.at),
    )


def count(connection: sqlite3.Connection) -> dict[str, Counts]:
    """Pending and held deliveries by route, from the indexes that hold them."""
    counts: dict[str, Counts] = {}
    for state in ("pending", "held"):
        # The state is spelt out: only then can SQLite use the partial index.
        query = f"SELECT route, count(*) FROM delivery WHERE state = '{state}' GROUP BY route"  # noqa: S608
        for route, number in connection.execute(query):
            setattr(counts.setdefault(route, Counts()), state, number)
    return counts


def update_row(result: Result, n: int) -> Row:
    """The values of an update that records attempt `n`."""
    return (*_changes(result), result.delivery.id, n, result.delivery.route)


def record(connection: sqlite3.Connection, records: Sequence[Record], deltas: Deltas) -> None:
    """Attempts and what they change, all at once where nothing interfered, else one by one."""
    updates = [record.update for record in records if record.update is not None]
    if len(updates) == len(records):
        connection.execute("SAVEPOINT records")
        try:
            matched = sum([connection.execute(_RECORDS[len(piece)], flat(piece)).rowcount for piece in some(updates)])
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO records")
            raise
        if matched == len(updates):
            connection.execute("RELEASE records")
            _insert_attempts(connection, [record.attempt for record in records if record.attempt is not None])
            for record in records:
                if record.result.state is not State.PENDING:
                    shift(deltas, record.result.delivery.route, -1, 0)
                    _release(connection, record.result)
                elif record.result.latest:
                    _give_way(connection, record.result, deltas)
            return
        connection.execute("ROLLBACK TO records")
        connection.execute("RELEASE records")
    for record in records:
        _record_one(connection, record, deltas)


def _record_one(connection: sqlite3.Connection, record: Record, deltas: Deltas) -> None:
    """One result, whatever happened to its delivery meanwhile."""
    result, attempt = record.result, record.result.attempt
    query = "SELECT state, attempts, route, lane FROM delivery WHERE id = ?"
    found = connection.execute(query, (result.delivery.id,)).fetchone()
    if found is None:
        return  # removed meanwhile
    state, attempts, route, lane = found
    if attempt is not None and attempts >= attempt.n:
        return  # recorded before
    if record.attempt is not None:
        _insert_attempts(connection, [record.attempt])
    changes = _changes(result)
    if attempt is None:  # it ended without one: what the last attempt left is still true
        if result.state is State.PENDING or state not in (State.PENDING, State.HELD):
            return
        connection.execute(
            "UPDATE delivery SET state = ?, held_reason = NULL, held_at = NULL, tries = ?, taken = 0, open = 0,"
            " error_code = ?, error_message = ?, updated_at = ? WHERE id = ?",
            (changes[0], changes[3], changes[5], changes[6], changes[8], result.delivery.id),
        )
    elif state == State.PENDING or (state == State.HELD and result.state is not State.PENDING):
        connection.execute(
            f"{_UPDATE}, held_reason = NULL, held_at = NULL WHERE id = ?", (*changes, result.delivery.id)
        )
    else:  # held: it waits on, with what was learned; ended meanwhile: it stays so, and the attempt is told of
        changes = (state, changes[1] if state == State.HELD else None, *changes[2:])
        connection.execute(f"{_UPDATE} WHERE id = ?", (*changes, result.delivery.id))
        if result.latest and state == State.HELD:
            _give_way(connection, result, deltas)
        return
    if result.state is State.PENDING and result.latest:
        _give_way(connection, result, deltas)
    if result.state is not State.PENDING:
        if state == State.PENDING:
            shift(deltas, route, -1, 0)
        elif state == State.HELD:
            shift(deltas, route, 0, -1)
        if lane is not None:
            lanes.release(connection, route, lane)


def _release(connection: sqlite3.Connection, result: Result) -> None:
    """A delivery has ended: the next one of its lane may go on. The order may be another than it was born under."""
    if result.delivery.lane is None and not result.ordered:
        return
    found = connection.execute("SELECT route, lane FROM delivery WHERE id = ?", (result.delivery.id,)).fetchone()
    if found is not None and found[1] is not None:
        lanes.release(connection, *found)


def _give_way(connection: sqlite3.Connection, result: Result, deltas: Deltas) -> None:
    """Tried in vain under `order: latest`: where something newer waits, that is sent instead."""
    found = connection.execute("SELECT route, lane FROM delivery WHERE id = ?", (result.delivery.id,)).fetchone()
    if found is not None:
        route, lane = found
        lanes.collapse(connection, route, lane, to_ms(result.at), deltas)


def reject(connection: sqlite3.Connection, rejections: Sequence[Row]) -> None:
    """Refused requests; of each source the last ones stay."""
    _insert_rejections(connection, rejections)
    for source in {row[1] for row in rejections}:
        kept = connection.execute("SELECT count(*) FROM rejection WHERE source = ?", (source,)).fetchone()[0]
        if kept > _REJECTIONS_KEPT:
            connection.execute(
                "DELETE FROM rejection WHERE id IN (SELECT id FROM rejection WHERE source = ? ORDER BY id LIMIT ?)",
                (source, kept - _REJECTIONS_KEPT),
            )


def run(connection: sqlite3.Connection, command: Command[T], deltas: Deltas) -> T:
    """Run a command so that it can fail alone. It sees in `deltas` what the transaction has changed before."""
    before = {route: list(both) for route, both in deltas.items()}
    connection.execute("SAVEPOINT command")
    try:
        result = command(connection, deltas)
    except BaseException:
        deltas.clear()
        deltas.update(before)
        if connection.in_transaction:  # a full disk has rolled back everything already
            connection.execute("ROLLBACK TO command")
            connection.execute("RELEASE command")
        raise
    connection.execute("RELEASE command")
    return result
