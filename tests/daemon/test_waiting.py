"""What is due and not sent says what it waits for, wherever an operator looks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from tests.cli.running import run
from tests.daemon.test_admin import LATER, body, relay_and_sink
from tests.daemon.test_order import ANY
from tests.fakes import ManualClock
from tests.harness import Received, Relay, relay_process, sink


async def shown(running: Relay, item: dict[str, Any]) -> Any:
    return (await running.get(f"/logs/{item['id']}"))["waits_for"]


async def waiting(running: Relay) -> dict[str, Any]:
    """The last one of two."""
    items = await running.logs_when(
        lambda items: len(items) == 2 and items[1]["attempts"] == 1 and items[0]["status"] == "pending"
    )
    return items[0]


async def test_what_a_rate_holds_back_names_it_and_when_it_lets_the_next_one_out(tmp_path: Path) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}, rate: 1/h", clock=clock) as (running, _):
        for _ in range(2):
            await running.post("/in/any")
        item = await waiting(running)
        said = "the rate of its route lets the next one out at 2026-11-23T13:00:00.000Z, the oldest first"
        assert await shown(running, item) == {"code": "rate", "message": said}
        status, retried = await running.ask("POST", f"/logs/{item['id']}/retry")
        assert (status, retried["delivery"]["status"], retried["waits_for"]["message"]) == (200, "pending", said)
        async with running.session.get(f"{running.admin}/ui/logs/{item['id']}") as page:
            assert f"It is due, but waits: {said}." in await page.text()
        assert running.running is not None
        clock.advance(301)
        running.running.dispatcher.progress_at = clock.monotonic()
        assert (await running.get("/health"))["checks"]["overdue"] == (
            f"a delivery of route r has been due since 2026-11-23T12:00:00.000Z: {said}"
        )


async def test_what_waits_for_another_one_of_its_lane_names_it_until_it_may_go(tmp_path: Path) -> None:
    clock, entry = ManualClock(), f"name: r, to: {{url: SINK}}, order: route, {LATER}"
    async with relay_and_sink(tmp_path, entry, answer=lambda r: 503, clock=clock) as (running, destination):
        for _ in range(2):
            await running.post("/in/any")
        second = await waiting(running)
        [first] = await running.logs_when(lambda items: items, "?order=asc&limit=1")
        said = f"{first['id']} goes before it in its lane (order)"
        assert await shown(running, second) == {"code": "lane", "message": said}
        assert await shown(running, first) is None  # its time has not come
        assert (await running.ask("POST", f"/logs/{second['id']}/retry"))[1]["waits_for"]["code"] == "lane"
        await running.ask("POST", f"/logs/{first['id']}/cancel")
        await destination.wait_count(2)
        assert await shown(running, second) is None


async def test_what_waits_for_a_slot_or_for_a_probe_says_so(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer(received: Received) -> int:
        await release.wait()
        return 503

    entry = f"name: r, to: {{url: SINK}}, concurrency: 1, unhealthy_after: 1, {LATER}"
    async with relay_and_sink(tmp_path, entry, answer=answer, clock=ManualClock()) as (running, destination):
        for _ in range(2):
            await running.post("/in/any")
        await destination.wait_count(1)
        items = await running.logs_when(lambda items: len(items) == 2)
        said = {frozenset((waits or {"code": "sent"}).items()) for waits in [await shown(running, i) for i in items]}
        slot = {"code": "concurrency", "message": "1 of its route are being sent, and no more may be at once"}
        assert said == {frozenset({"code": "sent"}.items()), frozenset(slot.items())}
        release.set()
        second = await waiting(running)
        probe = "its route is unhealthy: the next probe of it goes out at 2026-11-23T12:00:30.000Z"
        assert await shown(running, second) == {"code": "health", "message": probe}
        # Who is tried by hand is the probe, at once.
        assert (await running.ask("POST", f"/logs/{second['id']}/retry"))[1]["waits_for"] is None
        await destination.wait_count(2)


async def test_health_names_the_route_with_the_oldest_and_how_many_others_there_are(tmp_path: Path) -> None:
    clock = ManualClock()
    entries = [f"name: {name}, to: {{url: SINK}}, match: {{model: {name}}}, {LATER}" for name in ("a", "b", "c")]
    async with relay_and_sink(tmp_path, *entries, answer=lambda r: 503, clock=clock) as (running, _):
        for name in ("b", "a", "c"):
            await running.post("/in/any", body(model=name))
            await running.logs_when(lambda items: items and items[0]["attempts"] == 1)
            clock.advance(1)
        assert running.running is not None
        await running.running.dispatcher.stop()
        others = ("", "; as have some of 1 other route", "; as have some of 2 other routes")
        for seconds, more in zip((3600 + 298, 1, 1), others, strict=True):
            clock.advance(seconds)
            running.running.dispatcher.progress_at = clock.monotonic()
            said = (await running.get("/health"))["checks"]["overdue"]
            assert said == f"a delivery of route b has been due since 2026-11-23T13:00:00.000Z{more}"


async def test_the_command_line_says_it_too_and_of_a_lane_also_without_a_daemon(tmp_path: Path) -> None:
    async with sink(lambda r: 503) as destination:
        text = f"{ANY}routes: [{{name: r, to: {{url: '{destination.url}'}}, order: route, {LATER}}}]\n"
        async with relay_process(tmp_path, text) as relay, aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.post(f"{relay.public}/in/any", data=b"{}") as taken:
                    assert taken.status == 200
            where = "--url", relay.admin
            first, second = (await asyncio.to_thread(run, "logs", "--order", "asc", "--json", *where)).json["items"]
            said = f"{first['id']} goes before it in its lane (order)"
            ended = await asyncio.to_thread(run, "retry", second["id"], *where)
            assert (ended.code, ended.out) == (0, f"{second['id']}: pending, due now, but waits: {said}\n")
            shown = await asyncio.to_thread(run, "show", second["id"], *where)
            assert f"\n  waits for  lane: {said}\n" in shown.out
            await relay.stop()
            nobody = relay.config.read_text().replace('admin: {listen: "127.0.0.1:0"', 'admin: {listen: "127.0.0.1:9"')
            relay.config.write_text(nobody)
            shown = await asyncio.to_thread(run, "show", second["id"], "--config", relay.config)
            assert f"\n  waits for  lane: {said}\n" in shown.out
