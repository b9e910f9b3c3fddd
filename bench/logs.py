"""What it costs to look, and to forget, in a store with millions of deliveries.

python -m bench.logs [--deliveries 2000000] [--repeat 20] [--directory DIR] [--skip-pruning]

Fills a store, starts relay on it and asks over HTTP: each filter of /logs with common, rare and absent values, then the
dashboard's pages. Then half of it is pruned while events come in at a steady rate: their latency with and without, in
one run, before, during and after.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp
from aiohttp import web

from bench.many import Size, fill

DAY_MS = 86_400_000
RATE = 200  # events a second while pruning
HOST = "127.0.0.1"

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


def config(folder: Path, size: Size, sink: str, retention: str) -> Path:
    """A config with the sources and routes of the store."""
    path = folder / "config.yaml"
    sources = "".join(
        f"  source-{n}: {{type: generic, verify: none,"
        " map: {model: body.model, action: body.action, entry_id: body.id}}\n"
        for n in range(size.sources)
    )
    routes = "".join(
        f"  - {{name: route-{n}, sources: [source-{n % size.sources}], to: {{url: '{sink}'}}}}\n"
        for n in range(size.routes)
    )
    path.write_text(
        f"server: {{listen: '{HOST}:0'}}\nadmin: {{listen: '{HOST}:0'}}\nlog: {{format: json}}\n"
        f"store: {{url: 'sqlite:{folder / 'relay.db'}', retention: {retention}, bodies: {retention}}}\n"
        f"sources:\n{sources}routes:\n{routes}"
    )
    return path


@contextlib.asynccontextmanager
async def a_sink() -> AsyncIterator[str]:
    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response()

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    yield f"http://{HOST}:{runner.addresses[0][1]}/"
    await runner.cleanup()


@contextlib.asynccontextmanager
async def a_relay(path: Path) -> AsyncIterator[tuple[str, str, int]]:
    """The public and the admin side of a relay process, and its pid."""
    log = path.with_name("relay.log")
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", "serve", "--config", str(path), stderr=out, stdout=out
        )
    try:
        while True:
            started = [line for line in log.read_bytes().splitlines() if b'"event":"started"' in line]
            if started:
                break
            if process.returncode is not None:
                raise SystemExit(log.read_text())
            await asyncio.sleep(0.05)
        said = json.loads(started[0])
        yield f"http://{said['listen']}", f"http://{said['admin']}", process.pid
    finally:
        process.terminate()
        await process.wait()


async def timed(ask: Callable[[], Awaitable[object]], repeat: int) -> list[float]:
    """Milliseconds, each."""
    took = []
    for _ in range(repeat):
        began = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - began) * 1000)
    return took


def line(name: str, took: Sequence[float], note: str = "") -> None:
    """A row of the table."""
    cuts = quantiles(took, n=100, method="inclusive")
    print(f"{name:<28} {cuts[49]:>9.1f} {cuts[94]:>9.1f} {max(took):>9.1f}  {note}", flush=True)


async def look(session: aiohttp.ClientSession, admin: str, repeat: int) -> None:
    """The table of filters, and that of pages."""

    async def get(path: str) -> bytes:
        async with session.get(
            admin + path, headers={"Accept": "text/html" if "/ui" in path or path == "/" else "*/*"}
        ) as got:
            body = await got.read()
            if got.status != 200:
                raise SystemExit(f"{path}: {got.status} {body[:200]!r}")
            return body

    event = json.loads(await get("/logs?limit=1"))["items"][0]["event_id"]
    print(f"\n{'/logs by':<28} {'p50 ms':>9} {'p95 ms':>9} {'max ms':>9}  slowest of its queries", flush=True)
    for name, queries in FILTERS:
        every: list[float] = []
        slowest = (0.0, "")
        for query in queries:
            path = "/logs?" + query.format(event=event)
            took = await timed(lambda path=path: get(path), repeat)  # type: ignore[misc]
            every += took
            slowest = max(slowest, (sorted(took)[repeat // 2], query))
        line(name, every, slowest[1])
    print(f"\n{'page':<28} {'p50 ms':>9} {'p95 ms':>9} {'max ms':>9}  bytes", flush=True)
    for page in PAGES:
        size = len(await get(page))
        line(page, await timed(lambda page=page: get(page), repeat), str(size))  # type: ignore[misc]


async def when(session: aiohttp.ClientSession, admin: str, condition: Callable[[Any], bool]) -> None:
    """Wait until `/health` says so."""
    while True:
        async with session.get(f"{admin}/health") as answer:
            if condition(await answer.json()):
                return
        await asyncio.sleep(0.05)


async def post_steadily(session: aiohttp.ClientSession, url: str, until: asyncio.Event, took: list[float]) -> None:
    """Events at `RATE`, whatever becomes of those before; how long each took, from when it should have gone out."""
    began = time.perf_counter()
    waiting: set[asyncio.Task[None]] = set()
    number = 0

    async def post(due: float, number: int) -> None:
        body = json.dumps({"model": "page", "action": "publish", "id": str(number)}).encode()
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
            await answer.read()
            if answer.status != 200:
                raise SystemExit(f"ingest answered {answer.status}")
        took.append((time.perf_counter() - due) * 1000)

    async with asyncio.TaskGroup() as group:
        while not until.is_set():
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = group.create_task(post(due, number))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            number += 1


async def prune(session: aiohttp.ClientSession, public: str, admin: str, pid: int, shorten: Callable[[], None]) -> None:
    """Ingest without, with and without pruning."""
    url = f"{public}/in/source-0"

    async def quiet(seconds: float) -> list[float]:
        done, took = asyncio.Event(), list[float]()
        async with asyncio.TaskGroup() as group:
            group.create_task(post_steadily(session, url, done, took))
            await asyncio.sleep(seconds)
            done.set()
        return took

    await quiet(3)
    print(f"\n{f'ingest at {RATE}/s':<28} {'p50 ms':>9} {'p95 ms':>9} {'max ms':>9}  p99 ms", flush=True)
    before = await quiet(15)
    line("before", before, f"{quantiles(before, n=100)[98]:.1f}")
    shorten()
    os.kill(pid, signal.SIGHUP)
    await when(session, admin, lambda health: health["config"]["generation"] == 2)
    done, during = asyncio.Event(), list[float]()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(post_steadily(session, url, done, during))
        async with session.post(f"{admin}/store/prune", timeout=aiohttp.ClientTimeout(total=3600)) as answer:
            pruned = await answer.json()
        done.set()
    seconds = time.perf_counter() - began
    line("while pruning", during, f"{quantiles(during, n=100)[98]:.1f}")
    after = await quiet(15)
    line("after", after, f"{quantiles(after, n=100)[98]:.1f}")
    without = before + after
    ratio = quantiles(during, n=100)[98] / quantiles(without, n=100)[98]
    print(f"\npruned {pruned} in {seconds:.0f} s; p99 with over p99 without: {ratio:.2f}")


async def main() -> None:
    """Fill, look, prune."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--directory", default=None)
    parser.add_argument("--skip-pruning", action="store_true")
    asked = parser.parse_args()
    size = Size(asked.deliveries)
    with tempfile.TemporaryDirectory(dir=asked.directory) as name:
        folder = Path(name)
        began = time.perf_counter()
        fill(folder / "relay.db", size, time.time_ns() // 1_000_000, 29 * DAY_MS)
        mib = (folder / "relay.db").stat().st_size >> 20
        print(f"{asked.deliveries} deliveries, {mib} MiB, filled in {time.perf_counter() - began:.0f} s", flush=True)
        async with a_sink() as sink, aiohttp.ClientSession() as session:
            path = config(folder, size, sink, "30d")
            began = time.perf_counter()
            async with a_relay(path) as (public, admin, pid):
                print(f"ready {time.perf_counter() - began:.2f} s after the start", flush=True)
                await when(session, admin, lambda health: health["store"]["pending"] == 0)
                print(f"what was pending sent {time.perf_counter() - began:.2f} s after the start", flush=True)
                await look(session, admin, asked.repeat)
                if not asked.skip_pruning:
                    await prune(session, public, admin, pid, lambda: _shorten(path))
                print(f"resident: {_resident(pid):.0f} MiB; file: {(folder / 'relay.db').stat().st_size >> 20} MiB")


def _shorten(path: Path) -> None:
    path.write_text(path.read_text().replace("retention: 30d, bodies: 30d", "retention: 348h, bodies: 348h"))


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    asyncio.run(main())
