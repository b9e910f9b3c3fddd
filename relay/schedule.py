"""When each route is to be looked at next."""

from __future__ import annotations

import asyncio
import heapq
from datetime import datetime

from relay.clock import Clock

_POLL = 5.0  # seconds; also how late a jump of the wall clock is noticed


class Schedule:
    """One moment for each route, and a wait for whichever comes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: list[tuple[datetime, str]] = []
        self._next: dict[str, datetime] = {}  # by route: the one moment it is to be looked at next
        self._woken = asyncio.Event()

    def expect(self, due: datetime, route: str) -> None:
        """Look at a route again when something of it becomes due."""
        known = self._next.get(route)
        if known is not None and known <= due:
            return  # it is looked at before that, and then told what comes next
        self._next[route] = due
        heapq.heappush(self._due, (due, route))
        if len(self._due) > 2 * len(self._next):  # or all would stay that an earlier one replaced
            self._due = [(moment, name) for name, moment in self._next.items()]
            heapq.heapify(self._due)
        if self._due[0] == (due, route):
            self._woken.set()

    def due(self, now: datetime) -> set[str]:
        """Routes whose moment has come."""
        due: set[str] = set()
        while self._due and self._due[0][0] <= now:
            moment, name = heapq.heappop(self._due)
            if self._next.get(name) == moment:
                del self._next[name]
                due.add(name)
        return due

    def clear(self) -> None:
        """Expect nothing any more."""
        self._due.clear()
        self._next.clear()

    def begin(self) -> datetime:
        """What happens from here on ends the next wait. Returns the time."""
        self._woken.clear()
        return self._clock.now()

    async def wait(self, now: datetime) -> None:
        """Until the next moment, or until woken; never for long."""
        wait = (self._due[0][0] - now).total_seconds() if self._due else _POLL
        try:
            async with asyncio.timeout(min(max(wait, 0.001), _POLL)):
                await self._woken.wait()
        except TimeoutError:
            pass
