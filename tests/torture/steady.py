"""A sender at a steady rate, that notes how long each answer took."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Steady:
    """A sender at a steady rate, and how long each answer took, in seconds."""

    url: str
    rate: float
    body: Callable[[int], bytes] = lambda number: b'{"id":%d}' % number
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    sent: int = 0
    ended: bool = False

    async def run(self) -> None:
        """Send until `ended`."""
        began = time.monotonic()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            while not self.ended:
                self.sent += 1
                group.create_task(self._send(session, self.sent))
                await asyncio.sleep(max(0.0, began + self.sent / self.rate - time.monotonic()))

    async def _send(self, session: aiohttp.ClientSession, number: int) -> None:
        began = time.monotonic()
        async with session.post(f"{self.url}/in/any", data=self.body(number)) as response:
            await response.read()
        self.seconds.append(time.monotonic() - began)
        self.statuses[response.status] += 1

    @property
    def p99(self) -> float:
        """The time, in seconds, that 99 of 100 answers did not take longer than."""
        return statistics.quantiles(self.seconds, n=100)[98]
