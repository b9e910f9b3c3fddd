"""Results: what an attempt changes, one by one, whatever happened to its delivery meanwhile. Stores record many at once
where nothing interfered, each in its own way, and come here with the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from relay.clock import to_ms
from relay.delivery import Result, State
from relay.jsontext import whole
from relay.store import Counts
from relay.stores._sql import lanes, rows
from relay.stores._sql.connection import LOCK, Connection
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.rows import Row
from relay.stores._sql.tables import REJECTIONS_KEPT

_ATTEMPT = (
    f"INSERT INTO attempt (delivery_id, {rows.ATTEMPT_COLUMNS})"  # noqa: S608 - our own columns
    f" VALUES ({', '.join('?' * (rows.ATTEMPT_COLUMNS.count(',') + 2))}) ON CONFLICT DO NOTHING"
)
_FIND = f"SELECT state, attempts, route, lane FROM delivery WHERE id = ? {LOCK}"  # noqa: S608
_UPDATE = (
    "UPDATE delivery SET state = ?, due = coalesce(?, due), attempts = ?, tries = ?,"
    " \"trigger\" = 'retry', retried = 1, taken = 0, open = 0,"
    " code = ?, error_code = ?, error_message = ?, duration_ms = ?, updated_at = ?"
)


@dataclass(slots=True)
class Record:
    """A result, waiting."""

    result: Result
    update: Row | None
    attempt: Row | None
    done: asyncio.Future[None]


def changes_of(result: Result) -> Row:
    """The values that `_UPDATE` sets."""
    attempt, failure = result.attempt, result.failure
    return (
        result.state._value_,
        None if result.due is None else to_ms(result.due),
        result.delivery.attempts if attempt is None else attempt.n,
        result.tries,
        None if attempt is None or attempt.response is None else attempt.response.status,
        None if failure is None else failure.code._value_,
        None if failure is None else whole(failure.message),
        None if attempt is None else attempt.duration_ms,
        to_ms(result.at),
    )


def update_row(result: Result, n: int) -> Row:
    """The values of an update that records attempt `n`."""
    return (*changes_of(result), result.delivery.id, n, result.delivery.route)


def count(connection: Connection) -> dict[str, Counts]:
    """Pending and held deliveries by route, from the indexes that hold them."""
    counts: dict[str, Counts] = {}
    for state in ("pending", "held"):
        # The state is spelt out: only then can the partial index be used.
        query = f"SELECT route, count(*) FROM delivery WHERE state = '{state}' GROUP BY route"  # noqa: S608
        for route, number in connection.execute(query):
            setattr(counts.setdefault(route, Counts()), state, number)
    return counts


def record_one(connection: Connection, record: Record, deltas: Deltas) -> None:
    """One result, whatever happened to its delivery meanwhile."""
    result, attempt = record.result, record.result.attempt
    found = connection.execute(_FIND, (result.delivery.id,)).fetchone()
    if found is None:
        return  # removed meanwhile
    state, attempts, route, lane = found
    if attempt is not None and attempts >= attempt.n:
        return  # recorded before
    if record.attempt is not None:
        connection.execute(_ATTEMPT, record.attempt)
    changes = changes_of(result)
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
            give_way(connection, result, deltas)
        return
    if result.state is State.PENDING and result.latest:
        give_way(connection, result, deltas)
    if result.state is not State.PENDING:
        if state == State.PENDING:
            shift(deltas, route, -1, 0)
        elif state == State.HELD:
            shift(deltas, route, 0, -1)
        if lane is not None:
            lanes.release(connection, route, lane)


def release(connection: Connection, result: Result) -> None:
    """A delivery has ended: the next one of its lane may go on. The order may be another than it was born under."""
    if result.delivery.lane is None and not result.ordered:
        return
    found = connection.execute("SELECT route, lane FROM delivery WHERE id = ?", (result.delivery.id,)).fetchone()
    if found is not None and found[1] is not None:
        lanes.release(connection, *found)


def give_way(connection: Connection, result: Result, deltas: Deltas) -> None:
    """Tried in vain under `order: latest`: where something newer waits, that is sent instead."""
    found = connection.execute("SELECT route, lane FROM delivery WHERE id = ?", (result.delivery.id,)).fetchone()
    if found is not None:
        route, lane = found
        lanes.collapse(connection, route, lane, to_ms(result.at), deltas)


def trim(connection: Connection, rejections: Sequence[Row]) -> None:
    """Of each source the last refused requests stay; these have just been written."""
    for source in {row[1] for row in rejections}:
        kept = connection.execute("SELECT count(*) FROM rejection WHERE source = ?", (source,)).fetchone()[0]
        if kept > REJECTIONS_KEPT:
            connection.execute(
                "DELETE FROM rejection WHERE id IN (SELECT id FROM rejection WHERE source = ? ORDER BY id LIMIT ?)",
                (source, kept - REJECTIONS_KEPT),
            )
