"""Events at a steady rate, and how two such loads compare."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import monotonic

import aiohttp

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Posted:
    """One event: when it was due to be sent and when its 200 was read, by the monotonic clock."""

    number: int
    at: float
    answered: float


async def steadily(
    url: str, rate: float, count: int, body: Callable[[int], bytes], first: int = 0
) -> dict[int, Posted]:
    """Send `count` events at a rate, each when it is its time whatever became of those before. Raises where one is not
    answered with 200."""
    posted: dict[int, Posted] = {}
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(number: int, at: float) -> None:
            async with session.post(f"{url}/in/any", data=body(number)) as response:
                await response.read()
                assert response.status == 200, response.status
            posted[number] = Posted(number, at, monotonic())

        began = monotonic()
        async with asyncio.TaskGroup() as group:
            for place in range(count):
                at = began + place / rate
                if (wait := at - monotonic()) > 0:
                    await asyncio.sleep(wait)
                group.create_task(post(first + place, at))
    return posted


def p99(seconds: Sequence[float]) -> float:
    """Of a hundred, the second worst."""
    return quantiles(seconds, n=100, method="inclusive")[98]


@dataclass(slots=True)
class Compared:
    """Figures of alternating rounds, without a fault and with it."""

    without: list[float] = field(default_factory=list)
    amid: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return median(self.amid) / median(self.without)

    @property
    def added(self) -> float:
        """How much more the median is, in seconds."""
        return median(self.amid) - median(self.without)

    @property
    def text(self) -> str:
        return (
            f"{median(self.amid) * 1000:.1f} ms to {median(self.without) * 1000:.1f} ms,"
            f" {self.ratio:.2f} times (medians of {len(self.amid)} rounds each)"
        )


async def compared(one: Callable[[bool], Awaitable[float]], most: float, rounds: int = ROUNDS) -> Compared:
    """Rounds without the fault and with it, by turns; the ratio is to stay below `most`."""
    return await by_turns(one, lambda found: found.ratio < most, rounds)


async def by_turns(
    one: Callable[[bool], Awaitable[float]], holds: Callable[[Compared], bool], rounds: int = ROUNDS
) -> Compared:
    """So many rounds of each kind. A machine that has other work makes some of them worthless: where they do not hold,
    as many again, once, and all of them count. To stop as soon as they hold would be to wait for a lucky moment."""
    found = Compared()
    for _ in range(2):
        for place in range(rounds):
            for there in (True, False) if place % 2 else (False, True):
                (found.amid if there else found.without).append(await one(there))
        if holds(found):
            break
    return found
