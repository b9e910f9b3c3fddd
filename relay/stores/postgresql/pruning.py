"""What is past its time is removed: in small transactions on a connection of its own, beside those of all relays.

One relay at a time prunes a database: who finds another at it has nothing to do. What is to go is looked for a thousand
events at a time. Some hundred of them are then locked together with their deliveries, and those that these are merged
into, and looked at once more: a delivery that a person retries and an event that is owed anew change a row that is
locked here, so either they are seen, or they find nothing any more. What somebody else has locked is passed over until
the next time, so that nobody here ever waits for a sender; senders wait for a lock no longer than one such step takes.

After each step it rests for as long as it worked: gently, longer, so that it removes hardly more events than come to
all relays together, but makes a step each second. What the removed rows took is made free by the server's autovacuum.
What goes, and by which rule, `prunable` says.

Shapes that nobody uses are removed late. Any relay may have known one since it started, and be about to store a
delivery with it, which no search would find without. So first one is retired: it still serves searches, but who looks
for its number finds none and makes a new one. It goes when all relays that run were started after that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import psycopg

from relay.clock import to_ms
from relay.store import Haste, Pruned, Unavailable, quickly
from relay.stores._sql import prunable, rows
from relay.stores._sql.tables import MOST_SHAPES, PRUNED_DELIVERIES_UP_TO, PRUNED_UP_TO
from relay.stores.postgresql.connection import connect_async, explain
from relay.stores.postgresql.dialect import translated

_LOCK = 0x7072756E  # "prun": who prunes

_STEP = 0.05  # seconds that a step should work
_FIRST, _LEAST, _MOST = 50, 10, 500  # events in one step
_BYTES = 256 << 10  # of bodies in one step, but always one: so much is a commit that others may wait for
_KEEPING_UP = 1.1  # times as many events are removed gently as come,
_SLOWEST = 50.0  # but never fewer a second
_LONGEST_REST = 1.0  # seconds: somebody may want it to make haste
_COUNTED_EVERY = 10.0  # seconds
_MINUTE = timedelta(minutes=1)
_COUNTED = 600_000  # events of the last minute
_AT_ONCE = 1000  # rows of other tables
_SHAPES_KEPT = MOST_SHAPES // 2  # so many are no burden: unused ones go past that
_RETIRED = "retired "
_SKEW = 3_600_000  # milliseconds by which the clocks of relays may differ

# Few rows are looked up in their indexes, whatever the planner believes of tables that it has not looked at for long.
_SETTINGS = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', false)"
    for name, value in (
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("plan_cache_mode", "force_custom_plan"),
    )
)

_EVENTS, _BODIES = translated(prunable.EVENTS), translated(prunable.BODIES)
_SO_FAR = translated(prunable.SO_FAR)
_LOCK_EVENTS = "SELECT id FROM event WHERE id = ANY ($1) FOR UPDATE SKIP LOCKED"
_LOCK_DELIVERIES = "SELECT id, event_id, merged_into FROM delivery WHERE event_id = ANY ($1) FOR UPDATE SKIP LOCKED"
_LOCK_CARRIERS = "SELECT id FROM delivery WHERE id = ANY ($1) FOR UPDATE SKIP LOCKED"
# Of the events: those all of whose deliveries, and what these are merged into, are locked here and may go.
_STILL = f"""
    SELECT id FROM unnest($1::bigint[]) AS these(id)
    WHERE NOT {translated(prunable.kept("these.id"))} AND NOT EXISTS (
        SELECT 1 FROM delivery d LEFT JOIN delivery c ON c.id = d.merged_into
        WHERE d.event_id = these.id AND (d.id <> ALL ($3) OR coalesce(c.id <> ALL ($3), false))
    )
"""  # noqa: S608
_UP_TO = (
    "INSERT INTO meta VALUES ($1, $2::text) ON CONFLICT (key) DO UPDATE"
    " SET value = greatest(meta.value::bigint, excluded.value::bigint)::text"
)
_COUNT = (
    "INSERT INTO meta VALUES ($1, $2::text) ON CONFLICT (key) DO UPDATE"
    " SET value = (meta.value::bigint + excluded.value::bigint)::text"
)
_COMING = "SELECT count(*) FROM (SELECT 1 FROM event WHERE id >= $1 LIMIT $2) found"
_REJECTIONS = (
    "DELETE FROM rejection WHERE id IN"
    " (SELECT id FROM rejection WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)"
)
_SEEN = (
    "DELETE FROM seen WHERE key IN"
    " (SELECT key FROM seen WHERE until <= $1 ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED)"
)
# LIMIT: each is looked up in the index, and no more of it is read.
_UNUSED = """
    (SELECT 1 FROM delivery d WHERE d.shape = shape.id LIMIT 1) IS NULL
    AND (SELECT 1 FROM event e WHERE e.matched = 0 AND e.shape = shape.id LIMIT 1) IS NULL
"""
_RETIRE = f"UPDATE shape SET key = $1 || key WHERE key NOT LIKE '{_RETIRED}%' AND {_UNUSED}"  # noqa: S608
_DROP = f"""
    DELETE FROM shape WHERE key LIKE '{_RETIRED}%' AND {_UNUSED}
        AND split_part(key, ' ', 2)::bigint + {_SKEW} < (SELECT coalesce(min(started_at), $1) FROM process)
"""  # noqa: S608

_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def prune(
    url: str,
    now: datetime,
    retention: timedelta,
    bodies: timedelta,
    told: Callable[[Pruned], None] | None = None,
    haste: Callable[[], Haste] = quickly,
) -> Pruned:
    """See Store.prune; nothing where another relay is at it."""
    try:
        connection = await connect_async(url, "pruning")
        try:
            await connection.execute(_SETTINGS)
            [(alone,)] = await _all(connection, "SELECT pg_try_advisory_lock($1)", _LOCK)
            if not alone:
                return Pruned()
            return await _Pruning(connection, told, haste).run(now, retention, bodies)
        finally:
            try:
                with suppress(psycopg.Error):
                    # To close it unlocks as well, but in the server's own time: who prunes next would find it locked.
                    await connection.execute("SELECT pg_advisory_unlock_all()")
            finally:  # also when it is cancelled once more
                with suppress(psycopg.Error):
                    await connection.close()
    except psycopg.Error as error:
        raise Unavailable(explain(error)) from error


class Pace:
    """When the next step is due. One that is late, for it worked or waited for long, is made up for by shorter rests:
    a database that is always pruned more slowly than events come would grow for ever."""

    def __init__(self, now: float) -> None:
        self._due = now

    def rest(self, now: float, worked: float, each: float) -> float:
        """Seconds for which to rest after a step that worked for so many, where one is to begin every `each` seconds:
        at least for as long as it worked."""
        self._due = max(self._due, now - _LONGEST_REST) + min(each, _LONGEST_REST)
        return max(worked, self._due - now)


class _Pruning:
    """One pass over the database."""

    def __init__(
        self, connection: _Connection, told: Callable[[Pruned], None] | None, haste: Callable[[], Haste]
    ) -> None:
        self._connection = connection
        self._told = told
        self._haste = haste
        self._total = Pruned()
        self._size = _FIRST
        self._began = monotonic()
        self._pace = Pace(self._began)
        self._counted = -_COUNTED_EVERY
        self._coming = 0.0  # events a second, of late
        self._walks = 1
        """How many times all that comes is walked over, one after the other: each must be so many times as fast."""

    async def run(self, now: datetime, retention: timedelta, bodies: timedelta) -> Pruned:
        """Remove what is older; how much that was."""
        self._now = now
        self._walks = 2 if bodies < retention else 1
        await self._connection.execute(_SO_FAR, [str(rows.first_id(now))])
        await self._walk(_EVENTS, _remove, now - retention)
        if bodies < retention:
            await self._walk(_BODIES, _remove_bodies, now - bodies)
        await self._sweep(_REJECTIONS, rows.first_id(now - retention))
        await self._sweep(_SEEN, to_ms(now))
        await self._tidy(to_ms(now))
        return self._total

    async def _walk(
        self, query: str, remove: Callable[[_Connection, list[int], list[int]], Awaitable[Pruned]], limit: datetime
    ) -> None:
        last, cutoff, end = 0, to_ms(limit), rows.first_id(limit)
        while self._going_on and (found := await _all(self._connection, query, last, cutoff, end, prunable.LOOKED_AT)):
            last = found[-1][0]
            old = deque((number, size) for number, kept, size in found if not kept)
            while old and self._going_on:
                number, size = old.popleft()
                some, room = [number], _BYTES - size
                while old and len(some) < self._size and old[0][1] <= room:
                    number, size = old.popleft()
                    some.append(number)
                    room -= size
                began = monotonic()
                async with self._connection.transaction():
                    done = await remove(self._connection, *await _locked(self._connection, some, cutoff))
                await self._rest(len(some), monotonic() - began, done)

    async def _sweep(self, query: str, limit: int) -> None:
        while self._going_on:
            began = monotonic()
            removed = (await self._connection.execute(query, [limit, _AT_ONCE])).rowcount
            if removed < _AT_ONCE:
                return
            await asyncio.sleep(monotonic() - began)

    async def _tidy(self, now: int) -> None:
        if not self._going_on:
            return
        [(number,)] = await _all(self._connection, "SELECT count(*) FROM shape")
        if number > _SHAPES_KEPT:
            await self._connection.execute(_RETIRE, [f"{_RETIRED}{now} "])
        await self._connection.execute(_DROP, [now])

    async def _rest(self, size: int, worked: float, done: Pruned) -> None:
        self._total = self._total.plus(done)
        if self._told is not None:
            self._told(self._total)
        # Never more than twice as many as before: the first ones may have been small.
        self._size = max(_LEAST, min(_MOST, int(size * _STEP / max(worked, 1e-6)), self._size * 2))
        each = size / await self._rate() if self._haste() is Haste.GENTLY else 0.0
        await asyncio.sleep(self._pace.rest(monotonic(), worked, each))

    async def _rate(self) -> float:
        """How many are to be removed in a second, gently."""
        since = monotonic() - self._began
        if since - self._counted >= _COUNTED_EVERY:
            self._counted = since
            first = rows.first_id(self._now + timedelta(seconds=since) - _MINUTE)
            [(number,)] = await _all(self._connection, _COMING, first, _COUNTED)
            self._coming = number / _MINUTE.total_seconds()
        return max(_SLOWEST, self._coming * _KEEPING_UP) * self._walks

    @property
    def _going_on(self) -> bool:
        return self._haste() is not Haste.NO_MORE


async def _locked(connection: _Connection, events: list[int], cutoff: int) -> tuple[list[int], list[int]]:
    """Those of the events that may go, with their deliveries, and that nobody else changes before the transaction
    ends."""
    ours = [number for (number,) in await _all(connection, _LOCK_EVENTS, events)]
    deliveries = await _all(connection, _LOCK_DELIVERIES, ours)
    locked = {number for number, _, _ in deliveries}
    carriers = {into for _, _, into in deliveries if into is not None} - locked
    if carriers:
        locked.update(number for (number,) in await _all(connection, _LOCK_CARRIERS, sorted(carriers)))
    still = {number for (number,) in await _all(connection, _STILL, ours, cutoff, sorted(locked))}
    return sorted(still), [number for number, event, _ in deliveries if event in still]


async def _remove(connection: _Connection, events: list[int], deliveries: list[int]) -> Pruned:
    if not events:
        return Pruned()
    await connection.execute("DELETE FROM body WHERE event_id = ANY ($1)", [events])
    await connection.execute("DELETE FROM attempt WHERE delivery_id = ANY ($1)", [deliveries])
    await connection.execute("DELETE FROM delivery WHERE id = ANY ($1)", [deliveries])
    await connection.execute("DELETE FROM mention WHERE event_id = ANY ($1)", [events])
    await connection.execute("DELETE FROM event WHERE id = ANY ($1)", [events])
    await connection.execute(_COUNT, ["pruned_events", str(len(events))])
    await connection.execute(_COUNT, ["pruned_deliveries", str(len(deliveries))])
    await connection.execute(_UP_TO, [PRUNED_UP_TO, str(max(events))])
    if deliveries:
        await connection.execute(_UP_TO, [PRUNED_DELIVERIES_UP_TO, str(max(deliveries))])
    return Pruned(events=len(events), deliveries=len(deliveries))


async def _remove_bodies(connection: _Connection, events: list[int], deliveries: list[int]) -> Pruned:
    """What senders sent, and what destinations answered."""
    bodies = (await connection.execute("DELETE FROM body WHERE event_id = ANY ($1)", [events])).rowcount
    await connection.execute(
        "UPDATE attempt SET response_body = '', truncated = 1 WHERE delivery_id = ANY ($1)"
        " AND length(response_body) > 0",
        [deliveries],
    )
    return Pruned(bodies=bodies)


async def _all(connection: _Connection, sql: str, *values: Any) -> Sequence[Any]:
    cursor = await connection.execute(sql, values or None)
    return await cursor.fetchall()
