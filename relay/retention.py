"""Retention: what has ended long enough ago is removed from the store, all the time and in small steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from relay import journal
from relay.clock import Clock
from relay.schema import Store as Section
from relay.store import Haste, Pruned, Store, Unavailable, quickly

_EVERY = 60.0  # seconds
_SHARE = 20  # a pass that found nothing is followed by so many times its own length without one
_AHEAD = timedelta(days=1)  # a clock that runs ahead of time itself by more is not believed


class Retention:
    """Prunes the store as the running config says."""

    def __init__(self, store: Store, clock: Clock, section: Callable[[], Section]) -> None:
        self._store = store
        self._clock = clock
        self._section = section
        self._pass = asyncio.Lock()
        self._began = (clock.now(), clock.monotonic())
        self._waiting = 0  # for a pass that somebody asked for

    async def run(self) -> None:
        """Passes for ever. What the disk does not take now is removed by a later one."""
        while True:
            began = self._clock.monotonic()
            done = Pruned()
            section = self._section()
            try:
                done = await self._once(partial(self._haste, section))
            except Unavailable as error:
                journal.pruning_failed(str(error))
            if self._section() != section:
                continue
            took = self._clock.monotonic() - began
            await self._clock.sleep(max(_EVERY, took * _SHARE) if done == Pruned() else _EVERY)

    async def once(self) -> Pruned:
        """One pass, now; what it removed. A gentle one that is under way makes haste then. Raises Unavailable."""
        self._waiting += 1
        try:
            return await self._once(quickly)
        finally:
            self._waiting -= 1

    async def would(self) -> Pruned:
        """What a pass would remove now. One that is under way goes on. Raises Unavailable."""
        section = self._section()
        return await self._store.prunable(self._now(), section.retention, section.bodies)

    async def _once(self, haste: Callable[[], Haste]) -> Pruned:
        async with self._pass:
            section = self._section()
            done = await self._store.prune(self._now(), section.retention, section.bodies, haste=haste)
        if done != Pruned():
            journal.pruned(done)
        return done

    def _haste(self, section: Section) -> Haste:
        """Of a pass that nobody waits for. It may take hours: a config that has changed meanwhile begins another."""
        if self._section() != section:
            return Haste.NO_MORE
        return Haste.QUICKLY if self._waiting else Haste.GENTLY

    def _now(self) -> datetime:
        """The present. A clock that was set a year ahead by mistake must not remove a year's history at once."""
        then, monotonic = self._began
        return min(self._clock.now(), then + timedelta(seconds=self._clock.monotonic() - monotonic) + _AHEAD)
