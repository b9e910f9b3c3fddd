"""Mixed traffic with faults for a long time: nothing grows.

Five routes take what 50 events a second say: a healthy one, one in order, one that debounces, one whose destination
fails every fifth time, and one whose destination hangs or answers 500 by turns. Meanwhile the config is reloaded,
history is read, and old history is pruned. After the first third, when caches and pools are as large as they get, what
relay holds must stay as it is, but for what happens to be under way.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.harness import PATIENCE, Received, RelayProcess, Sink, sink, write_config
from tests.torture import insight
from tests.torture.crashes import end
from tests.torture.insight import Holding
from tests.torture.row import Figure, Place
from tests.torture.steady import Steady

SECONDS = 45  # of the quick run; 40 times as long is half an hour
RATE = 50.0
_LOOKS = 45
_UNDER_WAY = 5 * 8  # routes, and attempts of each at once
_MOST_LOG = 64 << 20  # bytes of SQLite's log


def config(url: str) -> str:
    """The five routes. History is kept for a moment only, so that pruning is at work all the time."""
    return f"""
sources: {{any: {{type: generic, verify: none, map: {{entry_id: body.entry, model: body.model}}}}}}
defaults: {{timeout: 2s, retry: {{policy: exponential, first: 200ms, factor: 2, max: 2s, attempts: 4}}}}
routes:
  - {{name: well, to: {{url: '{url}/well'}}}}
  - {{name: order, to: {{url: '{url}/order'}}, order: entry}}
  - {{name: window, to: {{url: '{url}/window'}}, debounce: {{wait: 1s, max_wait: 3s}}}}
  - {{name: flaky, to: {{url: '{url}/flaky'}}, payload: {{template: "{{{{ event.id }}}} {{{{ event.model }}}}"}}}}
  - {{name: ill, to: {{url: '{url}/ill'}}}}
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What relay held, so many seconds after the start, and how large its log was."""

    at: float
    holding: Holding
    log: int


def _answer(turn: itertools.count[int], stop: asyncio.Event) -> object:
    async def hang() -> web.StreamResponse:
        await stop.wait()
        return web.Response()

    def answer(request: Received) -> object:
        number = next(turn)
        if request.path == "/flaky" and number % 5 == 0:
            return 503
        if request.path == "/ill":
            return hang() if number % 3 == 0 else 500
        return 200

    return answer


async def soak(place: Place) -> Figure:
    """Run for so long, look now and then."""
    length = SECONDS * place.count
    stop = asyncio.Event()
    looks: list[Look] = []
    async with sink(_answer(itertools.count(), stop)) as destination:  # type: ignore[arg-type]
        path = write_config(place.folder, config(destination.url))
        head = path.read_text().replace("store: {", "store: {retention: 10s, bodies: 10s, ")
        path.write_text(head)
        relay = RelayProcess(path, environ=insight.environ(place.folder))
        await relay.start()
        try:
            sender = Steady(relay.public, RATE, body=lambda n: b'{"entry":%d,"model":"m%d"}' % (n % 50, n % 7))
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                group.create_task(sender.run())
                others = [
                    group.create_task(_reload(relay, path, head)),
                    group.create_task(_read(relay)),
                    group.create_task(_forget(destination)),
                ]
                for number in range(_LOOKS):
                    await asyncio.sleep(max(0.0, began + (number + 1) * length / _LOOKS - time.monotonic()))
                    looks.append(Look(time.monotonic() - began, await insight.look(relay, place.folder), _log(place)))
                sender.ended = True
                for task in others:
                    task.cancel()
            stop.set()
            status = await relay.stop()
        finally:
            stop.set()
            end(relay)
    told = [{"at": look.at, "log": look.log, **asdict(look.holding)} for look in looks]
    place.result("soak.json", json.dumps(told) + "\n")
    third = len(looks) // 3
    early, late = _middle(looks[third : third + 5]), _middle(looks[-5:])
    largest = max(look.log for look in looks)
    return Figure(
        f"{length} s, {sender.sent:,} events answered {dict(sender.statuses)}; from a third on:"
        f" {insight.growth(early, late)}; SQLite's log at most {largest / 2**20:.1f} MiB",
        status == 0 and set(sender.statuses) == {200} and insight.flat(early, late, _UNDER_WAY) and largest < _MOST_LOG,
    )


def _middle(looks: list[Look]) -> Holding:
    """The median of each figure: an attempt or a page may be under way at any one look."""

    def of(name: str) -> int:
        return int(sorted(getattr(look.holding, name) for look in looks)[len(looks) // 2])

    return Holding(of("rss"), of("files"), of("threads"), of("tasks"), of("objects"))


def _log(place: Place) -> int:
    try:
        return (place.folder / "relay.db-wal").stat().st_size
    except FileNotFoundError:
        return 0


async def _reload(relay: RelayProcess, path: Path, text: str) -> None:
    for number in itertools.count():
        await asyncio.sleep(2)
        path.write_text(f"{text}# {number}\n" if number % 3 else "nonsense: 1\n")
        relay.hup()


async def _read(relay: RelayProcess) -> None:
    pages = ("/logs?limit=200", "/health", "/metrics", "/", "/logs?status=failed&q=evt", "/routes")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        for page in itertools.cycle(pages):
            async with session.get(relay.admin + page) as response:
                await response.read()
            await asyncio.sleep(0.5)


async def _forget(destination: Sink) -> None:
    """The sink keeps what it received, which is ours to forget."""
    while True:
        await asyncio.sleep(5)
        destination.received.clear()
