"""Five million finished deliveries in the file: what they cost the events that come, and what forgetting them costs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from statistics import median
from typing import Any

import aiohttp

from bench.clocked import Arrivals, clocked
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
_QUIET = 15.0  # seconds before and after


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
        quiet = min(_QUIET, place.seconds * 3)
        await following(_KEPT)
        before = (await paced(url, RATE, quiet, place.folder, sink)).post_to_sink
        await following(_LESS)
        during, pruned, took = await _while_pruning(amid.admin, url, place, sink)
        after = (await paced(url, RATE, quiet, place.folder, sink)).post_to_sink
        rss = rss_mib(amid_pid, "VmHWM")
    table = Table("A full file")
    table.rows = rows_of(found)
    for name, each in (("before pruning", before), ("while pruning", during), ("after pruning", after)):
        table.rows.append({"what": name, "events/s": RATE, "p50 ms": median(each), "p99 ms": p99(each)})
    table.notes.append(f"{pruned} pruned in {took:.0f} s; {rss:.0f} MiB at the highest")
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


async def _while_pruning(admin: str, url: str, place: Place, sink: Arrivals) -> tuple[list[float], str, float]:
    """Rounds at the pace, for as long as it takes."""
    times: list[float] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3600)) as session:

        async def prune() -> tuple[str, float]:
            began = time.monotonic()
            async with session.post(f"{admin}/store/prune") as answer:
                done = await answer.json()
            return ", ".join(f"{number:,} {what}" for what, number in done.items()), time.monotonic() - began

        async with asyncio.TaskGroup() as group:
            pruning = group.create_task(prune())
            while not pruning.done():
                times += (await paced(url, RATE, min(2.0, place.seconds), place.folder, sink)).post_to_sink
        pruned, took = pruning.result()
    return times, pruned, took


async def _health(admin: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{admin}/health") as answer:
        return await answer.json()
