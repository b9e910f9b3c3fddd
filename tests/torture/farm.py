"""Some of many destinations are ill: what the others notice of it, from the post to their receipt.

Two relays, one whose destinations are all well and one some of whose are not, get the same load by turns. Senders, both
relays and the destinations are processes of their own, and two hundred events a second are far less than what each of
them can do: none of them is the bottleneck.
"""

from __future__ import annotations

import asyncio
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
from tests.torture.sinks import BROKEN, DRIP, HANG, LATE, RESET, SLOW, WELL, Sinks, sinks

RATE = 200  # events a second
WARM = 0.4  # seconds of each round, in which connections are made anew, that do not count
TIMEOUT = 3.0  # of attempts at those that are ill, in seconds
FARM, ILL = 100, (HANG, RESET, DRIP, BROKEN) * 2 + (HANG, DRIP)
LADEN, _LADEN_ARRIVE, _LADEN_MOST = 100, 120.0, 2.0  # bodies; seconds until the last one; the ratio
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


async def laden(place: Place) -> Figure:
    """A destination that takes 20 s for each answer is sent a hundred bodies of 1 MB, beside one that takes
    20 ms: with so many events a second it wants several at once."""
    found, repeats = Compared(), 0
    for turn in range(2):  # the second one where the first misses, and both count
        folder = place.folder / f"laden{turn}"
        folder.mkdir()
        repeats += await _before_and_amid(folder, found)
        if found.ratio < _LADEN_MOST:
            break
    return Figure(
        f"p99 of a destination with {LADEN} bodies of 1 MB under way to one that answers after 20 s, to before:"
        f" {found.text}; all of these arrived, {repeats} more than once",
        found.ratio < _LADEN_MOST and not repeats,
    )


async def _before_and_amid(folder: Path, found: Compared) -> int:
    """Add rounds of a new relay; gives how many of the large ones arrived again. All must have arrived."""
    number = LADEN
    async with sinks(folder, "well", [SLOW]) as good, sinks(folder, "late", [LATE]) as late:
        relay = RelayProcess(_beside_late(folder / "relay", good, late))

        async def one() -> float:
            nonlocal number
            first = number
            number += round(RATE * (WARM + 1.5))
            return await _p99(relay, good, 1, 1, first, number)

        try:
            await relay.start()
            found.without.extend([await one() for _ in range(3)])
            await _lade(relay)
            found.amid.extend([await one() for _ in range(3)])  # well, these end before the first answer
            seen = await late.wait_for(lambda seen: len({each.number for each in seen}) == LADEN, _LADEN_ARRIVE)
        finally:
            end(relay)
    return len(seen) - LADEN


def _beside_late(folder: Path, good: Sinks, late: Sinks) -> Path:
    folder.mkdir()
    to = f"{{url: '{late.urls[0]}', timeout: 60s}}"
    return write_config(
        folder,
        "sources: {any: {type: generic, verify: none, map: {model: body.to}}}\nroutes:\n"
        f"  - {{name: d0, match: {{model: d0}}, to: {{url: '{good.urls[0]}'}}}}\n"
        f"  - {{name: late, match: {{model: late}}, to: {to}, concurrency: {LADEN}}}\n",
    )


async def _lade(relay: RelayProcess) -> None:
    """One after the other: where there is no room for one it comes again, as senders do."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        for number in range(LADEN):
            body = b'{"id":%d,"to":"late","text":"%s"}' % (number, b"x" * 1_000_000)
            while True:
                async with session.post(f"{relay.public}/in/any", data=body) as response:
                    await response.read()
                if response.status == 200:
                    break
                assert response.status == 503, response.status
                await asyncio.sleep(0.05)
