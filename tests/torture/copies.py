"""Backups are made while events come in, and one is restored."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import aiohttp

from tests.harness import Received, RelayProcess, sink, write_config
from tests.torture.crashes import end
from tests.torture.disks import healthy_when
from tests.torture.ledger import Ledger, config
from tests.torture.row import TOP, Figure, Place
from tests.torture.sweep import sound

COPIES = 5  # of the quick run
_APART = 0.5  # seconds


async def _slowly(request: Received) -> int:
    await asyncio.sleep(0.02)  # so that much is still to be sent at any time
    return 200


def _entries(store: Path, states: str = "state IS NOT NULL") -> set[int]:
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        query = f"SELECT entry_id FROM delivery WHERE {states}"
        return {int(row[0]) for row in connection.execute(query)}


async def copied(place: Place) -> Figure:
    """`relay db backup` under load, again and again; relay goes on with the last copy."""
    ledger, took, wrong = Ledger(), list[float](), list[str]()
    live, restored = place.folder / "live", place.folder / "restored"
    live.mkdir()
    restored.mkdir()
    copy = live / "copy.db"
    async with sink(_slowly) as destination:
        relay = RelayProcess(write_config(live, config(destination.url)))
        try:
            await relay.start()
            async with ledger.senders(relay.public, 4):
                for made in range(COPIES * place.count):
                    await asyncio.sleep(_APART)
                    before = Ledger(set(ledger.acknowledged))
                    began = time.monotonic()
                    done = await asyncio.to_thread(_backup, relay.config, copy)
                    took.append(time.monotonic() - began)
                    if done.returncode:
                        wrong.append(f"copy {made}: {done.stderr.strip()}")
                    elif not sound(copy) or before.lost(copy):
                        wrong.append(f"copy {made}: {len(before.lost(copy))} lost, or not sound")
                relay.kill()
        finally:
            end(relay)
    said = f"{len(took)} copies under load, {median(took):.1f} s each, {len(ledger.acknowledged):,} acknowledged"
    if wrong:
        return Figure(f"{said}; wrong: {'; '.join(wrong)}", False)
    shutil.copy(copy, restored / "relay.db")
    waited = _entries(copy, "state = 'pending'")
    async with sink() as destination:
        again = RelayProcess(write_config(restored, config(destination.url)))
        try:
            await again.start()
            await healthy_when(again, lambda now: now["store"]["held"] == len(waited) and not now["store"]["pending"])
            early = len(destination.received)
            async with aiohttp.ClientSession() as session, session.post(f"{again.admin}/routes/resume") as response:
                assert response.status == 200, await response.text()
            await healthy_when(again, lambda now: not now["store"]["pending"] and not now["store"]["held"], 90)
            received = await destination.wait_for(lambda seen: len(seen) >= len(waited))
            ended = _entries(restored / "relay.db", "state = 'delivered'")
        finally:
            end(again)
    whole = ended == _entries(copy) and before.acknowledged <= ended
    return Figure(
        f"{said}: each sound and with all that was acknowledged before it began; restored, it held {len(waited)}"
        f" until it was told to go on, and then sent {len(received)}",
        bool(waited) and not early and whole and len(received) == len(waited),
    )


def _backup(path: Path, copy: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relay", "db", "backup", str(copy), "--force", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
