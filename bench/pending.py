"""A million deliveries that wait for dead destinations: what they cost at the start, in memory, and beside others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from statistics import median

from bench.place import Goal, Place, Table, in_turns
from bench.process import HOST, free_port, relay, rss_mib
from bench.senders import Posted, post
from bench.sink import nginx
from bench.throughput import carried, route, rows_of
from tests.harness import write_config
from tests.torture import backlog

WAITING = 1_000_000
DRAINED = 50_000  # deliveries over which the rate is measured
_SOURCES = (
    "sources: {blog: {type: strapi, token: my-very-secured-token},"
    " any: {type: generic, verify: none, map: {model: body.to}}}\n"
)


async def pending(place: Place) -> Table:
    """Healthy routes beside a backlog, and without it; then the destinations come back."""
    waiting = place.amount(WAITING)
    full, empty = place.sub("full"), place.sub("empty")
    await asyncio.to_thread(backlog.fill, full / "relay.db", waiting)
    dead = [f"http://{HOST}:{free_port()}/" for _ in range(backlog.ROUTES)]

    def config(urls: list[str], live: str) -> str:
        routes = "".join(route(f"d{n}", url, f"{{model: d{n}}}") for n, url in enumerate(urls))
        return f"{_SOURCES}routes:\n{routes}{route('live', live, '{model: article}')}"

    async with contextlib.AsyncExitStack() as stack:
        sink = await stack.enter_async_context(nginx(place.folder))
        without, without_pid = await stack.enter_async_context(relay(empty, config(dead, sink.url)))
        began = time.monotonic()
        amid, amid_pid = await stack.enter_async_context(relay(full, config(dead, sink.url)))
        ready = time.monotonic() - began

        async def posting(url: str, seconds: float) -> Posted:
            return await post(url, seconds, place.folder)

        found = await in_turns(
            place.rounds,
            {
                "empty queue": partial(
                    carried, partial(posting, f"{without.public}/in/blog"), without_pid, sink, place.seconds
                ),
                f"{waiting:,} waiting": partial(
                    carried, partial(posting, f"{amid.public}/in/blog"), amid_pid, sink, place.seconds
                ),
            },
        )
        most = rss_mib(amid_pid, "VmHWM")
        before = sink.received()
        write_config(full, config([sink.url] * backlog.ROUTES, sink.url))
        amid.hup()
        first, began = await sink.wait_for(before + 1)
        drained, ended = await sink.wait_for(first + min(DRAINED, waiting * 9 // 10))
        rate = (drained - first) / (ended - began)
    table = Table("A backlog")
    table.rows = rows_of(found)
    table.rows.append({"what": f"worked off, of {waiting:,}", "events/s": rate})
    quick, slow = (median(each.per_s for each in rounds) for rounds in found.values())
    table.notes.append(f"ready {ready:.2f} s after the start; {most:.0f} MiB at the highest")
    table.goals = [
        Goal(f"ready with {waiting:,} waiting, in s", ready, 2, at_least=False),
        Goal("memory at its highest, in MiB", most, 100, at_least=False),
        Goal("throughput of a healthy route / with an empty queue", slow / quick, 0.9),
        Goal("rate at which the backlog is worked off / end to end", rate / quick, 0.8),
    ]
    return table
