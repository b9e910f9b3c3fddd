"""A destination is dead for five minutes and comes back: who is tried when meanwhile, and how it begins afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

from relay import health
from tests.cli.running import free_ports
from tests.harness import Received, Relay, relay_here, sink
from tests.torture.row import Figure, Place
from tests.torture.sinks import began_slowly

_FASTER = 30  # times, in the quick run: all of the policy, the probes and the outage; the long one is at full length
_OUTAGE = 300.0  # seconds
_FIRST, _FACTOR, _JITTER = 5.0, 4, 0.2  # the default policy
_LATE = 0.25  # seconds in which an attempt begins that is due, on a machine that does much else
_WAITING = 100
_UNWELL_AFTER, _CONCURRENCY = 5, 8  # what a route has unless it says
_PROBES = (30.0, 60.0, 120.0, 240.0)  # seconds between them


@contextmanager
def _faster(times: int) -> Iterator[None]:
    """Probes so many times as soon."""
    first, longest = health.FIRST_PROBE, health.LONGEST_PROBE
    health.FIRST_PROBE, health.LONGEST_PROBE = first / times, longest / times
    try:
        yield
    finally:
        health.FIRST_PROBE, health.LONGEST_PROBE = first, longest


def _began(attempt: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(attempt["started_at"])


async def _attempts(relay: Relay, route: str) -> list[dict[str, Any]]:
    """All of a route's, in the order in which they began."""
    items = (await relay.get(f"/logs?route={route}&limit=1000"))["items"]
    details = [await relay.get(f"/logs/{item['id']}") for item in items]
    return sorted((each for detail in details for each in detail["attempts"]), key=_began)


def _off(gaps: list[float], wanted: list[float], jitter: float) -> list[str]:
    """Those that are not as they should be."""
    return [
        f"{gap:.2f} s where {want:g} s were due"
        for gap, want in zip(gaps, wanted, strict=False)
        if not want * (1 - jitter) - 0.01 <= gap <= want * (1 + jitter) + _LATE
    ]


def _gaps(attempts: list[dict[str, Any]]) -> list[float]:
    moments = [_began(attempt) for attempt in attempts]
    return [(later - sooner).total_seconds() for sooner, later in pairwise(moments)]


async def over(place: Place) -> Figure:
    """Off and on again."""
    times = _FASTER if place.count == 1 else 1
    under_way: list[int] = []
    now_under_way = 0

    async def answer(request: Received) -> int:
        nonlocal now_under_way
        if request.path == "/probed":
            now_under_way += 1
            under_way.append(now_under_way)
            await asyncio.sleep(0.02)  # so that others may come meanwhile
            now_under_way -= 1
        return 200

    [port] = free_ports(1)  # one that the kernel gives nobody while nobody listens there
    url = f"http://127.0.0.1:{port}"
    retry = f"retry: {{policy: exponential, first: {round(_FIRST * 1000 / times)}ms, factor: {_FACTOR}, attempts: 10}}"
    text = (
        "log: {level: error}\n"
        "sources: {any: {type: generic, verify: none, map: {model: body.to}}}\nroutes:\n"
        f"  - {{name: scheduled, match: {{model: s}}, to: {{url: '{url}/s'}}, {retry}, unhealthy_after: 1000000}}\n"
        f"  - {{name: probed, match: {{model: p}}, to: {{url: '{url}/probed'}}, {retry}}}\n"
    )
    with _faster(times):
        async with relay_here(place.folder, text) as relay:
            await relay.post("/in/any", b'{"to":"s"}')
            for _ in range(_WAITING):
                await relay.post("/in/any", b'{"to":"p"}')
            await asyncio.sleep(_OUTAGE / times)  # as long as it is to be dead
            tried = await _attempts(relay, "probed")
            scheduled = await _attempts(relay, "scheduled")
            async with sink(answer, port) as again:
                async with asyncio.timeout(2 * _PROBES[-1] / times):
                    while len(again.received) < _WAITING + 1:
                        await asyncio.sleep(0.01)
                await relay.logs_when(lambda items: not items, "?status=pending")
                later = await _attempts(relay, "probed")
    ordinary = [each for each in tried if each["trigger"] != "probe"]
    probes = [each for each in tried if each["trigger"] == "probe"]
    unwell = _began(ordinary[_UNWELL_AFTER - 1])
    between = [(_began(probes[0]) - unwell).total_seconds(), *_gaps(probes)] if probes else []
    wrong = _off(_gaps(scheduled), [_FIRST * _FACTOR**n / times for n in range(9)], _JITTER)
    wrong += _off(between, [each / times for each in _PROBES], 0.0)
    if len(probes) != sum(sum(_PROBES[: n + 1]) < _OUTAGE for n in range(len(_PROBES))):
        wrong.append(f"{len(probes)} probes")
    if not _UNWELL_AFTER <= len(ordinary) < _UNWELL_AFTER + _CONCURRENCY:
        wrong.append(f"{len(ordinary)} ordinary attempts before it was found unhealthy")
    if later[len(tried)]["trigger"] != "probe" or not began_slowly(under_way) or max(under_way) > _CONCURRENCY:
        wrong.append(f"it began with {under_way[:10]} at once")
    pace = f"{times} times as fast" if times > 1 else "at full length"
    return Figure(
        f"dead for {_OUTAGE / 60:g} min, {pace}: {len(scheduled)} attempts by the schedule, {len(ordinary)} until it"
        f" was found unhealthy, then {len(probes)} probes one by one; afterwards one, then up to {max(under_way)} at"
        f" once, all {_WAITING + 1} delivered; wrong: {'; '.join(wrong) or 'nothing'}",
        not wrong and len(scheduled) >= 3,
    )
