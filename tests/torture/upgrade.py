"""Stores of every released schema are brought up to date, and relay is killed at each step of that."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from relay.stores.sqlite import schema
from tests.test_released_schemas import SCHEMAS, written
from tests.torture.row import TOP, Figure, Place
from tests.torture.sweep import killed_at, sound

_WRITES = 4  # of the quick run, of each schema, besides all syncs
_LEAST = 10
_AT_ONCE = 4
_OPEN = """
import asyncio, sys
from pathlib import Path
from relay.clock import SystemClock
from relay.stores.sqlite import open_store
async def main():
    await (await open_store(Path(sys.argv[1]), clock=SystemClock())).close()
asyncio.run(main())
"""
_ROWS = (
    "SELECT id, source, received_at, headers, sha256, size FROM event ORDER BY id",
    "SELECT event_id, content FROM body ORDER BY event_id",
    "SELECT id, event_id, route, state, due, attempts, code, error_code FROM delivery ORDER BY id",
    "SELECT * FROM attempt ORDER BY delivery_id, n",
    "SELECT id, source FROM rejection ORDER BY id",
)


def _rows(store: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        return [connection.execute(query).fetchall() for query in _ROWS]


def _version(store: Path) -> int:
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found


def _points(folder: Path, number: int, count: int) -> list[tuple[str, int]]:
    """Each sync, which is each step's end; and some of the writes between them, or all."""
    folder.mkdir()
    trace = folder / "trace"
    prefix = ["strace", "-f", "-o", str(trace), "-e", "trace=fdatasync,pwrite64"]
    assert _opened(written(folder, number), prefix) == 0
    made = Counter(re.findall(r"(fdatasync|pwrite64)\(", trace.read_text()))
    writes = range(2, made["pwrite64"] + 1, max(1, made["pwrite64"] // (_WRITES * count)))
    return [*(("fdatasync", at) for at in range(1, made["fdatasync"] + 1)), *(("pwrite64", at) for at in writes)]


def _opened(store: Path, prefix: list[str]) -> int:
    command = [*prefix, sys.executable, "-c", _OPEN, str(store)]
    return subprocess.run(command, cwd=TOP, capture_output=True, check=False).returncode


def _killed(store: Path, number: int, call: str, at: int) -> tuple[bool, str]:
    """Kill one that brings a store up to date, and let another one go on: whether it came to that, what is wrong."""
    before = _rows(store)
    reached = _opened(store, killed_at(call, at)) != 0
    kept = store.with_name(f"{store.name}.schema-{number}")
    if _version(store) != number and not kept.exists():
        return reached, "it was changed before it was copied"
    if _opened(store, []) != 0:
        return reached, "it was not opened again"
    if _rows(store) != before or not sound(store) or _version(store) != schema.VERSION:
        return reached, "rows are missing or others, or it is not sound"
    if _rows(kept) != before or not sound(kept) or _version(kept) != number:
        return reached, "the copy is not what it was before"
    return reached, ""


async def stepped(place: Place) -> Figure:
    """Kill it everywhere."""
    points, wrong, at_once = 0, list[str](), asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, call: str, at: int) -> None:
        nonlocal points
        folder = place.folder / f"{number}-{call}-{at}"
        folder.mkdir()
        async with at_once:
            reached, found = await asyncio.to_thread(_killed, written(folder, number), number, call, at)
        points += reached
        if found:
            wrong.append(f"schema {number}, {call} {at}: {found}")

    killed_at("pwrite64", 1)  # says what is missing for that
    async with asyncio.TaskGroup() as group:
        for number in SCHEMAS[:-1]:
            for call, at in await asyncio.to_thread(_points, place.folder / f"{number}", number, place.count):
                group.create_task(one(number, call, at))
    schemas = ", ".join(map(str, SCHEMAS[:-1]))
    return Figure(
        f"from schema {schemas} to {schema.VERSION}, killed at {points} points: all rows and bodies as before, the copy"
        f" of what it was whole; wrong: {'; '.join(wrong) or 'nothing'}",
        not wrong and points >= _LEAST,
    )
