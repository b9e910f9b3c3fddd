"""How long an event takes from the post to the sink, at a steady pace: at half the highest rate, and at 50 a second."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench.clocked import Arrivals, clocked
from bench.place import Goal, Place, Row, Table, in_turns
from bench.process import HOST, ROOT, relay, yardstick
from bench.senders import fresh
from bench.throughput import SOURCES, highest, route
from tests.torture.load import p99

SLOW = 50.0


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of each event of one round."""

    post_to_sink: list[float]
    answer_to_sink: list[float]
    post_to_answer: list[float]


async def paced(url: str, rate: float, seconds: float, folder: Path, sink: Arrivals) -> Times:
    """One round at a pace."""
    first = 10_000_000_000 + fresh()  # as many digits, always
    file = folder / f"paced.{first}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.paced", url, str(rate), str(seconds), str(first), str(file)), cwd=ROOT
    )
    if await process.wait():
        raise RuntimeError(f"the sender ended with {process.returncode}")
    posted = {int(n): (int(at) / 1e6, int(done) / 1e6) for n, at, done in map(str.split, file.read_text().splitlines())}
    arrived = await sink.of(set(posted))
    return Times(
        [arrived[n] - at for n, (at, _) in posted.items()],
        [arrived[n] - done for n, (_, done) in posted.items()],
        [done - at for at, done in posted.values()],
    )


def row(name: str, rate: float, rounds: Sequence[Times]) -> Row:
    """Medians of the rounds."""

    def of(what: str) -> tuple[float, float]:
        each: list[list[float]] = [getattr(times, what) for times in rounds]
        return median(map(median, each)), median(map(p99, each))

    found: Row = {"what": name, "events/s": rate}
    for what, text in (("post_to_sink", "post to sink"), ("answer_to_sink", "200 to sink"), ("post_to_answer", "200")):
        found[f"{text} p50 ms"], found[f"{text} p99 ms"] = of(what)
    return found


async def latency(place: Place) -> Table:
    """relay beside the forwarder that keeps nothing."""
    most = await highest(place)
    half = most / 2
    table = Table("Latency")
    async with clocked(place.folder) as sink:
        config = SOURCES + "routes:\n" + route("r", sink.url)
        async with (
            relay(place.sub("relay"), config) as (made, _),
            yardstick("forwarder", place.folder, sink.url) as (b, _),
        ):
            for name, rate in (("half of the highest rate", half), ("slow", SLOW)):
                one = partial(paced, rate=rate, seconds=place.seconds, folder=place.folder, sink=sink)
                urls = {"forwarder": b, "relay": f"{made.public}/in/blog"}
                found = await in_turns(place.rounds, {what: partial(one, url) for what, url in urls.items()})
                table.rows += [row(f"{what}, {name}", rate, rounds) for what, rounds in found.items()]
    wanted = ((f"at half of the highest rate ({half:,.0f}/s)", 25.0), (f"at {SLOW:g}/s", 10.0))
    for (text, most_ms), found_row in zip(wanted, table.rows[1::2], strict=True):
        value = found_row["post to sink p99 ms"]
        assert isinstance(value, float)
        table.goals.append(Goal(f"p99 from the post to the sink {text}, in ms", value, most_ms, at_least=False))
    table.notes.append(f"Senders and the sink on {HOST}, each a process of its own; one monotonic clock.")
    return table
