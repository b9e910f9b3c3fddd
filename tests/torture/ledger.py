"""The oracle of every crash: what senders were told was taken in, and what came out at the other end.

An event is written down here only after its 200 was read. Whatever happens to relay, each of these must be in the
store, and each must arrive; what arrives twice must bear the same `webhook-id`, and have been under way at a crash: its
two arrivals lie on either side of one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.harness import Received, Sink

CONCURRENCY = 8
SENDERS = 8


def config(url: str) -> str:
    """One source that numbers its events, one route that takes them all."""
    return (
        "sources: {any: {type: generic, verify: none, map: {entry_id: body.id}}}\n"
        f"routes: [{{name: r, to: {{url: '{url}'}}, concurrency: {CONCURRENCY}}}]\n"
    )


@dataclass
class Ledger:
    """What was acknowledged so far."""

    acknowledged: set[int] = field(default_factory=set)
    refused: Counter[int] = field(default_factory=Counter)
    crashes: list[int] = field(default_factory=list)  # for each, how many requests the sink had received by then
    body: bytes = b'{"id":%d}'
    dark: bool = False
    in_the_dark: list[tuple[int, int]] = field(default_factory=list)
    """From which to which request those came that were sent when the power had gone: nobody sends any then."""
    """The power is gone: no answer leaves a machine any more, so none that is still read counts."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def _send(self, session: aiohttp.ClientSession, url: str) -> None:
        while True:
            number = next(self._numbers)
            try:
                async with session.post(f"{url}/in/any", data=self.body % number) as response:
                    await response.read()
            except (aiohttp.ClientError, TimeoutError):
                return
            if response.status == 200:
                if not self.dark:
                    self.acknowledged.add(number)
            else:
                self.refused[response.status] += 1
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def senders(self, url: str, count: int = SENDERS, sink: Sink | None = None) -> AsyncIterator[None]:
        """Send as fast as relay answers. Leaving the context waits until relay is gone: crash it in there. A sink that
        is given has then received all that was sent to it before, and the crash is noted."""
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._send(session, url))
            yield
        if sink is not None:
            await sink.left()
            self.crashes.append(len(sink.received))

    def lost(self, store: Path) -> set[int]:
        """What was acknowledged and is not in the store."""
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
            kept = {int(row[0]) for row in connection.execute("SELECT entry_id FROM event")}
        return self.acknowledged - kept

    async def arrived(self, sink: Sink) -> Arrived:
        """Wait until all that was acknowledged has arrived, for as long as something does, and say how often."""
        missing, looked, received = set(self.acknowledged), 0, sink.received
        while True:
            new, looked = received[looked:], len(received)  # there may be hundreds of thousands: each is looked at once
            missing.difference_update(map(number, new))
            if not missing:
                break
            await sink.wait_count(looked + 1)
        sent = [(request.id, number(request)) for request in received]
        return arrived(*without(sent, self.crashes, self.in_the_dark))


@dataclass(frozen=True, slots=True)
class Arrived:
    """How it came out."""

    repeats: int  # requests beyond the first of each event
    most: int  # of these that one crash explains
    unexplained: int  # of these with no crash between a request and the one before
    one_id_each: bool

    @property
    def kept(self) -> bool:
        """Whether nothing was sent again but what was in flight at a crash."""
        return self.one_id_each and not self.unexplained and self.most <= CONCURRENCY

    def __str__(self) -> str:
        said = f"{self.repeats:,} repeats, {self.most} at most of one crash ({CONCURRENCY} in flight)"
        return f"{said}, {self.unexplained:,} without one" + ("" if self.one_id_each else ", events with several ids")


def without(
    requests: Sequence[tuple[str, int]], crashes: Sequence[int], dark: Sequence[tuple[int, int]]
) -> tuple[list[tuple[str, int]], list[int]]:
    """The requests and the crashes but for what came in the dark, between two places each."""
    left_out = {place for first, last in dark for place in range(first, last)}
    kept = [request for place, request in enumerate(requests) if place not in left_out]
    gone = sorted(left_out)
    return kept, [crash - bisect_left(gone, crash) for crash in crashes]


def arrived(requests: Sequence[tuple[str, int]], crashes: Sequence[int]) -> Arrived:
    """What requests, in order and by `webhook-id` and number, say of crashes after so many of them: an event that comes
    again was under way at the first crash since it last came, or should not have come."""
    last, events = dict[str, int](), dict[str, int]()
    explained, unexplained = Counter[int](), 0
    for place, (id_, event) in enumerate(requests):
        events[id_] = event
        if (before := last.get(id_)) is not None:
            crash = bisect_right(crashes, before)
            if crash < len(crashes) and crashes[crash] <= place:
                explained[crash] += 1
            else:
                unexplained += 1
        last[id_] = place
    repeats = len(requests) - len(last)
    return Arrived(repeats, max(explained.values(), default=0), unexplained, len(events) == len(set(events.values())))


def number(request: Received) -> int:
    """Which event a request is about."""
    found: int = json.loads(request.body)["id"]
    return found
