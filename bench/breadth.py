"""What many sources, many idle senders and large bodies cost, each beside the same load without them."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from bench.idle import Idle, idle
from bench.place import Goal, Place, Row, Skipped, Table, in_turns
from bench.process import descriptors, needs, relay, rss_mib, yardstick
from bench.senders import CONNECTIONS, LARGE, TOKEN, Posted, post
from bench.sink import Sink, nginx
from bench.throughput import SOURCES, Load, Round, carried, route, rows_of

SOURCES_MANY, IDLE = 100, 2000
_OTHER_DESCRIPTORS = 1000  # of relay, of which it keeps 512 from senders, and of who measures it
_WARM = 1.0
_MOST_SECONDS = 20.0  # of a round: with the time in which all arrives, less than the 75 s after which idle ones must go
_LARGE_SECONDS = 3.0  # at most: relay keeps what it takes, which is gigabytes soon
_LARGE_CONNECTIONS = 8
_MIB = 1 << 20

Part = Callable[[float], Awaitable[Round]]


async def breadth(place: Place) -> Table:
    """One source and a hundred; two thousand idle connections and none; bodies of 1 MiB, beside a bare forwarder."""
    needs("wrk")
    table = Table("Breadth")
    await _sources_and_connections(place, table)
    await _large_bodies(place, table)
    table.notes.append(
        f"Medians of {place.rounds} alternating rounds. Large bodies: {_LARGE_CONNECTIONS} connections, all else:"
        f" {CONNECTIONS}."
    )
    return table


async def _sources_and_connections(place: Place, table: Table) -> None:
    one = {"/in/blog": TOKEN}
    many = {f"/in/blog{n}": f"{TOKEN}-{n}" for n in range(SOURCES_MANY)}
    few, wide, beside = "one source", f"{SOURCES_MANY} sources", f"one source, {IDLE:,} idle connections"
    parts: dict[str, Part] = {}
    async with contextlib.AsyncExitStack() as stack:
        sink = await stack.enter_async_context(nginx(place.folder))
        for name, sources in ((few, one), (wide, many)):
            config = _config(sources) + "routes:\n" + route("r", sink.url)
            made, pid = await stack.enter_async_context(relay(place.sub(f"relay-{len(parts)}"), config))
            load = partial(_posting, made.public, sources, place.folder)
            parts[name] = partial(_carried, load, pid, sink)
            await parts[name](_WARM)
        memory: Row = {}
        try:
            descriptors(IDLE + _OTHER_DESCRIPTORS)
        except Skipped as reason:
            table.notes.append(f"Without idle connections: {reason}")
        else:
            config = _config(one) + "routes:\n" + route("r", sink.url)
            made, pid = await stack.enter_async_context(relay(place.sub("relay-idle"), config))
            load = partial(_posting, made.public, one, place.folder)
            await _carried(load, pid, sink, _WARM)
            connected = await stack.enter_async_context(idle(f"{made.public}/in/blog"))
            alone = rss_mib(pid)
            await connected.connect(IDLE)
            await connected.post()
            full = rss_mib(pid)
            memory = {"MiB per 1,000 idle": (full - alone) / IDLE * 1000}
            table.notes.append(f"RSS before the idle connections {alone:.1f} MiB, with them {full:.1f} MiB.")
            parts[beside] = partial(_beside_idle, connected, load, pid, sink)
        seconds = min(place.seconds, _MOST_SECONDS)
        found = await in_turns(place.rounds, {name: partial(part, seconds) for name, part in parts.items()})
    table.rows += rows_of(found)
    table.rows[-1].update(memory)
    speed = _medians(found)
    table.goals.append(Goal(f"{wide} / {few}", speed[wide] / speed[few], 0.9))
    if beside in speed:
        table.goals.append(Goal(f"beside {IDLE:,} idle connections / without", speed[beside] / speed[few], 0.9))


async def _large_bodies(place: Place, table: Table) -> None:
    bare, ours = "bodies of 1 MiB, bare forwarder", "bodies of 1 MiB, relay end to end"
    folder = place.sub("large")
    parts: dict[str, Part] = {}
    pids: dict[str, int] = {}
    async with contextlib.AsyncExitStack() as stack:
        sink = await stack.enter_async_context(nginx(folder, whole=True))
        url, pids[bare] = await stack.enter_async_context(yardstick("forwarder", folder, sink.url))
        made, pids[ours] = await stack.enter_async_context(
            relay(place.sub("relay-large"), SOURCES + "routes:\n" + route("r", sink.url))
        )
        for name, target in ((bare, url), (ours, f"{made.public}/in/blog")):
            parts[name] = partial(_carried, partial(_posting_large, target, folder), pids[name], sink)
            await parts[name](_WARM)
        seconds = min(place.seconds, _LARGE_SECONDS)
        found = await in_turns(place.rounds, {name: partial(part, seconds) for name, part in parts.items()})
        highest = {name: rss_mib(pid, "VmHWM") for name, pid in pids.items()}
    speed = _medians(found)
    for name, rounds in found.items():
        table.rows.append(
            {
                "what": name,
                "MiB/s": speed[name] * LARGE / _MIB,
                "CPU ms per event": median(each.cpu_us for each in rounds) / 1000,
                "highest RSS MiB": highest[name],
            }
        )
    table.notes.append(f"Of bodies of 1 MiB relay carries {speed[ours] / speed[bare]:.2f} of what the forwarder does.")
    table.goals.append(Goal("highest RSS with bodies of 1 MiB, in MiB", highest[ours], 256, at_least=False))


async def _carried(load: Load, pid: int, sink: Sink, seconds: float) -> Round:
    """A round to which nothing is added that came in at the end of the one before."""
    done = await carried(load, pid, sink, seconds)
    await sink.quiet()
    return done


async def _beside_idle(connected: Idle, load: Load, pid: int, sink: Sink, seconds: float) -> Round:
    """A round beside connections that are all open from its beginning to its end, and have just been of use, so that
    none of them has been silent for too long in it."""
    await connected.post()
    await sink.quiet()
    done = await _carried(load, pid, sink, seconds)
    if lost := connected.lost():
        raise RuntimeError(f"{lost} of {IDLE:,} idle connections were closed meanwhile")
    return done


async def _posting(public: str, sources: Mapping[str, str], folder: Path, seconds: float) -> Posted:
    return await post(f"{public}{next(iter(sources))}", seconds, folder, sources=sources)


async def _posting_large(url: str, folder: Path, seconds: float) -> Posted:
    return await post(url, seconds, folder, "large", _LARGE_CONNECTIONS)


def _config(sources: Mapping[str, str]) -> str:
    """Of Strapi's sources, each with a token of its own."""
    each = (f"  {path.rpartition('/')[2]}: {{type: strapi, token: {token}}}\n" for path, token in sources.items())
    return "sources:\n" + "".join(each)


def _medians(found: Mapping[str, Sequence[Round]]) -> dict[str, float]:
    return {name: median(each.per_s for each in rounds) for name, rounds in found.items()}
