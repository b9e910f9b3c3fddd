"""What routes cost that want nothing of an event, and what many that want it do."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median

from bench.place import Goal, Place, Table, in_turns
from bench.process import relay
from bench.senders import Posted, post
from bench.sink import nginx
from bench.throughput import SOURCES, Round, carried, route

MANY, MATCHING = 1000, 100


async def routes(place: Place) -> Table:
    """One route; a thousand of which one matches; a hundred that match."""
    table = Table("Routes")
    async with contextlib.AsyncExitStack() as stack:
        sink = await stack.enter_async_context(nginx(place.folder))
        one = route("r", sink.url, "{model: article}")
        others = "".join(route(f"r{n}", sink.url, f"{{model: m{n}}}") for n in range(MANY - 1))
        matching = "".join(route(f"r{n}", sink.url, "{model: article}") for n in range(MATCHING))
        parts: dict[str, Callable[[], Awaitable[Round]]] = {}
        for name, text, each in (
            ("one route", one, 1),
            (f"{MANY} routes, one matches", others + one, 1),
            (f"{MATCHING} routes, all match", matching, MATCHING),
        ):
            made, pid = await stack.enter_async_context(
                relay(place.sub(f"relay-{len(parts)}"), SOURCES + "routes:\n" + text)
            )
            # Few senders where each event is a hundred deliveries: what is posted must also be carried.
            load = partial(_posting, f"{made.public}/in/blog", place, 64 if each == 1 else 2)
            parts[name] = partial(carried, load, pid, sink, place.seconds if each == 1 else 1.0, each)
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


async def _posting(url: str, place: Place, connections: int, seconds: float) -> Posted:
    return await post(url, seconds, place.folder, "strapi", connections)


def _over(above: object, below: object) -> float:
    assert isinstance(above, float)
    assert isinstance(below, float)
    return above / below
