"""Some of many destinations are ill: what the others notice of it, from the post to their receipt.

Two relays, one whose destinations are all well and one some of whose are not, get the same load by turns. Senders, both
relays and the destinations are processes of their own, and two hundred events a second are far less than what each of
them can do: none of them is the bottleneck.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp

from tests.harness import RelayProcess, write_config
from tests.torture.crashes import end
from tests.torture.load import Compared, compared, p99, steadily
from tests.torture.row import Figure, Place
from tests.torture.sinks import BROKEN, DRIP, HANG, RESET, WELL, Sinks, sinks

RATE = 200  # events a second
WARM = 0.4  # seconds of each round, in which connections are made anew, that do not count
TIMEOUT = 3.0  # of attempts at those that are ill, in seconds
FARM, ILL = 100, (HANG, RESET, DRIP, BROKEN) * 2 + (HANG, DRIP)
# No pause as it would come after five failures, which makes it easy: they are tried all the time.
_AGAIN = "retry: {policy: fixed, every: 1s, attempts: 3}, unhealthy_after: 1000000"
_ONCE = "retry: none, unhealthy_after: 1000000"


def config(folder: Path, urls: Sequence[str], ill: int, keys: str) -> Path:
    """A route for each destination; the last `ill` ones have a timeout and further keys."""
    folder.mkdir()
    lines = ["sources: {any: {type: generic, verify: none, map: {model: body.to}}}", "routes:"]
    for place, url in enumerate(urls):
        name = f"name: d{place}, match: {{model: d{place}}}"
        if place < len(urls) - ill:
            lines.append(f"  - {{{name}, to: {{url: '{url}'}}}}")
        else:
            lines.append(f"  - {{{name}, to: {{url: '{url}', timeout: {TIMEOUT:g}s}}, {keys}}}")
    return write_config(folder, "\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class Rounds:
    """How many, how long, and what their ratio must stay below. What else a machine does comes in waves of some
    seconds: the finer a figure, the shorter and the more rounds it wants."""

    count: int
    seconds: float
    most: float


async def _beside(
    place: Place, well: int, ill: Sequence[str], keys: str, rounds: Rounds
) -> tuple[Compared, list[float]]:
    """The p99 of those that are well, with ill ones beside them and with others that are well; and how long the
    attempts took that ran into their timeout."""
    number = 0
    async with (
        sinks(place.folder, "well", [WELL] * well) as good,
        sinks(place.folder, "others", [*[WELL] * len(ill), *ill]) as rest,
    ):
        without, amid = (
            RelayProcess(config(place.folder / name, [*good.urls, *urls], len(ill), keys))
            for name, urls in (("without", rest.urls[: len(ill)]), ("amid", rest.urls[len(ill) :]))
        )

        async def one(there: bool) -> float:
            nonlocal number
            first = number
            number += round(RATE * (WARM + rounds.seconds))
            return await _p99(amid if there else without, good, well, well + len(ill), first, number)

        try:
            await without.start()
            await amid.start()
            found = await compared(one, rounds.most, rounds.count * place.count)
            return found, await _timeouts(amid)
        finally:
            end(without)
            end(amid)


async def _p99(relay: RelayProcess, good: Sinks, well: int, routes: int, first: int, after: int) -> float:
    """Of the time from the post of an event to its receipt, over the destinations that are well."""
    posted = await steadily(
        relay.public, RATE, after - first, lambda number: b'{"id":%d,"to":"d%d"}' % (number, number % routes), first
    )
    meant = {number for number in posted if number % routes < well}
    seen = await good.wait_for(lambda seen: meant <= {each.number for each in seen})
    arrived = {each.number: each.at for each in seen}
    return p99([arrived[number] - posted[number].at for number in meant if number >= first + RATE * WARM])


async def _timeouts(relay: RelayProcess) -> list[float]:
    """How long the last attempts took of deliveries that failed with a timeout, in seconds."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{relay.admin}/logs?status=failed&limit=1000") as response:
            items = json.loads(await response.read())["items"]
    return [item["duration_ms"] / 1000 for item in items if item["error"]["code"] == "timeout"]


async def hundred(place: Place) -> Figure:
    """A hundred destinations, ten of which hang, reset, drip or answer 500."""
    found, _ = await _beside(place, FARM - len(ILL), ILL, _AGAIN, Rounds(5, 1.5, 1.5))
    return Figure(
        f"p99 of the {FARM - len(ILL)} that are well, with {len(ILL)} ill ones to without, at {RATE} events/s:"
        f" {found.text}",
        found.ratio < 1.5,
    )


async def hanging(place: Place) -> Figure:
    """One of ten destinations never answers."""
    found, took = await _beside(place, 9, [HANG], _ONCE, Rounds(9, 1.2, 1.2))
    if not took:
        return Figure("no attempt failed with `timeout`", False)
    worst = max(took, key=lambda seconds: abs(seconds - TIMEOUT))
    return Figure(
        f"{len(took)} attempts failed with `timeout`, after {median(took):.2f} s of {TIMEOUT:g} s (furthest off:"
        f" {worst:.2f} s); p99 of the other 9 with it to without: {found.text}",
        abs(worst - TIMEOUT) <= TIMEOUT / 10 and found.ratio < 1.2,
    )
