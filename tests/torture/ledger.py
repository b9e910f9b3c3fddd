"""The oracle of every crash: what senders were told was taken in, and what came out at the other end.

An event is written down here only after its 200 was read. Whatever happens to relay, each of these must be in the
store, and each must arrive; what arrives twice must bear the same `webhook-id`, and have been under way at a crash.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
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
    crashes: int = 0
    body: bytes = b'{"id":%d}'
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
                self.acknowledged.add(number)
            else:
                self.refused[response.status] += 1
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def senders(self, url: str, count: int = SENDERS) -> AsyncIterator[None]:
        """Send as fast as relay answers. Leaving the context waits until relay is gone: crash it in there."""
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._send(session, url))
            yield
        self.crashes += 1

    def lost(self, store: Path) -> set[int]:
        """What was acknowledged and is not in the store."""
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
            kept = {int(row[0]) for row in connection.execute("SELECT entry_id FROM event")}
        return self.acknowledged - kept

    async def arrived(self, sink: Sink) -> Arrived:
        """Wait until all that was acknowledged has arrived, and say how often."""
        found, looked = set[int](), 0

        def all_are_there(seen: list[Received]) -> bool:
            nonlocal looked
            found.update(map(number, seen[looked:]))  # of a thousand crashes there are hundreds of thousands
            looked = len(seen)
            return self.acknowledged <= found

        received = await sink.wait_for(all_are_there)
        by_id = Counter(request.id for request in received)
        entries = {request.id: number(request) for request in received}
        return Arrived(sum(by_id.values()) - len(by_id), len(entries) == len(set(entries.values())))


@dataclass(frozen=True, slots=True)
class Arrived:
    """How it came out: requests beyond the first of each event, and whether each event had one id throughout."""

    repeats: int
    one_id_each: bool


def number(request: Received) -> int:
    """Which event a request is about."""
    found: int = json.loads(request.body)["id"]
    return found
