"""Some of many destinations are ill: what the others notice of it, from the post to their receipt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import aiohttp

from tests.harness import RelayProcess, write_config
from tests.torture.crashes import end
from tests.torture.load import compared, p99, steadily
from tests.torture.row import Figure, Place
from tests.torture.sinks import BROKEN, DRIP, HANG, RESET, WELL, Sinks, sinks

RATE = 300  # events a second
WARM, SECONDS = 1.0, 3.0
TIMEOUT = 2.0  # of attempts at those that are ill, in seconds
# They are tried again and again all the time: no pause as it would come after five failures, which makes it easy.
_ILL = f"timeout: {TIMEOUT:g}s}}, retry: {{policy: fixed, every: 1s, attempts: 1000}}, unhealthy_after: 1000000"
_ONCE = f"timeout: {TIMEOUT:g}s}}, retry: none, unhealthy_after: 1000000"
FARM, FARM_ILL = 100, (HANG, RESET, DRIP, BROKEN) * 2 + (HANG, DRIP)


def config(folder: Path, urls: Sequence[str], ill: int, ill_keys: str = _ILL) -> Path:
    """A route for each destination; the last `ill` ones have further keys."""
    lines = ["sources: {any: {type: generic, verify: none, map: {model: body.to}}}", "routes:"]
    for place, url in enumerate(urls):
        keys = ill_keys if place >= len(urls) - ill else "}"
        lines.append(f"  - {{name: d{place}, match: {{model: d{place}}}, to: {{url: '{url}', {keys}}}")
    return write_config(folder, "\n".join(lines) + "\n")


async def hundred(place: Place) -> Figure:
    """A hundred destinations, ten of which hang, reset, drip or answer 500."""
    rounds = 0

    async def one(amid: bool) -> float:
        nonlocal rounds
        rounds += 1
        folder = place.folder / f"round-{rounds}"
        folder.mkdir()
        return await _round(folder, FARM - len(FARM_ILL), FARM_ILL if amid else [WELL] * len(FARM_ILL), place.count)

    found = await compared(one, 1.5)
    return Figure(
        f"p99 of the {FARM - len(FARM_ILL)} that are well, with {len(FARM_ILL)} ill ones to without, at {RATE}"
        f" events/s: {found.text}",
        found.ratio < 1.5,
    )


async def _round(folder: Path, well: int, others: Sequence[str], count: int) -> float:
    async with sinks(folder, "well", [WELL] * well) as good, sinks(folder, "others", others) as rest:
        urls = [*good.urls, *rest.urls]
        relay = RelayProcess(config(folder, urls, len(others)))
        try:
            await relay.start()
            return await _p99(relay, good, len(urls), well, SECONDS * count)
        finally:
            end(relay)


async def _p99(relay: RelayProcess, good: Sinks, routes: int, well: int, seconds: float) -> float:
    """Of the time from the post of an event to its receipt, over the destinations that are well. The first second, in
    which connections are made and code is warmed up, does not count."""
    warm, count = round(RATE * WARM), round(RATE * seconds)
    posted = await steadily(
        relay.public, RATE, warm + count, lambda number: b'{"id":%d,"to":"d%d"}' % (number, number % routes)
    )
    meant = {number for number in posted if number % routes < well}
    arrived = {each.number: each.at for each in await good.wait_for(lambda seen: meant <= {one.number for one in seen})}
    return p99([arrived[number] - posted[number].at for number in meant if number >= warm])


async def hanging(place: Place) -> Figure:
    """One of ten destinations never answers."""
    rounds, took = 0, list[float]()

    async def one(amid: bool) -> float:
        nonlocal rounds
        rounds += 1
        folder = place.folder / f"round-{rounds}"
        folder.mkdir()
        async with sinks(folder, "well", [WELL] * 9) as good, sinks(folder, "other", [HANG if amid else WELL]) as rest:
            relay = RelayProcess(config(folder, [*good.urls, *rest.urls], 1, _ONCE))
            try:
                await relay.start()
                found = await _p99(relay, good, 10, 9, SECONDS * place.count)
                if amid:
                    took.extend(await _failed(relay, "d9"))
            finally:
                end(relay)
        return found

    found = await compared(one, 1.2)
    worst = max(took, key=lambda seconds: abs(seconds - TIMEOUT))
    return Figure(
        f"{len(took)} attempts failed with `timeout`, after {median(took):.2f} s of {TIMEOUT:g} s (furthest off:"
        f" {worst:.2f} s); p99 of the other 9 with it to without: {found.text}",
        abs(worst - TIMEOUT) <= TIMEOUT / 10 and found.ratio < 1.2,
    )


async def _failed(relay: RelayProcess, route: str) -> list[float]:
    """How long the attempts took, in seconds, that a route gave up on; all must have run into their timeout."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{relay.admin}/logs?route={route}&status=failed&limit=1000") as response,
    ):
        items = json.loads(await response.read())["items"]
    assert items, "nothing failed"
    assert {item["error"]["code"] for item in items} == {"timeout"}, items
    return [item["duration_ms"] / 1000 for item in items]
