"""Sees to the steps of the wall clock: says them, keeps those that must be known after a restart, and has what waits
moved where the clock was set back. Beside the schedule: of a million deliveries that takes minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from relay import journal
from relay.clock import Clock
from relay.steps import KNOWN, Steps
from relay.store import Store, Unavailable
from relay.trouble import Trouble

_NONE = timedelta()


class Stepping:
    """Looks when it is told to, and has one thing done at a time."""

    def __init__(self, store: Store, clock: Clock, steps: Steps, trouble: Trouble) -> None:
        self._store = store
        self._clock = clock
        self._steps = steps
        self._trouble = trouble
        self._needed = asyncio.Event()
        self._begun = False
        """Whether there was a try to move what waits that has not ended well."""

    def look(self) -> None:
        """Compare the clocks; to be done every few seconds. What the store could not do is tried once more then."""
        steps = self._steps
        steps.look()
        if ahead := steps.said():
            journal.clock_set_ahead(ahead.total_seconds())
        if steps.back is not None or steps.unsaved:
            self._needed.set()

    async def keep(self, moved: Callable[[], None]) -> None:
        """Do what is to be done; `moved` hears that what waits is due at other times."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            try:
                await self._save()
                await self._set_back(moved)
            except Unavailable as error:
                self._trouble.failed(str(error))

    async def _save(self) -> None:
        steps = self._steps
        if not steps.unsaved:
            return
        steps.unsaved = False
        if self._store.shared is None:  # others would take them for steps of their own clocks
            try:
                await self._store.save_states(KNOWN, {KNOWN: steps.saved()})
            except Unavailable:
                steps.unsaved = True
                raise

    async def _set_back(self, moved: Callable[[], None]) -> None:
        if (by := self._steps.back) is not None:
            begun, self._begun = self._begun, True
            # What a try that failed has moved may not be moved by all of it once more, should it go back again.
            number = await self._store.set_back(_NONE if begun else by)
            self._begun = False
            self._steps.seen_to(by)
            journal.clock_set_back(by.total_seconds(), number)
            moved()
