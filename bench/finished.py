"""Five million finished deliveries in the file: what they cost the events that come, and what forgetting them costs."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench.clocked import clocked
from bench.full import Size, fill
from bench.latency import paced
from bench.place import Goal, Place, Table, in_turns
from bench.process import relay, rss_mib
from bench.senders import Posted, post
from bench.sink import nginx
from bench.throughput import SOURCES, carried, route, rows_of
from tests.torture.load import p99

FINISHED = 5_000_000
RATE = 200.0  # events a second while others are forgotten
_DAY_MS = 86_400_000
_KEPT, _LESS = "30d", "348h"
_LOOKED = 60.0  # seconds before it, while it goes on, and after it
_BEGUN = 120.0  # seconds within which it begins: relay looks once a minute


async def finished(place: Place) -> Table:
    """As fast as they come, with a full file and an empty one; then half of the full one is forgotten."""
    count = place.amount(FINISHED)
    full, empty = place.sub("full"), place.sub("empty")
    size = Size(count, waiting=0)
    await asyncio.to_thread(fill, full / "relay.db", size, time.time_ns() // 1_000_000, 29 * _DAY_MS)
    mib = (full / "relay.db").stat().st_size >> 20
    async with contextlib.AsyncExitStack() as stack:
        counting = await stack.enter_async_context(nginx(place.folder))
        sink = await stack.enter_async_context(clocked(place.folder))

        def config(folder: object, live: str) -> str:
            kept = f"store: {{url: 'sqlite:{folder}/relay.db', retention: {_KEPT}, bodies: {_KEPT}}}\n"
            return kept + SOURCES + "routes:\n" + route("r", live)

        amid, amid_pid = await stack.enter_async_context(relay(full, config(full, counting.url)))
        without, without_pid = await stack.enter_async_context(relay(empty, config(empty, counting.url)))

        async def posting(url: str, seconds: float) -> Posted:
            return await post(url, seconds, place.folder)

        parts = {
            name: partial(carried, partial(posting, f"{made.public}/in/blog"), pid, counting, place.seconds)
            for name, made, pid in (
                ("empty file", without, without_pid),
                (f"{count:,} finished, {mib:,} MiB", amid, amid_pid),
            )
        }
        found = await in_turns(place.rounds, parts)

        async def following(retention: str) -> None:
            text = config(full, sink.url).replace(_KEPT, retention)
            path = amid.config
            path.write_text(path.read_text().partition("store:")[0] + text)
            generation = (await _health(amid.admin))["config"]["generation"]
            amid.hup()
            while (await _health(amid.admin))["config"]["generation"] == generation:
                await asyncio.sleep(0.05)

        url = f"{amid.public}/in/blog"
        paces = partial(paced, url, RATE, min(_LOOKED, place.seconds * _LOOKED / 5), place.folder, sink)
        await following(_KEPT)
        before = (await paces()).post_to_sink
        await following(_LESS)
        await _pruning(full / "relay.db")
        during = (await paces()).post_to_sink
        pruned, took = await _the_rest(amid.admin)
        after = (await paces()).post_to_sink
        rss = rss_mib(amid_pid, "VmHWM")
    table = Table("A full file")
    table.rows = rows_of(found)
    for name, each in (("before pruning", before), ("while pruning", during), ("after pruning", after)):
        table.rows.append({"what": name, "events/s": RATE, "p50 ms": median(each), "p99 ms": p99(each)})
    table.notes.append(
        f"the rest was pruned in {took:.0f} s, in which nothing came: {pruned}; {rss:.0f} MiB at the highest"
    )
    quick, slow = (median(each.per_s for each in rounds) for rounds in found.values())
    table.goals = [
        Goal(f"throughput with {count:,} finished / with an empty file", slow / quick, 0.9),
        Goal(
            "p99 from the post to the sink while pruning / without",
            p99(during) / p99(before + after),
            1.2,
            at_least=False,
        ),
    ]
    return table


async def _pruning(path: Path) -> None:
    """Wait until relay has begun by itself."""
    async with asyncio.timeout(_BEGUN):
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            while connection.execute("SELECT value FROM meta WHERE key = 'pruned_events'").fetchone() is None:
                await asyncio.sleep(0.1)


async def _the_rest(admin: str) -> tuple[str, float]:
    """What is left, while nothing comes."""
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.post(f"{admin}/store/prune") as answer:
        await answer.read()
    async with aiohttp.ClientSession() as session, session.get(f"{admin}/health") as answer:
        left = (await answer.json())["store"]["size_bytes"] >> 20
    return f"{left:,} MiB left", time.monotonic() - began


async def _health(admin: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{admin}/health") as answer:
        return await answer.json()
