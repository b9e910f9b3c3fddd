"""Relay is killed at one system call after another, while it does each thing that writes."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.harness import LISTEN, RelayProcess, sink, write_config
from tests.test_released_schemas import written
from tests.torture.crashes import end
from tests.torture.disks import healthy_when, traced
from tests.torture.ledger import Ledger, config
from tests.torture.row import Figure, Place

CALLS = ("pwrite64", "fdatasync")
POINTS = 4  # of the quick run, of each call, for each thing that writes
_PATIENCE = 30.0


def killed_at(call: str, number: int) -> list[str]:
    """Start a command that is killed at its `number`th call."""
    return traced(f"trace={call}", f"inject={call}:signal=KILL:when={number}", "signal=none")


def sound(store: Path) -> bool:
    """Whether SQLite finds nothing wrong with a file."""
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        found: list[tuple[str]] = connection.execute("PRAGMA integrity_check").fetchall()
        return found == [("ok",)]


def _points(place: Place, first: int, step: int) -> Iterator[tuple[str, int, Path]]:
    for call in CALLS:
        for point in range(POINTS * place.count):
            each = step if place.count == 1 and call == "pwrite64" else 1  # there are far fewer syncs
            number = first + point * each
            folder = place.folder / f"{call}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            yield call, number, folder


async def _died(relay: RelayProcess) -> bool:
    """Wait for it to be killed; where the point was never reached, end it."""
    assert relay.process is not None
    try:
        await asyncio.to_thread(relay.process.wait, _PATIENCE)
        return True
    except subprocess.TimeoutExpired:
        relay.kill()
        return False


async def accepting(place: Place) -> tuple[int, int, list[str]]:
    """While events are taken in and results are written. Gives points, those reached, and what was wrong."""
    points, reached, wrong = 0, 0, []
    made = place.folder / "made"
    made.mkdir()
    new = RelayProcess(write_config(made, config("http://127.0.0.1:9")))
    await new.start()
    assert await new.stop() == 0, "it did not end by itself: its log still holds what the copies lack"
    for call, number, folder in _points(place, 3, 7):
        ledger = Ledger()
        shutil.copy(made / "relay.db", folder / "relay.db")
        async with sink() as destination:
            first = RelayProcess(write_config(folder, config(destination.url)))
            relay = RelayProcess(first.config, prefix=killed_at(call, number))
            try:
                try:
                    await relay.start()
                except AssertionError:
                    reached += 1  # killed while it started
                else:
                    async with ledger.senders(relay.public, 4, destination):
                        reached += await _died(relay)
                points += 1
                await first.start()
                store = folder / "relay.db"
                if ledger.lost(store) or not sound(store):
                    wrong.append(f"accept, {call} {number}")
                else:
                    arrived = await ledger.arrived(destination)
                    if not arrived.kept:
                        wrong.append(f"deliver, {call} {number}")
            finally:
                end(relay)
                end(first)
    return points, reached, wrong


async def migrating(place: Place) -> tuple[int, int, list[str]]:
    """While a store of the first schema is brought up to date."""
    points, reached, wrong = 0, 0, []
    for call, number, folder in _points(place, 1, 5):
        store = written(folder, 1)
        before = _rows(store)
        text = f"{LISTEN}store: {{url: 'sqlite:{store}', retention: 3650d, bodies: 3650d}}\n"
        relay = RelayProcess(write_config(folder, text), prefix=killed_at(call, number))
        again = RelayProcess(relay.config)
        try:
            try:
                await relay.start()
                relay.kill()
            except AssertionError:
                reached += 1
            points += 1
            await again.start()
            await again.stop()
            if _rows(store) != before or not sound(store):
                wrong.append(f"migrate, {call} {number}")
        finally:
            end(relay)
            end(again)
    return points, reached, wrong


def _rows(store: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(
            "SELECT d.id, d.route, d.attempts, e.sha256, b.content FROM delivery d JOIN event e ON e.id = d.event_id"
            " JOIN body b ON b.event_id = e.id ORDER BY d.id"
        ).fetchall()


async def copying(place: Place) -> tuple[int, int, list[str]]:
    """While `relay db backup` and `relay db prune` run: the copy is whole or absent, the store as sound as before."""
    points, reached, wrong = 0, 0, []
    origin = place.folder / "origin"
    origin.mkdir()
    ledger = Ledger()
    async with sink() as destination:
        relay = RelayProcess(write_config(origin, config(destination.url)))
        await relay.start()
        async with ledger.senders(relay.public, 4):
            await asyncio.sleep(0.5)
            relay.kill()
        await relay.start()
        await ledger.arrived(destination)
        await healthy_when(relay, lambda said: said["status"] == "ok")
        assert await relay.stop() == 0, "it did not end by itself: its log still holds what the copies lack"
    for verb in ("backup", "prune"):
        for call, number, folder in _points(place, 1, 9):
            shutil.copy(origin / "relay.db", folder / "relay.db")
            text = (origin / "config.yaml").read_text().replace(str(origin), str(folder))
            if verb == "prune":
                text = text.replace("store: {", "store: {retention: 1s, bodies: 1s, ")
            (folder / "config.yaml").write_text(text)
            copy = folder / "copy.db"
            done = await asyncio.to_thread(
                subprocess.run,
                [
                    *killed_at(call, number),
                    *(sys.executable, "-m", "relay", "db", verb, "--config", str(folder / "config.yaml")),
                    *([str(copy)] if verb == "backup" else []),
                ],
                capture_output=True,
                check=False,
            )
            points += 1
            reached += done.returncode in (-9, 137)
            if (verb == "backup" and ledger.lost(folder / "relay.db")) or not sound(folder / "relay.db"):
                wrong.append(f"{verb}, {call} {number}: the store")
            if copy.exists() and (not sound(copy) or ledger.lost(copy)):
                wrong.append(f"{verb}, {call} {number}: the copy")
    return points, reached, wrong


async def crash_points(place: Place) -> Figure:
    """All of these."""
    said, wrong = [], []
    for what, trial in (("accept", accepting), ("migrate", migrating), ("backup and prune", copying)):
        folder = place.folder / what.split()[0]
        folder.mkdir()
        points, reached, found = await trial(Place(folder, place.count))
        said.append(f"{what} {reached} of {points}")
        wrong += found
        if not reached:
            wrong.append(f"{what}: no point was reached")
    return Figure(f"killed at {', '.join(said)} points; wrong: {'; '.join(wrong) or 'nothing'}", not wrong)
