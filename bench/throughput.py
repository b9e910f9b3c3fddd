"""What relay carries as fast as senders post, beside a bare server, a bare forwarder, the naive design, Alertmanager.

All in one run, by turns, on the same processors. Events a second is what the sink has received, from the first post to
the last arrival; where nothing is sent on, what was answered.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import which
from statistics import median
from tempfile import TemporaryDirectory

from bench.place import Goal, Place, Row, Table, in_turns
from bench.process import HOST, cpu_seconds, free_port, needs, relay, rss_mib, started, yardstick
from bench.senders import SECRET, TOKEN, Posted, post
from bench.sink import Sink, nginx

SOURCES = f"sources: {{blog: {{type: strapi, token: {TOKEN}}}, www: {{type: storyblok, secret: {SECRET}}}}}\n"
CONCURRENCY = 64
"""Of each route. A slot is free when the result is on disk: it takes more of them than the forwarder's 16 to have as
many requests under way. The forwarder itself carries no more with 64."""
_WARM = 2.0
"""Seconds for which a process is loaded before it counts."""
_ALERTMANAGER = """
route: {receiver: sink, group_by: ['...'], group_wait: 0s, group_interval: 1h, repeat_interval: 24h}
receivers: [{name: sink, webhook_configs: [{url: "URL", send_resolved: false}]}]
"""


def route(name: str, url: str, match: str = "{action: publish}", concurrency: int = CONCURRENCY) -> str:
    """A route as people have it: signed, with a token for its receiver, both its own; as many in flight as the bare
    forwarder has."""
    key = base64.b64encode(f"the key of {name:_<21}".encode()).decode()
    return (
        f"  - name: {name}\n    match: {match}\n"
        f"    to: {{url: '{url}', auth: {{type: bearer, token: a-token-for-the-receiver-of-{name}}}}}\n"
        f"    sign: [{{scheme: standard, secret: whsec_{key}}}]\n"
        f"    concurrency: {concurrency}\n"
    )


@dataclass(frozen=True, slots=True)
class Round:
    """One load on one target."""

    events: int
    per_s: float
    answered: float
    """A second, while the senders posted."""
    cpu_us: float
    rss: float


Load = Callable[[float], Awaitable[Posted]]
Measuring = Callable[[float], Awaitable[Round]]
"""A round of so many seconds."""


async def carried(load: Load, pid: int, sink: Sink, seconds: float, each: int = 1) -> Round:
    """A round in which all that is posted goes on to the sink, `each` times."""
    before, spent = sink.received(), cpu_seconds(pid)
    posted = await load(seconds)
    total, last = await sink.wait_for(before + posted.count * each)
    count = total - before
    if count < posted.count * each:
        raise RuntimeError(f"of {posted.count * each} only {count} arrived")
    cpu = (cpu_seconds(pid) - spent) / count * 1e6
    return Round(count, count / (last - posted.began), posted.count / posted.seconds, cpu, rss_mib(pid))


async def answered(load: Load, pid: int, seconds: float) -> Round:
    """A round in which nothing goes on."""
    spent = cpu_seconds(pid)
    posted = await load(seconds)
    cpu = (cpu_seconds(pid) - spent) / posted.count * 1e6
    rate = posted.count / posted.seconds
    return Round(posted.count, rate, rate, cpu, rss_mib(pid))


def rows_of(found: Mapping[str, Sequence[Round]]) -> list[Row]:
    """What was carried, a row for each part."""
    return [
        {
            "what": name,
            "events/s": median(each.per_s for each in rounds),
            "CPU us per event": median(each.cpu_us for each in rounds),
            "RSS MiB": max(each.rss for each in rounds),
        }
        for name, rounds in found.items()
    ]


async def highest(place: Place) -> float:
    """What relay carries of Strapi's events: the median of some rounds."""
    folder = place.sub("highest")
    async with nginx(folder) as sink, relay(folder, SOURCES + "routes:\n" + route("r", sink.url)) as (made, pid):
        load = partial(_posting, f"{made.public}/in/blog", folder, "strapi")
        await carried(load, pid, sink, _WARM)
        return median(
            [(await carried(load, pid, sink, min(place.seconds, 3))).per_s for _ in range(min(place.rounds, 3))]
        )


async def throughput(place: Place) -> Table:
    """The comparison."""
    needs("wrk")
    async with nginx(place.folder) as sink:
        bare, own = partial(_of_yardstick, place, sink), partial(_of_relay, place, sink)
        parts: dict[str, Callable[[], Awaitable[Round]]] = {
            "a: bare web.Application, answers": partial(bare, "application"),
            "c: relay, no route matches": partial(own, "blog", "strapi", "{model: another}"),
            "b: bare forwarder, keeps nothing": partial(bare, "forwarder"),
            "d: relay, end to end, token, Strapi": partial(own, "blog", "strapi"),
            "d: relay, end to end, HMAC, Storyblok": partial(own, "www", "storyblok"),
            "e: naive, a commit for each": partial(bare, "naive"),
        }
        if which("prometheus-alertmanager"):
            parts["Alertmanager, in memory"] = partial(_alertmanager, place, sink)
        found = await in_turns(place.rounds, parts)
    synced = await syncs(place, "cd")
    table = Table("Throughput")
    for name, rounds in found.items():
        table.rows.append(
            {
                "what": name,
                "events/s": median(each.per_s for each in rounds),
                "lowest": min(each.per_s for each in rounds),
                "highest": max(each.per_s for each in rounds),
                "answered/s": median(each.answered for each in rounds),
                "CPU us per event": median(each.cpu_us for each in rounds),
                "RSS MiB": max(each.rss for each in rounds),
                "fsyncs per event": synced.get(name[:1]) if name[1] == ":" else None,
            }
        )

    def ratio(above: str, below: str) -> float:
        """Of the medians."""
        one, other = (
            next(median(r.per_s for r in rounds) for name, rounds in found.items() if name.startswith(start))
            for start in (above, below)
        )
        return one / other

    strapi, storyblok = "d: relay, end to end, token", "d: relay, end to end, HMAC"
    table.goals += [
        Goal("d/b, Strapi's events", ratio(strapi, "b:"), 0.75),
        Goal("d/b, Storyblok's events", ratio(storyblok, "b:"), 0.75),
        Goal("c/a", ratio("c:", "a:"), 0.45),
    ]
    if "Alertmanager, in memory" in found:
        table.goals.append(Goal("d/Alertmanager, Strapi's events", ratio(strapi, "Alertmanager"), 1.0))
    else:
        table.notes.append("Without Alertmanager: apt-get install prometheus-alertmanager")
    table.notes += [
        f"d/e {ratio(strapi, 'e:'):.2f}, e/b {ratio('e:', 'b:'):.2f}; medians of {place.rounds} alternating rounds of"
        f" {place.seconds:g} s, a new process in each, loaded for {_WARM:g} s before (but for Alertmanager); wrk with"
        " 64 connections; relay with `synchronous=FULL` and its log in a file.",
    ]
    return table


async def _posting(url: str, folder: Path, kind: str, seconds: float) -> Posted:
    return await post(url, seconds, folder, kind)


# Each in a process of its own, a new one in each round: of one program they differ for as long as they live, by more
# than what is to be found out.


async def _of_yardstick(place: Place, sink: Sink, kind: str) -> Round:
    with TemporaryDirectory(dir=place.folder) as folder:
        async with yardstick(kind, Path(folder), sink.url) as (url, pid):
            load = partial(_posting, url, place.folder, "strapi")
            return await warmed(_measuring(load, pid, None if kind == "application" else sink), place.seconds)


async def _of_relay(place: Place, sink: Sink, source: str, kind: str, match: str | None = None) -> Round:
    with TemporaryDirectory(dir=place.folder) as folder:
        config = SOURCES + "routes:\n" + (route("r", sink.url) if match is None else route("r", sink.url, match))
        async with relay(Path(folder), config) as (made, pid):
            load = partial(_posting, f"{made.public}/in/{source}", place.folder, kind)
            return await warmed(_measuring(load, pid, sink if match is None else None), place.seconds)


def _measuring(load: Load, pid: int, sink: Sink | None) -> Measuring:
    return partial(answered, load, pid) if sink is None else partial(carried, load, pid, sink)


async def warmed(measuring: Measuring, seconds: float) -> Round:
    """A round of a new process, as soon as it is no longer cold."""
    await measuring(min(_WARM, seconds))
    return await measuring(seconds)


async def _alertmanager(place: Place, sink: Sink) -> Round:
    with TemporaryDirectory(dir=place.folder) as folder:
        return await _of_alertmanager(place, sink, Path(folder))


async def _of_alertmanager(place: Place, sink: Sink, folder: Path) -> Round:
    port = free_port()
    config = folder / "alertmanager.yml"
    config.write_text(_ALERTMANAGER.replace("URL", sink.url))
    command = [
        "prometheus-alertmanager",
        f"--config.file={config}",
        f"--storage.path={folder}",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    async with started(command, port, folder / "log") as pid:
        # Not warmed: what it was told of it keeps, and looks at again and again.
        load = partial(_posting, f"http://{HOST}:{port}/api/v2/alerts", place.folder, "alert")
        before, spent = sink.received(), cpu_seconds(pid)
        posted = await load(place.seconds)
        total, last = await sink.wait_for(before + posted.count)
        count = total - before  # of what is posted faster than it carries, it may drop some
        cpu = (cpu_seconds(pid) - spent) / max(count, 1) * 1e6
        return Round(count, count / (last - posted.began), posted.count / posted.seconds, cpu, rss_mib(pid))


_SYNC = re.compile(r"^\d+ +(?:fdatasync|fsync)\(", re.MULTILINE)
_TRACED = 2.0


async def syncs(place: Place, parts: str) -> dict[str, float]:
    """fsyncs per event of (c), (d) or both, of rounds of their own: strace stops a process at these calls alone, and
    elsewhere not at all, but what it measures would not be believed."""
    if which("strace") is None:
        return {}
    found: dict[str, float] = {}
    for name in parts:
        match = "{model: another}" if name == "c" else "{action: publish}"
        folder = place.sub(f"syncs-{name}")
        trace = folder / "trace"
        prefix = ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=fdatasync,fsync", "-e", "signal=none"]
        prefix += ["-o", str(trace)]
        async with nginx(folder) as sink:
            config = SOURCES + "routes:\n" + route("r", sink.url, match)
            try:
                async with relay(folder, config, prefix) as (made, pid):
                    before = len(_SYNC.findall(trace.read_text()))
                    load = partial(_posting, f"{made.public}/in/blog", folder, "strapi")
                    done = await (answered(load, pid, _TRACED) if name == "c" else carried(load, pid, sink, _TRACED))
                    await asyncio.sleep(0.1)  # strace writes behind
                    found[name] = (len(_SYNC.findall(trace.read_text())) - before) / done.events
            except AssertionError:  # no right to trace
                return {}
    return found
