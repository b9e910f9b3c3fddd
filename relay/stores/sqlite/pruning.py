"""What is past its time is removed: in steps of a few milliseconds, between which senders are answered.

A reader looks for what may go, a thousand events at a time; the writer removes some of them in one transaction, having
looked once more. How many is found by how long the last step worked, whatever its commit took, and by how large they
are. After each step it rests, so that few requests ever meet one: gently it removes hardly more events than come,
since a commit and a checkpoint of pages from all over the file take longer than others do; in haste it rests ten times
as long as it worked. Where nobody else writes, steps are larger, and there is no rest. In the end free pages are given
back to the disk, but for some that new events will take at once.

An event goes when all its deliveries have ended and the last of them did so before the limit: what was merged into
another delivery ends with that one. Its deliveries and their attempts go with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import orjson

from relay.clock import to_ms
from relay.store import Haste, Pruned
from relay.stores._sql import rows
from relay.stores._sql.connection import Command, Connection
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.tables import PRUNED_UP_TO
from relay.stores._sql.writer import Writer

Ask = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]
_Step = tuple[Pruned, float]
"""What a step did, and how many seconds it worked, without its commit."""

_LOOKED_AT = 1000  # events, at once
_STEP = 0.001  # seconds that a step should work, while others write
_REST = 10.0  # times as long nothing is removed after a step, while others write
_KEEPING_UP = 1.1  # times as many events are removed gently as come,
_SLOWEST = 50.0  # but never fewer a second
_AT_ONCE = 1.0  # seconds of a rest, after which it is asked whether it is to make haste
_COUNTED = 5.0  # seconds over which it is counted how many come
_BYTES = 256 << 10  # of bodies in one step, but always one: what is removed is written over
_ALONE = 1.0  # seconds without a write of anybody else, after which there is nobody to be in the way of
_STEP_ALONE = 0.05
_FIRST, _LEAST, _MOST = 32, 4, 1000  # events in one step
_RESERVE = 1024  # pages that stay free, or a tenth of the file: new events take them at once
_REJECTIONS = 500

# Of an event: whether something of it is unfinished, or ended after ?2.
_KEPT = """
    EXISTS (
        SELECT 1 FROM delivery d INDEXED BY delivery_event LEFT JOIN delivery c ON c.id = d.merged_into
        WHERE d.event_id = {id} AND (
            coalesce(c.state, d.state) IN ('pending', 'held') OR coalesce(c.updated_at, d.updated_at) >= ?2
        )
    )
"""
_EVENTS = f"""
    SELECT id, {_KEPT.format(id="some.id")}, size FROM (
        SELECT id, size FROM event WHERE id > ?1 AND id < ?3 ORDER BY id LIMIT ?4
    ) some
"""  # noqa: S608
_BODIES = f"""
    SELECT some.id, {_KEPT.format(id="some.id")}, event.size FROM (
        SELECT event_id AS id FROM body WHERE event_id > ?1 AND event_id < ?3 ORDER BY event_id LIMIT ?4
    ) some JOIN event ON event.id = some.id
"""  # noqa: S608
_STILL = f"SELECT value FROM json_each(?1) WHERE NOT {_KEPT.format(id='value')}"  # noqa: S608
_OF_DELIVERIES = "IN (SELECT id FROM delivery WHERE event_id IN (SELECT value FROM json_each(?)))"
_UP_TO = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value + 0, excluded.value + 0)"
_COUNT = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value"


class Pruning:
    """One pass over the store."""

    def __init__(
        self, ask: Ask, writer: Writer, told: Callable[[Pruned], None] | None, haste: Callable[[], Haste]
    ) -> None:
        self._haste = haste
        self._counted = (monotonic(), writer.added)
        self._coming = 0.0  # events a second, of late
        self._ask = ask
        self._writer = writer
        self._told = told
        self._total = Pruned()
        self._size = _FIRST
        self._others_at = monotonic()
        self._commits = writer.commits
        """After the last step: where there are more before the next one, others have written."""

    async def run(self, now: datetime, retention: timedelta, bodies: timedelta) -> Pruned:
        """Remove what is older; how much that was."""
        await self._walk(_EVENTS, _remove, now - retention)
        if bodies < retention:
            await self._walk(_BODIES, _remove_bodies, now - bodies)
        await self._reject(now - retention)
        if self._total.events:
            shapes = self._writer.shapes
            await self._writer.call(lambda connection, deltas: shapes.drop_unused(connection))
        await self._give_back()
        return self._total

    async def _walk(self, query: str, remove: Callable[[Connection, list[int]], Pruned], limit: datetime) -> None:
        last, cutoff, end = 0, to_ms(limit), rows.first_id(limit)
        while self._going_on and (found := await self._ask(query, (last, cutoff, end, _LOOKED_AT))):
            last = found[-1][0]
            old = deque((number, size) for number, kept, size in found if not kept)
            while old and self._going_on:
                some = [old.popleft()]
                room = _BYTES - some[0][1]
                while old and len(some) < self._size and old[0][1] <= room:
                    room -= old[0][1]
                    some.append(old.popleft())
                numbers = [number for number, _ in some]

                def step(connection: Connection, deltas: Deltas, numbers: list[int] = numbers) -> _Step:
                    began = monotonic()
                    still = [row[0] for row in connection.execute(_STILL, (_json(numbers), cutoff))]
                    return remove(connection, still), monotonic() - began

                await self._take(step, len(numbers))

    async def _reject(self, limit: datetime) -> None:
        end = rows.first_id(limit)

        def step(connection: Connection, deltas: Deltas) -> int:
            query = "DELETE FROM rejection WHERE id IN (SELECT id FROM rejection WHERE id < ? ORDER BY id LIMIT ?)"
            removed: int = connection.execute(query, (end, _REJECTIONS)).rowcount
            return removed

        while await self._writer.call(step):
            pass

    async def _give_back(self) -> None:
        """Free pages go back to the disk, for good at the next checkpoints."""
        self._size = _FIRST

        def step(connection: Connection, deltas: Deltas) -> _Step:
            began = monotonic()
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            number = max(0, min(self._size, free - max(_RESERVE, pages // 10)))
            # One page a call, whatever it says: Python's sqlite3 ends a statement without columns after its first step.
            for _ in range(number):
                connection.execute("PRAGMA incremental_vacuum(1)")
            return Pruned(pages=number), monotonic() - began

        while self._going_on and await self._take(step, self._size):
            pass

    async def _take(self, step: Command[_Step], size: int) -> bool:
        """One step over so many, and a rest after it; whether it did anything."""
        before = self._writer.commits
        done, worked = await self._writer.call(step)
        now = monotonic()
        if before != self._commits or self._writer.commits > before + 1:
            self._others_at = now
        self._commits = self._writer.commits
        self._total = self._total.plus(done)
        if self._told is not None:
            self._told(self._total)
        alone, gently = now - self._others_at > _ALONE, self._haste() is Haste.GENTLY
        # Never more than twice as many as before: the first ones may have been small.
        goal = _STEP_ALONE if alone else _STEP
        self._size = max(_LEAST, min(_MOST, int(size * goal / max(worked, 1e-6)), self._size * 2))
        rest = 0.0
        if not alone:
            rest = max(worked * _REST, size / self._rate(now) if gently else 0)
        while rest > _AT_ONCE and self._haste() is Haste.GENTLY:  # somebody may want it to make haste
            await asyncio.sleep(_AT_ONCE)
            rest -= _AT_ONCE
        await asyncio.sleep(min(rest, _AT_ONCE))
        return done != Pruned()

    def _rate(self, now: float) -> float:
        """How many are to be removed in a second, gently."""
        since, before = self._counted
        if now - since >= _COUNTED:
            self._coming = (self._writer.added - before) / (now - since)
            self._counted = now, self._writer.added
        return max(_SLOWEST, self._coming * _KEEPING_UP)

    @property
    def _going_on(self) -> bool:
        return self._haste() is not Haste.NO_MORE


def _remove(connection: Connection, events: list[int]) -> Pruned:
    some = (_json(events),)
    connection.execute("DELETE FROM body WHERE event_id IN (SELECT value FROM json_each(?))", some)
    connection.execute(f"DELETE FROM attempt WHERE delivery_id {_OF_DELIVERIES}", some)  # noqa: S608
    deliveries = connection.execute(
        "DELETE FROM delivery WHERE event_id IN (SELECT value FROM json_each(?))", some
    ).rowcount
    connection.execute("DELETE FROM mention WHERE event_id IN (SELECT value FROM json_each(?))", some)
    connection.execute("DELETE FROM event WHERE id IN (SELECT value FROM json_each(?))", some)
    connection.executemany(_COUNT, (("pruned_events", len(events)), ("pruned_deliveries", deliveries)))
    if events:
        connection.execute(_UP_TO, (PRUNED_UP_TO, max(events)))
    return Pruned(events=len(events), deliveries=deliveries)


def _remove_bodies(connection: Connection, events: list[int]) -> Pruned:
    """What senders sent, and what destinations answered."""
    some = (_json(events),)
    bodies = connection.execute("DELETE FROM body WHERE event_id IN (SELECT value FROM json_each(?))", some).rowcount
    connection.execute(
        f"UPDATE attempt SET response_body = x'', truncated = 1 WHERE delivery_id {_OF_DELIVERIES}"  # noqa: S608
        " AND length(response_body) > 0",
        some,
    )
    return Pruned(bodies=bodies)


def _json(numbers: list[int]) -> str:
    return orjson.dumps(numbers).decode()
