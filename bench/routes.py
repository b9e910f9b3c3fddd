"""What routes cost that want nothing of an event, and what many that want it do."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.place import Goal, Place, Table, in_turns
from bench.process import relay
from bench.senders import Posted, post
from bench.sink import Sink, nginx
from bench.throughput import SOURCES, Round, carried, route, warmed

MANY, MATCHING = 1000, 100


async def routes(place: Place) -> Table:
    """One route; a thousand of which one matches; a hundred that match."""
    table = Table("Routes")
    async with nginx(place.folder) as sink:
        one = route("r", sink.url, "{model: article}")
        others = "".join(route(f"r{n}", sink.url, f"{{model: m{n}}}") for n in range(MANY - 1))
        matching = "".join(route(f"r{n}", sink.url, "{model: article}") for n in range(MATCHING))
        parts = {
            "one route": partial(_of_relay, place, sink, one),
            f"{MANY} routes, one matches": partial(_of_relay, place, sink, others + one),
            f"{MATCHING} routes, all match": partial(_of_relay, place, sink, matching, MATCHING),
        }
        found = await in_turns(place.rounds, parts)
    for name, rounds in found.items():
        table.rows.append(
            {
                "what": name,
                "deliveries/s": median(each.per_s for each in rounds),
                "CPU us per delivery": median(each.cpu_us for each in rounds),
                "RSS MiB": max(each.rss for each in rounds),
            }
        )
    single, many, matched = ([row[key] for key in ("deliveries/s", "CPU us per delivery")] for row in table.rows)
    table.goals.append(Goal(f"{MANY} routes of which one matches / one route", _over(many[0], single[0]), 0.9))
    table.goals.append(
        Goal(f"CPU per delivery, {MATCHING} matching routes / one", _over(matched[1], single[1]), 1.0, at_least=False)
    )
    return table


async def _of_relay(place: Place, sink: Sink, text: str, each: int = 1) -> Round:
    """A round of a relay of its own, see `bench.throughput`, whose events go on as so many deliveries."""
    with TemporaryDirectory(dir=place.folder) as folder:
        async with relay(Path(folder), SOURCES + "routes:\n" + text) as (made, pid):
            # Few senders where each event is a hundred deliveries: what is posted must also be carried.
            load = partial(_posting, f"{made.public}/in/blog", place, 64 if each == 1 else 2)
            return await warmed(partial(carried, load, pid, sink, each=each), place.seconds if each == 1 else 1.0)


async def _posting(url: str, place: Place, connections: int, seconds: float) -> Posted:
    return await post(url, seconds, place.folder, "strapi", connections)


def _over(above: object, below: object) -> float:
    assert isinstance(above, float)
    assert isinstance(below, float)
    return above / below
