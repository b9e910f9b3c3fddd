"""What a running relay holds: memory, descriptors, threads; and, from inside, tasks and objects.

The latter two nobody outside can count. `environ` makes Python run a module of ours before all else in the daemon,
which writes them into a file when it is sent SIGUSR2; nothing of relay is changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.harness import PATIENCE, RelayProcess

TOP = Path(__file__).parent.parent.parent
_CUSTOMIZE = """\
import os, signal

def tell(signum, frame):
    import asyncio, gc, json
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:
        tasks = -1
    gc.collect()
    path = os.environ["RELAY_INSIGHT"]
    with open(path + ".new", "w") as file:
        json.dump({"tasks": tasks, "objects": len(gc.get_objects())}, file)
    os.replace(path + ".new", path)

signal.signal(signal.SIGUSR2, tell)
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """What it holds. `rss` in bytes."""

    rss: int
    files: int
    threads: int
    tasks: int
    objects: int


def environ(folder: Path) -> dict[str, str]:
    """What to start relay with, so that `look` sees inside."""
    inside = folder / "inside"
    inside.mkdir()
    (inside / "sitecustomize.py").write_text(_CUSTOMIZE)
    return {"PYTHONPATH": f"{inside}{os.pathsep}{TOP}", "RELAY_INSIGHT": str(folder / "insight.json")}


async def look(relay: RelayProcess, folder: Path) -> Holding:
    """What relay holds now."""
    assert relay.process is not None
    told = folder / "insight.json"
    told.unlink(missing_ok=True)
    relay.process.send_signal(signal.SIGUSR2)
    async with asyncio.timeout(PATIENCE):
        while not told.exists():
            await asyncio.sleep(0.01)
    inside = json.loads(told.read_text())
    place = Path(f"/proc/{relay.process.pid}")
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    return Holding(
        rss=int(status["VmRSS"].split()[0]) << 10,
        files=len(list((place / "fd").iterdir())),
        threads=int(status["Threads"]),
        tasks=inside["tasks"],
        objects=inside["objects"],
    )


async def settled(relay: RelayProcess, folder: Path) -> Holding:
    """What relay holds when what was under way has ended: connections that were just closed take a moment to be gone.
    What does not end by itself is still there in the end, and is told."""
    last = await look(relay, folder)
    async with asyncio.timeout(PATIENCE):
        while True:
            await asyncio.sleep(0.2)
            now = await look(relay, folder)
            if (now.tasks, now.files) == (last.tasks, last.files):
                return now
            last = now


def growth(before: Holding, after: Holding) -> str:
    """What changed between two looks, in words."""
    return (
        f"RSS {before.rss / 2**20:.1f} to {after.rss / 2**20:.1f} MiB, tasks {before.tasks} to {after.tasks},"
        f" descriptors {before.files} to {after.files}, threads {before.threads} to {after.threads},"
        f" objects {before.objects:,} to {after.objects:,}"
    )


def flat(before: Holding, after: Holding, under_way: int = 2) -> bool:
    """Whether nothing grew but by what is under way: so many requests and attempts, each a task or two, a connection
    at either end and some objects."""
    return (
        after.rss < before.rss + (4 << 20)
        and after.tasks <= before.tasks + under_way
        and after.files <= before.files + 2 * under_way
        and after.threads <= before.threads + 1
        and after.objects < before.objects * 1.02 + 500 + 50 * under_way
    )
