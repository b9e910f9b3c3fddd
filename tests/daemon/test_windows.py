"""Debounce and batch through a whole relay: many events, few requests, nothing lost and nothing twice."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.harness import PATIENCE, Received, Relay, relay_here, relay_process, sink

ANY = """
sources:
  any:
    type: generic
    verify: none
    map: {model: body.model, action: body.action, entry_id: body.id, locale: body.locale}
"""


def route(url: str, more: str) -> str:
    return f"{ANY}routes: [{{name: build, to: {{url: '{url}'}}, {more}}}]\n"


def body(number: int, **more: str) -> bytes:
    return json.dumps({"id": str(number), "action": "publish", "model": "post", **more}).encode()


def told(requests: list[Received]) -> list[str]:
    """The ids of all events that requests speak of."""
    return [event["id"] for request in requests for event in json.loads(request.body)["events"]]


async def sent(relay: Relay, numbers: range, **more: str) -> list[str]:
    """Events, one after another; their ids."""
    ids = []
    for number in numbers:
        status, answer = await relay.post("/in/any", body(number, **more))
        assert (status, answer["routes"]) == (200, ["build"])
        ids.append(answer["id"])
    return ids


async def all_done(relay: Relay, count: int) -> list[dict[str, Any]]:
    """The log, once nothing waits and so many deliveries are in it."""
    return await relay.logs_when(
        lambda items: len(items) == count and all(item["status"] in ("delivered", "merged") for item in items),
        "?limit=1000",
    )


async def test_many_publishes_make_few_builds_and_each_event_is_told_of_once(tmp_path: Path) -> None:
    debounce = "payload: normalized, debounce: {wait: 150ms, max_wait: 500ms}"
    async with sink() as destination, relay_here(tmp_path, route(destination.url, debounce)) as relay:
        ids: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while len(destination.received) < 2:  # the stream never pauses: max_wait ends each window
                ids += await sent(relay, range(10))
                await asyncio.sleep(0.02)  # a stream, not a flood: a page of the log holds all of it
        items = await all_done(relay, len(ids))
        assert sorted(told(destination.received)) == sorted(ids)
        assert len(destination.received) <= 4
        carriers = {item["id"]: item for item in items if item["status"] == "delivered"}
        assert {request.id for request in destination.received} == carriers.keys()
        assert {item["merged_into"] for item in items if item["status"] == "merged"} <= carriers.keys()
        for request in destination.received:
            detail = await relay.get(f"/logs/{request.id}")
            events = [event["id"] for event in json.loads(request.body)["events"]]
            assert [detail["event"]["id"], *detail["merged"]] == events
            assert json.loads(request.body)["id"] == events[-1], "the last one is what it is about"


async def test_a_window_of_one_event_says_so(tmp_path: Path) -> None:
    debounce = "payload: normalized, debounce: {wait: 10ms}"
    async with sink() as destination, relay_here(tmp_path, route(destination.url, debounce)) as relay:
        ids = await sent(relay, range(1))
        [request] = await destination.wait_count(1)
        assert told([request]) == ids


async def test_by_splits_windows(tmp_path: Path) -> None:
    debounce = "payload: normalized, debounce: {wait: 100ms, by: [locale]}"
    async with sink() as destination, relay_here(tmp_path, route(destination.url, debounce)) as relay:
        german = await sent(relay, range(3), locale="de")
        unsaid = await sent(relay, range(2))
        await destination.wait_count(2)
        await all_done(relay, 5)
        assert sorted(sorted(told([request])) for request in destination.received) == sorted(
            [sorted(german), sorted(unsaid)]
        )


async def test_a_batch_is_an_array_of_the_bodies_as_they_came(tmp_path: Path) -> None:
    batch = "batch: {max: 3, wait: 100ms}"
    async with sink() as destination, relay_here(tmp_path, route(destination.url, batch)) as relay:
        await sent(relay, range(7))
        await destination.wait_count(3)
        await all_done(relay, 7)
        sizes = [len(json.loads(request.body)) for request in destination.received]
        assert sorted(sizes) == [1, 3, 3]
        arrived = sorted(destination.received, key=lambda request: request.id)
        assert b"".join(request.body for request in arrived) == b"".join(
            b"[" + b",".join(body(number) for number in numbers) + b"]" for numbers in ((0, 1, 2), (3, 4, 5), (6,))
        )
        assert {request.headers["Content-Type"] for request in arrived} == {"application/json"}


async def test_a_paused_route_collects_one_window_for_all_that_comes_meanwhile(tmp_path: Path) -> None:
    debounce = "payload: normalized, debounce: {wait: 20ms, max_wait: 40ms}"
    async with sink() as destination, relay_here(tmp_path, route(destination.url, debounce)) as relay:
        assert (await relay.ask("POST", "/routes/build/pause"))[0] == 200
        ids = await sent(relay, range(30))
        [window] = (await relay.get("/windows"))["items"]
        assert (window["held"], window["events"]) == (True, ids)
        assert (await relay.ask("POST", "/routes/build/resume"))[0] == 200
        await all_done(relay, 30)
        [request] = destination.received
        assert told([request]) == ids


async def test_an_unhealthy_route_collects_until_it_is_probed(tmp_path: Path) -> None:
    well = False
    debounce = "payload: normalized, debounce: {wait: 20ms}, unhealthy_after: 1, retry: none"
    async with sink(lambda request: 200 if well else 500) as destination:
        async with relay_here(tmp_path, route(destination.url, debounce)) as relay:
            [first] = await sent(relay, range(1))
            await relay.logs_when(lambda items: items[0]["status"] == "failed")
            well = True
            ids = await sent(relay, range(20))
            [window] = (await relay.get("/windows"))["items"]
            assert window["events"] == ids, "a window that failed swallows nothing"
            assert (await relay.ask("POST", "/routes/build/resume"))[0] == 200
            await destination.wait_count(2)
            assert [told([request]) for request in destination.received] == [[first], ids]


async def test_a_window_can_be_held_sent_now_and_dropped(tmp_path: Path) -> None:
    debounce = "payload: normalized, debounce: {wait: 1h, by: [locale]}"
    async with sink() as destination, relay_here(tmp_path, route(destination.url, debounce)) as relay:
        ids = {locale: await sent(relay, range(2), locale=locale) for locale in ("de", "en", "fr")}
        windows = {tuple(window["events"]): window["id"] for window in (await relay.get("/windows"))["items"]}
        german, english, french = (windows[tuple(ids[locale])] for locale in ("de", "en", "fr"))
        assert (await relay.ask("POST", f"/windows/{german}/hold"))[0] == 200
        ids["de"] += await sent(relay, range(1), locale="de")
        assert (await relay.ask("POST", f"/windows/{french}/cancel"))[0] == 200
        assert (await relay.ask("POST", f"/windows/{english}/flush"))[0] == 200
        [request] = await destination.wait_count(1)
        assert told([request]) == ids["en"]
        assert (await relay.ask("POST", "/routes/build/pause"))[0] == 200
        assert (await relay.ask("POST", "/routes/build/resume"))[0] == 200
        [window] = (await relay.get("/windows"))["items"]
        assert (window["id"], window["held"], window["events"]) == (german, True, ids["de"])
        assert (await relay.ask("POST", f"/windows/{german}/flush"))[0] == 200
        await destination.wait_count(2)
        assert told(destination.received[1:]) == ids["de"]
        assert (await relay.ask("POST", f"/windows/{german}/flush"))[0] == 409
        assert (await relay.ask("POST", f"/windows/{french}/flush"))[0] == 409
        assert (await relay.get("/windows"))["items"] == []
        [dropped] = (await relay.get(f"/logs?event_id={ids['fr'][0]}"))["items"]
        assert dropped["status"] == "cancelled"


async def test_delay_starts_when_a_window_closes(tmp_path: Path) -> None:
    async with sink() as destination:
        both = "debounce: {wait: 1h}, delay: 1h"
        async with relay_here(tmp_path, route(destination.url, both)) as relay:
            await sent(relay, range(2))
            [window] = (await relay.get("/windows"))["items"]
            waits = datetime.fromisoformat(window["due_at"]) - datetime.fromisoformat(window["opened_at"])
            assert timedelta(hours=2) <= waits < timedelta(hours=2, minutes=1)
            [item] = (await relay.get("/logs?status=pending"))["items"]
            assert item["next_attempt_at"] == window["due_at"]


@pytest.mark.parametrize("kind", ["debounce: {wait: 1m, max_wait: 2m}", "batch: {max: 100, wait: 2m}"])
async def test_an_open_window_outlives_kill_9_and_a_reload_does_not_move_it(tmp_path: Path, kind: str) -> None:
    async with sink() as destination:
        text = route(destination.url, f"payload: normalized, {kind}")
        async with relay_process(tmp_path, text) as relay, aiohttp.ClientSession() as session:

            async def post(number: int) -> str:
                async with session.post(f"{relay.public}/in/any", data=body(number)) as response:
                    return str(json.loads(await response.read())["id"])

            async def windows() -> list[dict[str, Any]]:
                async with session.get(f"{relay.admin}/windows") as response:
                    items: list[dict[str, Any]] = json.loads(await response.read())["items"]
                    return items

            ids = [await post(number) for number in range(3)]
            before = await windows()
            relay.kill()
            await relay.start()
            assert await windows() == before
            ids += [await post(3)]
            [window] = await windows()
            async with session.post(f"{relay.admin}/reload") as response:
                assert response.status == 200
            assert await windows() == [window]
            assert window["events"] == ids
            async with session.post(f"{relay.admin}/windows/{window['id']}/flush") as response:
                assert response.status == 200
            [request] = await destination.wait_count(1)
            assert told([request]) == ids
