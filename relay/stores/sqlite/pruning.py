"""What is past its time is removed: in steps of a few milliseconds, between which senders are answered.

A reader looks for what may go, a thousand events at a time; the writer removes some of them in one transaction, having
looked once more, as many and as often as `tempo` says. In the end free pages are given back to the disk, but for some
that new events will take at once. What goes, and by which rule, `prunable` says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic

import orjson

from relay.clock import to_ms
from relay.store import Haste, Pruned
from relay.stores._sql import prunable, rows
from relay.stores._sql.connection import Command, Connection
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.prunable import Ask
from relay.stores._sql.tables import PRUNED_DELIVERIES_UP_TO, PRUNED_UP_TO
from relay.stores._sql.writer import Writer
from relay.stores.sqlite.tempo import Tempo

_Step = tuple[Pruned, int, float]
"""What a step did, to how many, and how many seconds it worked, without its commit."""

_BYTES = 256 << 10  # of bodies in one step, but always one: what is removed is written over
_RESERVE = 1024  # pages that stay free, or a tenth of the file: new events take them at once

_STILL = f"SELECT value FROM json_each(?1) WHERE NOT {prunable.kept('value')}"  # noqa: S608
_OF_DELIVERIES = "IN (SELECT id FROM delivery WHERE event_id IN (SELECT value FROM json_each(?)))"
_NEWEST = "SELECT max(id) FROM delivery WHERE event_id IN (SELECT value FROM json_each(?))"
_UP_TO = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value + 0, excluded.value + 0)"
_COUNT = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value"


class Pruning:
    """One pass over the store."""

    def __init__(
        self, ask: Ask, writer: Writer, told: Callable[[Pruned], None] | None, haste: Callable[[], Haste]
    ) -> None:
        self._haste = haste
        self._ask = ask
        self._writer = writer
        self._told = told
        self._total = Pruned()
        self._tempo = Tempo(writer, haste)

    async def run(self, now: datetime, retention: timedelta, bodies: timedelta) -> Pruned:
        """Remove what is older; how much that was."""
        self._tempo.walks = 2 if bodies < retention else 1
        if self._going_on:
            so_far = str(rows.first_id(now))
            await self._writer.call(lambda connection, deltas: connection.execute(prunable.SO_FAR, (so_far,)).rowcount)
        await self._walk(prunable.EVENTS, _remove, now - retention)
        if bodies < retention:
            await self._walk(prunable.BODIES, _remove_bodies, now - bodies)
        await self._reject(now - retention)
        if self._total.events:
            shapes = self._writer.shapes
            await self._writer.call(lambda connection, deltas: shapes.drop_unused(connection))
        await self._give_back()
        return self._total

    async def _walk(self, query: str, remove: Callable[[Connection, list[int]], Pruned], limit: datetime) -> None:
        last, cutoff, end = 0, to_ms(limit), rows.first_id(limit)
        while self._going_on and (found := await self._ask(query, (last, cutoff, end, prunable.LOOKED_AT))):
            last = found[-1][0]
            old = deque((number, size) for number, kept, size in found if not kept)
            while old and self._going_on:
                some = [old.popleft()]
                room = _BYTES - some[0][1]
                while old and len(some) < self._tempo.size and old[0][1] <= room:
                    room -= old[0][1]
                    some.append(old.popleft())
                numbers = [number for number, _ in some]

                def step(connection: Connection, deltas: Deltas, numbers: list[int] = numbers) -> _Step:
                    began = monotonic()
                    still = [row[0] for row in connection.execute(_STILL, (_json(numbers), cutoff))]
                    return remove(connection, still), len(still), monotonic() - began

                await self._take(step, len(numbers))

    async def _reject(self, limit: datetime) -> None:
        """There may be many more of them than events come."""
        end = rows.first_id(limit)
        self._tempo.begin_anew()

        def step(connection: Connection, deltas: Deltas) -> _Step:
            began = monotonic()
            query = "DELETE FROM rejection WHERE id IN (SELECT id FROM rejection WHERE id < ? ORDER BY id LIMIT ?)"
            removed = connection.execute(query, (end, self._tempo.size)).rowcount
            return Pruned(), removed, monotonic() - began

        while self._going_on and await self._take(step, self._tempo.size, paced=False):
            pass

    async def _give_back(self) -> None:
        """Free pages go back to the disk, for good at the next checkpoints."""
        self._tempo.begin_anew()

        def step(connection: Connection, deltas: Deltas) -> _Step:
            began = monotonic()
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            number = max(0, min(self._tempo.size, free - max(_RESERVE, pages // 10)))
            # One page a call, whatever it says: Python's sqlite3 ends a statement without columns after its first step.
            for _ in range(number):
                connection.execute("PRAGMA incremental_vacuum(1)")
            return Pruned(pages=number), number, monotonic() - began

        while self._going_on and await self._take(step, self._tempo.size, paced=False):  # pages are no events
            pass

    async def _take(self, step: Command[_Step], size: int, paced: bool = True) -> int:
        """One step over so many, and a rest after it; to how many it did something."""
        self._tempo.step_begins()
        done, number, worked = await self._writer.call(step)
        self._total = self._total.plus(done)
        if self._told is not None:
            self._told(self._total)
        await self._tempo.step_ended(size, worked, paced)
        return number

    @property
    def _going_on(self) -> bool:
        return self._haste() is not Haste.NO_MORE


def _remove(connection: Connection, events: list[int]) -> Pruned:
    some = (_json(events),)
    connection.execute("DELETE FROM body WHERE event_id IN (SELECT value FROM json_each(?))", some)
    connection.execute(f"DELETE FROM attempt WHERE delivery_id {_OF_DELIVERIES}", some)  # noqa: S608
    newest = connection.execute(_NEWEST, some).fetchone()[0]
    deliveries = connection.execute(
        "DELETE FROM delivery WHERE event_id IN (SELECT value FROM json_each(?))", some
    ).rowcount
    connection.execute("DELETE FROM mention WHERE event_id IN (SELECT value FROM json_each(?))", some)
    connection.execute("DELETE FROM event WHERE id IN (SELECT value FROM json_each(?))", some)
    connection.executemany(_COUNT, (("pruned_events", len(events)), ("pruned_deliveries", deliveries)))
    if events:
        connection.execute(_UP_TO, (PRUNED_UP_TO, max(events)))
    if newest is not None:
        connection.execute(_UP_TO, (PRUNED_DELIVERIES_UP_TO, newest))
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
