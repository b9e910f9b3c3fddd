"""Memory, and how long it takes to start."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.place import Goal, Place, Row, Table
from bench.process import ROOT, relay, rss_mib
from bench.senders import post
from bench.sink import nginx
from bench.throughput import SOURCES, route

EVENTS = 1_000_000
_IDLE = 3.0  # seconds until what a start leaves behind is done
_AT_ONCE = 10.0  # seconds of each load
_PARTS = 10
_WARM = 75.0  # seconds of load until all has been met once that is: each minute relay looks through its store
_STEADY = 1.05  # what memory may be in the end of what it was then: noise of the allocator


async def footprint(place: Place) -> Table:
    """At rest, in the second minute of a load, and very many events after that."""
    ready, version = [], []
    config = SOURCES + "routes:\n"
    table = Table("Footprint")
    for number in range(place.rounds):
        began = time.monotonic()
        async with relay(place.sub(f"start-{number}"), config + route("r", "http://127.0.0.1:9/")):
            ready.append(time.monotonic() - began)
        began = time.monotonic()
        await asyncio.to_thread(subprocess.run, [_relay(), "version"], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        version.append(time.monotonic() - began)
    wanted = place.amount(EVENTS)
    async with nginx(place.folder) as sink, relay(place.sub("relay"), config + route("r", sink.url)) as (made, pid):
        await asyncio.sleep(_IDLE)
        idle = rss_mib(pid)
        grown: list[tuple[int, float]] = []
        count = 0
        warm: tuple[int, float] | None = None
        began = time.monotonic()
        while warm is None or count < warm[0] + wanted:
            count += (await post(f"{made.public}/in/blog", min(_AT_ONCE, place.seconds * 2), place.folder)).count
            await sink.wait_for(count)
            now = count, rss_mib(pid)
            if warm is None and time.monotonic() - began >= _WARM * min(1.0, place.scale):
                warm = now
            if now == warm or not grown or count >= grown[-1][0] + wanted / _PARTS:
                grown.append(now)
        if grown[-1] != now:
            grown.append(now)
        highest = rss_mib(pid, "VmHWM")
    after: list[Row] = [{"what": f"RSS after {events:,} events, MiB", "figure": rss} for events, rss in grown]
    table.rows = [
        {"what": "ready after the start, s", "figure": median(ready)},
        {"what": "`relay version`, s", "figure": median(version)},
        {"what": "RSS idle, MiB", "figure": idle},
        *after,
        {"what": "RSS at its highest, MiB", "figure": highest},
    ]
    table.goals = [
        Goal("ready after the start, in s", median(ready), 0.6, at_least=False),
        Goal("`relay version`, in s", median(version), 0.15, at_least=False),
        Goal("RSS idle, in MiB", idle, 60, at_least=False),
        Goal(
            f"RSS after {grown[-1][0]:,} events / after {warm[0]:,}",
            grown[-1][1] / warm[1],
            _STEADY,
            at_least=False,
        ),
    ]
    return table


def _relay() -> str:
    """The command as it is installed beside this Python."""
    return str(Path(sys.executable).parent / "relay")
