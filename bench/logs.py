"""What it costs to look, in a store with millions of deliveries: each filter of /logs with common, rare and absent
values, then the dashboard's pages, over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from statistics import median, quantiles

import aiohttp

from bench.full import Size, fill
from bench.place import Place, Row, Table
from bench.process import relay

DELIVERIES = 2_000_000
REPEAT = 20
_DAY_MS = 86_400_000

FILTERS = (
    ("no filter", ("", "limit=1000", "order=asc")),
    ("route", ("route=route-3", "route=route-19", "route=nobody", "route=route-1,route-2,route-3")),
    ("source", ("source=source-0", "source=source-9", "source=nobody")),
    ("type", ("type=strapi", "type=hygraph", "type=nothing")),
    ("model", ("model=model-0", "model=model-29", "model=nothing")),
    ("stage", ("stage=published", "stage=draft", "stage=review")),
    ("action", ("action=publish", "action=unpublish", "action=delete")),
    ("event", ("event=entry.publish", "event=entry.unpublish", "event=nothing")),
    ("entry_id", ("entry_id=1", "entry_id=77777", "entry_id=nothing")),
    ("event_id", ("event_id={event}", "event_id=evt_01M85CA5GE9CERZWDHANEQSGCC")),
    ("status", ("status=failed", "status=delivered", "status=pending", "status=held", "status=merged,cancelled")),
    ("status=unmatched", ("status=unmatched", "status=unmatched&model=model-29", "status=unmatched&entry_id=77777")),
    ("status=rejected", ("status=rejected",)),
    ("code", ("code=500", "code=5xx", "code=200", "code=202", "code=>=400", "code=418")),
    ("since", ("since=1h", "since=20d")),
    ("until", ("until=20d", "until=40d")),
    ("since and until", ("since=10d&until=9d", "since=29d&until=28d")),
    ("q", ("q={event}", "q=123", "q=7", "q=entry.un", "q=timeout", "q=refused", "q=nobody")),
    (
        "several",
        ("route=route-3&status=failed", "model=model-29&code=5xx", "source=source-9&action=unpublish&since=5d"),
    ),
    ("limit=1000", ("limit=1000&route=route-1", "limit=1000&type=strapi", "limit=1000&status=failed")),
)
PAGES = ("/", "/ui/logs", "/ui/logs?status=failed", "/ui/entries?entry_id=77777", "/ui/routes/route-3", "/ui/windows")


async def logs(place: Place) -> Table:
    """Fill, look."""
    size = Size(place.amount(DELIVERIES), waiting=0)
    await asyncio.to_thread(fill, place.folder / "relay.db", size, time.time_ns() // 1_000_000, 29 * _DAY_MS)
    sources = "".join(f"  source-{n}: {{type: generic, verify: none}}\n" for n in range(size.sources))
    routes = "".join(
        f"  - {{name: route-{n}, sources: [source-{n % size.sources}], to: {{url: 'http://127.0.0.1:9/'}}}}\n"
        for n in range(size.routes)
    )
    table = Table(f"Looking, among {size.deliveries:,} deliveries")
    async with (
        relay(place.folder, f"sources:\n{sources}routes:\n{routes}") as (made, _),
        aiohttp.ClientSession(made.admin) as session,
    ):
        event = json.loads(await _get(session, "/logs?limit=1"))["items"][0]["event_id"]
        for name, queries in FILTERS:
            took: dict[str, list[float]] = {}
            for query in queries:
                took[query] = await _timed(session, "/logs?" + query.format(event=event))
            slowest = max(took, key=lambda query: median(took[query]))
            table.rows.append(_row(f"/logs by {name}", [one for each in took.values() for one in each], slowest))
        for page in PAGES:
            table.rows.append(_row(page, await _timed(session, page), ""))
    return table


async def _get(session: aiohttp.ClientSession, path: str) -> bytes:
    accept = "text/html" if "/ui" in path or path == "/" else "*/*"
    async with session.get(path, headers={"Accept": accept}) as got:
        body = await got.read()
        if got.status != 200:
            raise RuntimeError(f"{path}: {got.status} {body[:200]!r}")
        return body


async def _timed(session: aiohttp.ClientSession, path: str) -> list[float]:
    """Milliseconds, each."""
    took = []
    for _ in range(REPEAT):
        began = time.perf_counter()
        await _get(session, path)
        took.append((time.perf_counter() - began) * 1000)
    return took


def _row(name: str, took: Sequence[float], slowest: str) -> Row:
    p95 = quantiles(took, n=100, method="inclusive")[94]
    return {"what": name, "p50 ms": median(took), "p95 ms": p95, "max ms": max(took), "slowest of its queries": slowest}
