"""Somebody reads all the time: the log of the store must not grow without end, for want of a checkpoint."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import aiohttp

from relay.stores._sql.reader import QUERY_SECONDS
from tests.harness import RelayProcess, sink, write_config
from tests.torture.backlog import resident
from tests.torture.crashes import end
from tests.torture.ledger import Ledger, config
from tests.torture.row import Figure, Place

CAP = 64 << 20  # `journal_size_limit`
CHECKPOINT = 1000 * 4096  # `wal_autocheckpoint`
_HELD_UP = 1.0  # seconds for which one may be held up; without any the log would grow for all the time of the trial
_SECONDS, _LONGEST = 5.0, 60.0
_READERS = 1  # of each path
# The dear ones: searches of texts walk, and pages hold a thousand.
_PATHS = ("/logs?q=nobody", "/logs?limit=1000&order=asc", "/logs?status=failed,held&entry_id=1", "/")
_MIB = 1 << 20


async def _read(relay: RelayProcess, path: str, done: asyncio.Event) -> int:
    """Ask for a page again and again. Gives how often it was answered."""
    count = 0
    async with aiohttp.ClientSession() as session:
        while not done.is_set():
            async with session.get(relay.admin + path) as response:
                await response.read()
                assert response.status == 200, await response.text()
                count += 1
    return count


async def _highest(log: Path, seconds: float) -> int:
    """The largest size of a file over some time."""
    most, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, log.stat().st_size)
        await asyncio.sleep(0.01)
    return most


async def read(place: Place) -> Figure:
    """Relay's own readers, and then one of another program, that stays in its transaction."""
    seconds = min(_SECONDS * place.count, _LONGEST)
    store = place.folder / "relay.db"
    log = store.with_name("relay.db-wal")
    ledger, done = Ledger(body=b'{"id":%d,"text":"' + b"x" * 400 + b'"}'), asyncio.Event()
    async with sink() as destination:
        relay = RelayProcess(write_config(place.folder, config(destination.url)))
        try:
            await relay.start()
            async with ledger.senders(relay.public):
                async with asyncio.TaskGroup() as group:
                    reading = [group.create_task(_read(relay, path, done)) for path in _PATHS for _ in range(_READERS)]
                    before = len(ledger.acknowledged)
                    own = await _highest(log, seconds)
                    rate = (len(ledger.acknowledged) - before) / seconds
                    done.set()
                pages = sum(task.result() for task in reading)
                with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, isolation_level=None)) as stranger:
                    stranger.execute("BEGIN")
                    stranger.execute("SELECT count(*) FROM meta").fetchone()
                    began = log.stat().st_size
                    grown = await _highest(log, seconds)
                    stranger.execute("ROLLBACK")
                speed = (grown - began) / seconds
                async with asyncio.timeout(QUERY_SECONDS):
                    while log.stat().st_size > CAP:
                        await asyncio.sleep(0.05)
                after = await _highest(log, 1.0)
                memory = resident(relay)
                relay.kill()
            await relay.start()
            lost = ledger.lost(store)
        finally:
            end(relay)
    most = CHECKPOINT + speed * _HELD_UP
    return Figure(
        f"{rate:,.0f} events/s, {pages / seconds:,.0f} pages read a second for {seconds:g} s: the log was"
        f" {own / _MIB:.1f} MiB at most, of {most / _MIB:.0f} MiB allowed; with a transaction of another program open"
        f" {grown / _MIB:.1f} MiB, after its end {after / _MIB:.1f} MiB; {memory:.0f} MiB of memory; {len(lost)} lost",
        own <= most and after <= CAP and not lost,
    )
