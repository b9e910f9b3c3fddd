"""Route health through a whole relay: probes, recovery, pauses; how slots are shared; what no queue takes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relay import health
from tests.harness import Received, Relay, answered, relay_here, sink

ANY = """
sources:
  any: {type: generic, verify: none, map: {model: body.model, action: body.action, entry_id: body.id}}
"""


def routes(*entries: str, more: str = "") -> str:
    return ANY + more + "routes:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


async def state(relay: Relay, name: str = "r") -> dict[str, Any]:
    return next(route for route in (await relay.get("/health"))["routes"] if route["name"] == name)


async def when_state(relay: Relay, wanted: str, name: str = "r") -> dict[str, Any]:
    return await answered(partial(state, relay, name), lambda found: found["state"] == wanted)


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second where an operator waits half a minute."""
    monkeypatch.setattr(health, "FIRST_PROBE", timedelta(seconds=0.05))
    monkeypatch.setattr(health, "LONGEST_PROBE", timedelta(seconds=0.2))


@pytest.mark.usefixtures("quick_probes")
async def test_a_dead_destination_is_probed_and_gets_everything_once_when_it_is_back(tmp_path: Path) -> None:
    well = False
    policy = "retry: {policy: fixed, every: 10ms, attempts: 3, jitter: 0}, unhealthy_after: 3, concurrency: 4"
    async with sink(lambda request: 200 if well else 503) as destination, sink() as chat:
        told = f"notifiers: {{chat: {{type: webhook, url: '{chat.url}'}}}}\n"
        text = routes(f"name: r, to: {{url: '{destination.url}'}}, notify: chat, {policy}", more=told)
        async with relay_here(tmp_path, text) as relay:
            for number in range(100):
                await relay.post("/in/any", b'{"id":%d}' % number)
            unwell = await when_state(relay, "unhealthy")
            assert "503" in unwell["reason"]
            assert (await relay.get("/health"))["status"] == "degraded"
            before = len(destination.received)
            await destination.wait_count(before + 3)
            probes = destination.received[-3:]
            assert probes[-1].id != probes[-2].id, "another one each time"
            failed = await relay.get("/logs?status=failed&limit=1000")
            well = True
            received = await destination.wait_for(
                lambda seen: sum(1 for _ in {request.id for request in seen}) == 100 and len(seen) > before
            )
            items = await relay.logs_when(
                lambda items: all(item["status"] in ("delivered", "failed") for item in items), "?limit=1000"
            )
            assert (await when_state(relay, "healthy"))["consecutive_failures"] == 0
            # What failed for good did so before the route was given up; while it was, no attempts were used up.
            assert [item for item in items if item["status"] == "failed"] == failed["items"]
            delivered = {item["id"]: item for item in items if item["status"] == "delivered"}
            assert len(delivered) >= 100 - 4
            arrived = Counter(request.id for request in received)
            for number, item in enumerate(delivered.values()):
                assert arrived[item["id"]] == item["attempts"]
                if number < 5:
                    detail = await relay.get(f"/logs/{item['id']}")
                    assert [each["response"]["status"] for each in detail["attempts"]][-1] == 200
            kinds = [json.loads(request.body)["kind"] for request in await chat.wait_count(2)]
            assert kinds == ["unhealthy", "recovered"]


async def test_a_pause_and_a_resume_by_hand_are_told_at_once_which_shows_that_a_notifier_works(tmp_path: Path) -> None:
    async with sink() as chat:
        told = f"notifiers: {{chat: {{type: webhook, url: '{chat.url}'}}}}\n"
        text = routes("name: r, to: {url: 'http://127.0.0.1:9'}, notify: chat", more=told)
        async with relay_here(tmp_path, text) as relay:
            for deed, kind in (("pause?reason=a+try", "paused"), ("resume", "recovered")):
                before = len(chat.received)
                assert (await relay.ask("POST", f"/routes/r/{deed}"))[0] == 200
                [message] = (await chat.wait_count(before + 1))[before:]
                assert json.loads(message.body)["kind"] == kind


@pytest.mark.usefixtures("quick_probes")
async def test_a_poison_event_neither_trips_a_healthy_route_nor_keeps_a_dead_one_dead(tmp_path: Path) -> None:
    well = False

    def answer(request: Received) -> int:
        if b"poison" in request.body:
            return 422
        return 200 if well else 500

    policy = "retry: {policy: fixed, every: 1h, attempts: 3}, unhealthy_after: 1"
    async with sink(answer) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: '{destination.url}'}}, {policy}")) as relay:
            for _ in range(3):
                await relay.post("/in/any", b'{"id":"poison"}')
            await relay.logs_when(lambda items: Counter(item["status"] for item in items) == {"failed": 3})
            assert (await state(relay))["state"] == "healthy"
            await relay.post("/in/any", b'{"id":"first"}')
            await when_state(relay, "unhealthy")
            await relay.post("/in/any", b'{"id":"poison"}')
            await relay.post("/in/any", b'{"id":"last"}')
            well = True
            await when_state(relay, "healthy")
            [last, poison] = (await relay.get("/logs?entry_id=last,poison&limit=2"))["items"]
            assert poison["status"] == "failed"
            detail = await relay.get(f"/logs/{poison['id']}")
            assert [attempt["trigger"] for attempt in detail["attempts"]] == ["probe"]
            await relay.logs_when(lambda items: items[0]["status"] == "delivered", f"?event_id={last['event_id']}")


@pytest.mark.usefixtures("quick_probes")
async def test_what_a_destination_never_takes_is_not_all_that_it_is_probed_with(tmp_path: Path) -> None:
    """A receiver that says 404 for an entry it does not know: its answer is one of a destination that is not well."""
    well = False

    def answer(request: Received) -> int:
        return 404 if b"poison" in request.body else 200 if well else 500

    policy = "retry: {policy: fixed, every: 1h, attempts: 3}, unhealthy_after: 1"
    async with sink(answer) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: '{destination.url}'}}, {policy}")) as relay:
            await relay.post("/in/any", b'{"id":"first"}')
            await when_state(relay, "unhealthy")
            for number in range(10):
                await relay.post("/in/any", b'{"id":"poison %d"}' % number)
            await relay.post("/in/any", b'{"id":"last"}')
            well = True
            await relay.logs_when(lambda items: items[0]["status"] == "delivered", "?entry_id=last")
            probed = [json.loads(each.body)["id"] for each in destination.received if b"poison" in each.body]
            assert probed[:10] == [f"poison {number}" for number in range(10)], "the oldest first, each once"


@pytest.mark.parametrize(
    ("answers", "policy", "reason"),
    [
        (410, "retry: none", "410"),
        (500, "retry: none, unhealthy_after: 9, disable_after: 3", "disable_after"),
        (204, "retry: prismic, disable_after: 3", "disable_after"),
    ],
)
async def test_a_route_pauses_itself_and_another_destination_gets_another_try(
    tmp_path: Path, answers: int, policy: str, reason: str
) -> None:
    async with sink(lambda request: answers) as gone, sink() as here:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: '{gone.url}'}}, {policy}")) as relay:
            for number in range(3):
                await relay.post("/in/any", b'{"id":%d}' % number)
            assert reason in (await when_state(relay, "paused"))["reason"]
            assert (await relay.get("/health"))["status"] == "degraded"
            await relay.post("/in/any", b'{"id":"late"}')
            [held, *_] = await relay.logs_when(lambda items: items[0]["status"] == "held")
            assert held["entry_id"] == "late"
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace(gone.url, here.url))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            assert json.loads(here.received[-1].body) == {"id": "late"}
            assert (await state(relay))["state"] == "healthy"


async def test_a_pause_by_hand_outlives_restarts_and_other_destinations(tmp_path: Path) -> None:
    async with sink() as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}/a'}}")
        async with relay_here(tmp_path, text) as relay:
            assert (await relay.ask("POST", "/routes/pause"))[0] == 200
            assert (await relay.get("/health"))["status"] == "ok"
        async with relay_here(tmp_path, text.replace("/a", "/b")) as relay:
            ids = [(await relay.post("/in/any", b'{"id":%d}' % number))[1]["id"] for number in range(20)]
            assert (await state(relay))["held"] == 20
            assert destination.received == []
            assert (await relay.ask("POST", "/routes/resume"))[0] == 200
            await relay.logs_when(lambda items: all(item["status"] == "delivered" for item in items))
            items = (await relay.get("/logs?order=asc"))["items"]
            assert [item["event_id"] for item in items] == ids
            detail = await relay.get(f"/logs/{items[0]['id']}")
            assert detail["attempts"][0]["trigger"] == "resume"
            assert destination.received[0].id == items[0]["id"], "the oldest first, and alone"
            assert destination.received[0].path == "/b"


async def test_when_a_route_last_worked_and_what_went_wrong_outlives_restarts(tmp_path: Path) -> None:
    async with sink(lambda request: 422 if request.path == "/bad" else 200) as destination:
        text = routes(
            f"name: good, to: {{url: '{destination.url}/good'}}", f"name: bad, to: {{url: '{destination.url}/bad'}}"
        )
        async with relay_here(tmp_path, text) as relay:
            await relay.post("/in/any", b"{}")
            await relay.logs_when(lambda items: {item["status"] for item in items} == {"delivered", "failed"})
            before = {route["name"]: route for route in (await relay.get("/routes"))["routes"]}
            assert before["good"]["last_success_at"]
            assert before["bad"]["last_error"]["code"] == "refused"
        async with relay_here(tmp_path, text) as relay:
            assert {route["name"]: route for route in (await relay.get("/routes"))["routes"]} == before


async def test_one_slot_serves_retries_and_new_events_by_turns(tmp_path: Path) -> None:
    broken = True

    def answer(request: Received) -> int:
        return 500 if broken and b"old" in request.body else 200

    policy = "concurrency: 1, unhealthy_after: 1000, retry: {policy: fixed, every: 300ms, attempts: 100, jitter: 0}"
    async with sink(answer) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: '{destination.url}'}}, {policy}")) as relay:
            for number in range(40):
                await relay.post("/in/any", b'{"id":"old%d"}' % number)
            await relay.logs_when(lambda items: all(item["attempts"] for item in items))
            broken = False
            start = len(destination.received)

            async def stream() -> None:
                for number in range(10_000):
                    await relay.post("/in/any", b'{"id":"new%d"}' % number)

            streaming = asyncio.ensure_future(stream())  # noqa: TID251 - cancelled below
            try:
                await destination.wait_for(
                    lambda seen: (
                        sum(b"old" in request.body for request in seen[start:]) == 40
                        and sum(b"new" in request.body for request in seen[start:]) >= 40
                    )
                )
            finally:
                streaming.cancel()
            ids = [json.loads(request.body)["id"] for request in destination.received[start:]]
            first_new = next(place for place, each in enumerate(ids) if each.startswith("new"))
            last_old = max(place for place, each in enumerate(ids) if each.startswith("old"))
            assert first_new < last_old, "both make progress"


async def test_a_full_queue_refuses_its_own_deliveries_and_nothing_else(tmp_path: Path) -> None:
    hanging = asyncio.Event()

    async def hang(request: Received) -> int:
        await hanging.wait()
        return 200

    async with sink(hang) as dead, sink() as alive, sink() as chat:
        text = routes(
            f"name: dead, to: {{url: '{dead.url}'}}, max_pending: 5, notify: [chat]",
            f"name: alive, to: {{url: '{alive.url}'}}",
            more=f"notifiers: {{chat: {{type: webhook, url: '{chat.url}'}}}}\n",
        )
        async with relay_here(tmp_path, text) as relay:
            answers = await asyncio.gather(*(relay.post("/in/any", b'{"id":%d}' % number) for number in range(20)))
            assert [status for status, _ in answers] == [200] * 20
            await alive.wait_count(20)
            items = await relay.logs_when(lambda items: len(items) == 20, "?route=dead")
            assert Counter(item["status"] for item in items) == {"pending": 5, "failed": 15}
            assert {item["error"]["code"] for item in items if item["error"]} == {"queue_full"}
            [message] = await chat.wait_count(1)
            assert json.loads(message.body)["kind"] == "queue_full"
            hanging.set()
            await relay.logs_when(lambda items: not items, "?route=dead&status=pending")


async def test_a_rate_is_kept(tmp_path: Path) -> None:
    async with sink() as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}, rate: 50/s, concurrency: 16")
        async with relay_here(tmp_path, text) as relay:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await asyncio.gather(*(relay.post("/in/any", b'{"id":%d}' % number) for number in range(120)))
            await destination.wait_count(120)
            # One second's worth may have been saved up since the start: the others cannot have gone in less.
            assert loop.time() - began >= (120 - 50) / 50 - 0.05


async def test_what_is_resumed_leaves_slots_to_first_attempts(tmp_path: Path) -> None:
    broken = True

    async def answer(request: Received) -> int:
        if broken:
            return 500
        await asyncio.sleep(0.02)
        return 200

    policy = "concurrency: 4, unhealthy_after: 1000, retry: {policy: fixed, every: 10ms, attempts: 99, jitter: 0}"
    async with sink(answer) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: '{destination.url}'}}, {policy}")) as relay:
            for number in range(60):
                await relay.post("/in/any", b'{"id":"old%d"}' % number)
            await relay.logs_when(lambda items: all(item["attempts"] for item in items))
            assert (await relay.ask("POST", "/routes/r/pause"))[0] == 200
            broken, before = False, len(destination.received)
            for number in range(10):
                await relay.post("/in/any", b'{"id":"new%d"}' % number)  # held, and let go with the others
            assert (await relay.ask("POST", "/routes/r/resume"))[0] == 200
            await relay.logs_when(lambda items: all(item["status"] == "delivered" for item in items))
            arrived = [json.loads(request.body)["id"] for request in destination.received[before:]]
            last_new = max(place for place, each in enumerate(arrived) if each.startswith("new"))
            assert last_new < 40, "one of two at least, though sixty older ones wait"


@pytest.mark.usefixtures("quick_probes")
async def test_probes_keep_the_rate(tmp_path: Path) -> None:
    policy = "unhealthy_after: 1, rate: 20/s, retry: {policy: fixed, every: 1h, attempts: 9}"
    async with sink(lambda request: 422 if b"poison" in request.body else 500) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: '{destination.url}'}}, {policy}")) as relay:
            await relay.post("/in/any", b'{"id":"first"}')
            await when_state(relay, "unhealthy")
            loop = asyncio.get_running_loop()
            began, before = loop.time(), len(destination.received)
            for number in range(25):
                await relay.post("/in/any", b'{"id":"poison%d"}' % number)
            await relay.logs_when(lambda items: sum(item["status"] == "failed" for item in items) == 25)
            made = len(destination.received) - before
            # One second's worth may have been saved up: the others cannot have gone in less time.
            assert loop.time() - began >= (made - 20) / 20 - 0.05
