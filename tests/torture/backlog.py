"""A store with very many deliveries that wait: relay starts on it, serves others beside it, and works it off."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median

from relay.memory import CLAIMED
from relay.stores._sql import rows, shapes
from relay.stores.sqlite import reader
from tests.harness import RelayProcess, write_config
from tests.torture.bulk import AT_ONCE, in_bulk, insert
from tests.torture.crashes import end
from tests.torture.disks import health
from tests.torture.load import compared, p99, steadily
from tests.torture.row import Figure, Place
from tests.torture.sinks import HANG, SLOW, WELL, began_slowly, sinks

WAITING = 200_000  # of the quick run
ROUTES = 10
CONCURRENCY = 8  # what a route has unless it says
RATE, WARM, SECONDS = 200, 0.5, 2.0
CLAIMS = 200
_AGE_MS = 3_600_000  # an hour
_DRAINED = 2_000
_STARTS = 3
_LATER = 0.5  # seconds of the processor, where a machine that is busy takes 2 s to start anything


def fill(path: Path, waiting: int) -> None:
    """Make a store in which so many deliveries of `ROUTES` routes are due for an hour."""
    began = round(time.time() * 1000) - _AGE_MS
    with in_bulk(path) as connection:
        known = [
            shapes.Shapes().number(connection, (f"d{route}", "any", "generic", None, f"d{route}", None, None))
            for route in range(ROUTES)
        ]
        for first in range(0, waiting, AT_ONCE):
            events, bodies, deliveries = [], [], []
            for number in range(first, min(first + AT_ONCE, waiting)):
                moment = began + number * (_AGE_MS // 2) // waiting
                event = moment * rows.PER_MS + number % 10_000 * 2
                route = f"d{number % ROUTES}"
                body = b'{"id":%d,"to":"%s","text":"%s"}' % (number, route.encode(), b"x" * 200)
                what = ("any", "generic", None, moment, None, None, None, None, route, None, None, None, None, None)
                events.append((event, *what, "[]", sha256(body).digest(), len(body), 1))
                bodies.append((event, body))
                deliveries.append(
                    (event + 1, event, route, known[number % ROUTES], None, moment, moment, 0, 0, "initial", moment)
                )
            connection.execute("BEGIN")
            for table, columns, values in (
                ("event", rows.EVENT_COLUMNS, events),
                ("body", "event_id, content", bodies),
                ("delivery", rows.DELIVERY_COLUMNS, deliveries),
            ):
                insert(connection, table, columns, values)
            connection.execute("COMMIT")


def config(folder: Path, waiting: list[str], live: str) -> Path:
    """A route for each destination that is waited for, and one that is well."""
    lines = ["sources: {any: {type: generic, verify: none, map: {model: body.to}}}", "routes:"]
    for place, url in enumerate(waiting):
        lines.append(f"  - {{name: d{place}, match: {{model: d{place}}}, to: {{url: '{url}', timeout: 5s}}}}")
    lines.append(f"  - {{name: live, match: {{model: live}}, to: {{url: '{live}'}}}}")
    return write_config(folder, "\n".join(lines) + "\n")


async def claims(store: Path) -> float:
    """The median time of a claim, in seconds; the index must be used, and nothing sorted that it does not hold."""
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        connection.create_function("sha256", 1, lambda content: sha256(content).digest())
        values = ("d1", round(time.time() * 1000), "[]", 64, CLAIMED, 0)
        plan = [row[-1] for row in connection.execute("EXPLAIN QUERY PLAN " + reader.CLAIM, values)]
        assert any("USING INDEX delivery_pending" in step for step in plan), plan
        took = []
        for _ in range(CLAIMS):
            began = time.perf_counter()
            found = connection.execute(reader.CLAIM, values).fetchall()
            took.append(time.perf_counter() - began)
            assert len(found) == 64
    return median(took)


def resident(relay: RelayProcess) -> float:
    """MiB, at its highest so far."""
    assert relay.process is not None
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


async def million(place: Place) -> Figure:
    """Deliveries wait for destinations that hang; others are served beside; then they are well again."""
    waiting = WAITING * place.count
    full, empty = place.folder / "full", place.folder / "empty"
    for folder in (full, empty):
        folder.mkdir()
    await asyncio.to_thread(fill, full / "relay.db", waiting)
    claim = await claims(full / "relay.db")
    number = waiting  # of the next event

    async with sinks(place.folder, "live", [WELL]) as live, sinks(place.folder, "ill", [HANG] * ROUTES) as ill:
        amid = RelayProcess(config(full, ill.urls, live.urls[0]))
        without = RelayProcess(config(empty, ill.urls, live.urls[0]))

        async def one(there: bool) -> float:
            nonlocal number
            warm, count = round(RATE * WARM), round(RATE * SECONDS)
            first, number = number, number + warm + count
            relay = amid if there else without
            posted = await steadily(relay.public, RATE, warm + count, lambda n: b'{"id":%d,"to":"live"}' % n, first)
            meant = set(range(first + warm, number))
            seen = await live.wait_for(lambda seen: meant <= {each.number for each in seen})
            arrived = {each.number: each.at for each in seen}
            return p99([arrived[each] - posted[each].at for each in meant])

        try:
            idle = await _started(without)
            ready = await _started(amid)
            pending = (await health(amid))["store"]["pending"]
            found = await compared(one, 2.0)
            herd, grew, drained = await _drain(place.folder, amid, live.urls[0])
            most = resident(amid)
        finally:
            end(amid)
            end(without)
    later = ready.processor - idle.processor
    quick = (ready.clock < 2 or later < _LATER) and claim < 0.005 and found.ratio <= 2
    passed = quick and pending == waiting and most < 150 and herd <= CONCURRENCY and grew
    return Figure(
        f"{waiting:,} waiting: ready after {ready.clock:.2f} s, of which {later:.2f} s of the processor are due to"
        f" them; {most:.0f} MiB; a claim of 64 takes {claim * 1000:.1f} ms by its index; p99 of another route with them"
        f" to without: {found.text}; worked off at {drained:,.0f}/s, to each destination one at first and at most"
        f" {herd} at once",
        passed,
    )


@dataclass(frozen=True, slots=True)
class Start:
    """The quickest of some: until it takes events, in seconds, by the clock and of the processor."""

    clock: float
    processor: float


async def _started(relay: RelayProcess) -> Start:
    found = []
    for _ in range(_STARTS):
        end(relay)
        began = time.monotonic()
        await relay.start()
        assert relay.process is not None
        spent = Path(f"/proc/{relay.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        found.append(Start(time.monotonic() - began, sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")))
    return Start(min(start.clock for start in found), min(start.processor for start in found))


async def _drain(folder: Path, relay: RelayProcess, live: str) -> tuple[int, bool, float]:
    """Give the routes other destinations, that are well: how many requests one of them has had under way at once,
    whether that began with one and grew by one with each success, and how many a second came."""
    states = {route["name"]: route["state"] for route in (await health(relay))["routes"]}
    assert set(states.values()) == {"healthy", "unhealthy"}, states
    async with sinks(folder, "again", [SLOW] * ROUTES) as again:
        config(relay.config.parent, again.urls, live)
        began = time.monotonic()
        relay.hup()
        seen = await again.wait_for(lambda seen: len(seen) >= _DRAINED)
        speed = len(seen) / (time.monotonic() - began)
    by_port: dict[int, list[int]] = {}
    for each in seen:
        by_port.setdefault(each.port, []).append(each.under_way)
    grew = all(began_slowly(counts) for counts in by_port.values())
    return max(each.under_way for each in seen), grew and len(by_port) == ROUTES, speed
