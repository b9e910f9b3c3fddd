"""What people do by hand, over real HTTP: retry, cancel, replay, forget, pause, resume, test, move, windows."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from relay import journal, samples
from relay.source import types
from relay.store import Unavailable
from relay.tally import MOST_REASONS, OTHER
from relay.web.sources import proofs
from tests.contract.test_sources import CASES, NOW, several
from tests.daemon.test_admin import (
    LATER,
    NEVER_AGAIN,
    OPERATE,
    READ,
    TOKENS,
    bearer,
    body,
    relay_and_sink,
    request,
    routes,
)
from tests.fakes import ManualClock
from tests.harness import Received, Relay, relay_here, sink
from tests.several import until

WINDOWS = "debounce: {wait: 30s, max_wait: 10m}"
NOBODY = "evt_00000000000000000000000000", "dlv_00000000000000000000000000"


async def post(running: Relay, path: str, status: int = 200, **options: Any) -> Any:
    found, answer = await running.ask("POST", path, **options)
    assert found == status, answer
    if status >= 400:
        assert {"error", "detail"} <= answer.keys()
        assert answer["error"] == {400: "bad_filter", 404: "not_found", 409: "wrong_state", 503: "unavailable"}[status]
    return answer


async def states(running: Relay, query: str = "") -> list[str]:
    """States of deliveries, the oldest first."""
    return [item["status"] for item in (await running.get(f"/logs?order=asc&limit=1000{query}"))["items"]]


def lines(captured: pytest.CaptureFixture[bytes], event: str) -> list[dict[str, Any]]:
    """The journal's lines of an event."""
    journal.outlet.drain(10)
    found = [json.loads(line) for line in captured.readouterr().err.splitlines()]
    return [line for line in found if line["event"] == event]


class Dam:
    """A destination that answers when it is let."""

    def __init__(self, status: int = 200) -> None:
        self.open = asyncio.Event()
        self.status = status

    async def __call__(self, received: Received) -> int:
        await self.open.wait()
        return self.status


class Mood:
    """A destination that answers with a status that can be changed."""

    def __init__(self, status: int = 200) -> None:
        self.status = status

    def __call__(self, received: Received) -> int:
        return self.status


# -- retry -----------------------------------------------------------------------------------------------------------


async def test_a_retry_of_what_is_being_sent_counts_when_that_has_failed(tmp_path: Path) -> None:
    dam = Dam(503)
    async with relay_and_sink(tmp_path, f"name: r, to: {{url: SINK}}, {LATER}", answer=dam) as (running, there):
        await running.post("/in/any")
        await there.wait_count(1)
        [item] = (await running.get("/logs"))["items"]
        await post(running, f"/logs/{item['id']}/retry")
        dam.open.set()
        await there.wait_count(2)  # and not an hour later
        await running.logs_when(lambda items: items[0]["attempts"] == 2)


async def test_a_retry_on_a_route_that_may_not_send_is_held(tmp_path: Path) -> None:
    mood = Mood(500)
    async with relay_and_sink(tmp_path, f"name: r, to: {{url: SINK}}, {NEVER_AGAIN}", answer=mood) as (running, _):
        await running.post("/in/any")
        [item] = await running.logs_when(lambda items: items[0]["status"] == "failed")
        await post(running, "/routes/r/pause")
        assert (await post(running, f"/logs/{item['id']}/retry"))["delivery"]["status"] == "held"
        mood.status = 200
        assert (await post(running, "/routes/r/resume"))["released"] == 1
        await running.logs_when(lambda items: items[0]["status"] == "delivered")


async def test_many_are_retried_by_filters_and_a_dry_run_only_counts(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    mood = Mood(500)
    entries = (f"name: {name}, to: {{url: SINK}}, {NEVER_AGAIN}" for name in ("a", "b"))
    async with relay_and_sink(tmp_path, *entries, answer=mood) as (running, there):
        for model in ("post", "post", "page"):
            await running.post("/in/any", body(model=model))
        await running.logs_when(lambda items: len(items) == 6, "?status=failed")
        mood.status = 200
        for query, count in {
            "route=a": 3, "route=a,b&model=page": 2, "status=failed&model=post": 4, "all=1": 6, "since=1h": 6,
            "until=1h": 0, "route=nobody": 0, "status=failed": 6,
        }.items():  # fmt: skip
            answer = await post(running, f"/logs/retry?{query}&dry_run=1")
            assert answer == {"count": count, "held": 0, "passed_over": 0}, query
        assert len(there.received) == 6
        assert lines(capsysbinary, "manual_action") == []
        assert await post(running, "/logs/retry?route=a&model=post") == {"count": 2, "held": 0, "passed_over": 0}
        await running.logs_when(lambda items: len(items) == 2, "?status=delivered&route=a&model=post")
        assert await post(running, "/logs/retry?all=1&dry_run=0") == {"count": 4, "held": 0, "passed_over": 0}
        await running.logs_when(lambda items: len(items) == 6, "?status=delivered")
        told = [(line["who"], line["count"], line["query"]) for line in lines(capsysbinary, "manual_action")]
        assert told == [("anonymous", 2, "route=a&model=post"), ("anonymous", 4, "all=1&dry_run=0")]


async def test_what_is_retried_by_filters_goes_out_at_once_also_while_the_route_is_unhealthy(tmp_path: Path) -> None:
    mood = Mood(500)
    entry = f"name: r, to: {{url: SINK}}, unhealthy_after: 1, {NEVER_AGAIN}"
    async with relay_and_sink(tmp_path, entry, answer=mood) as (running, _):
        await running.post("/in/any")
        await running.logs_when(lambda items: items[0]["status"] == "failed")
        assert (await running.get("/routes/r"))["state"] == "unhealthy"
        mood.status = 200
        assert (await post(running, "/logs/retry?route=r"))["count"] == 1
        await running.logs_when(lambda items: items[0]["status"] == "delivered")
        assert (await running.get("/routes/r"))["state"] == "healthy"


@pytest.mark.parametrize(
    ("query", "said"),
    {
        "": "no filter: name some, such as route=www, or say all=1",
        "?dry_run=1": "or say all=1",
        "?all=0": "or say all=1",
        "?all=yes": "all takes 1 or 0, not 'yes'",
        "?dry_run=true&route=r": "dry_run takes 1 or 0, not 'true'",
        "?rout=r": "unknown filter 'rout'",
        "?route=": "filter 'route' is empty",
        "?status=delivered": "status takes failed, or is left out",
        "?status=failed,rejected": "status takes failed",
        "?status=lost": "status takes",
        "?route=r&limit=10": "'limit' is for lists",
        "?all=1&order=asc": "'order' is for lists",
    }.items(),
)  # fmt: skip
async def test_a_bulk_retry_that_does_not_say_what_it_means_is_a_400(tmp_path: Path, query: str, said: str) -> None:
    async with relay_here(tmp_path, routes("name: r, to: {url: 'http://127.0.0.1:9'}")) as running:
        assert said in (await post(running, f"/logs/retry{query}", 400))["detail"]


async def test_a_bulk_retry_passes_over_what_is_out_of_date(tmp_path: Path) -> None:
    mood = Mood(500)
    entry = f"name: r, to: {{url: SINK}}, order: latest, {NEVER_AGAIN}"
    async with relay_and_sink(tmp_path, entry, answer=mood) as (running, _):
        said = {"model": "post", "stage": "published", "action": "publish", "id": "1"}
        await running.post("/in/any", body(**said))
        await running.logs_when(lambda items: items[0]["status"] == "failed")
        mood.status = 200
        await running.post("/in/any", body(**said))
        await running.logs_when(lambda items: items[0]["status"] == "delivered")
        assert await post(running, "/logs/retry?all=1") == {"count": 0, "held": 0, "passed_over": 1}
        failed = (await running.get("/logs?status=failed"))["items"][0]["id"]
        assert "something newer" in (await post(running, f"/logs/{failed}/retry", 409))["detail"]


# -- cancel ----------------------------------------------------------------------------------------------------------


async def test_what_is_cancelled_while_it_is_ready_in_memory_is_never_sent(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    dam = Dam()
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}, concurrency: 1", answer=dam) as (running, there):
        for number in "1234":
            await running.post("/in/any", body(id=number))
        await there.wait_count(1)
        items = (await running.get("/logs?order=asc"))["items"]
        answer = await post(running, f"/logs/{items[2]['id']}/cancel")
        assert (answer["delivery"]["id"], answer["delivery"]["status"]) == (items[2]["id"], "cancelled")
        dam.open.set()
        await running.logs_when(lambda items: len(items) == 3, "?status=delivered")
        assert [received.id for received in there.received] == [items[place]["id"] for place in (0, 1, 3)]
        assert await states(running) == ["delivered", "delivered", "cancelled", "delivered"]
        [line] = lines(capsysbinary, "manual_action")
        assert (line["action"], line["who"]) == ("cancel", "anonymous")
        assert (line["delivery_id"], line["route"]) == (items[2]["id"], "r")
        async with running.session.get(running.admin + "/metrics") as response:
            assert 'relay_deliveries_total{route="r",status="cancelled"} 1.0' in await response.text()


async def test_what_is_cancelled_while_it_is_being_sent_stays_so_and_its_attempt_is_told(tmp_path: Path) -> None:
    dam = Dam(503)
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", answer=dam) as (running, there):
        await running.post("/in/any")
        await there.wait_count(1)
        [item] = (await running.get("/logs"))["items"]
        await post(running, f"/logs/{item['id']}/cancel")
        dam.open.set()
        [item] = await running.logs_when(lambda items: items[0]["attempts"] == 1)
        assert item["status"] == "cancelled"
        assert (await running.get(f"/logs/{item['id']}"))["attempts"][0]["response"]["status"] == 503


async def test_the_next_one_of_a_lane_goes_on_when_the_first_is_cancelled(tmp_path: Path) -> None:
    mood = Mood(503)
    entry = f"name: r, to: {{url: SINK}}, order: entry, {LATER}"
    async with relay_and_sink(tmp_path, entry, answer=mood) as (running, there):
        for _ in range(2):
            await running.post("/in/any", body(model="post", id="1"))
        await running.logs_when(lambda items: items[1]["attempts"] == 1)
        first = (await running.get("/logs?order=asc"))["items"][0]["id"]
        mood.status = 200
        await post(running, f"/logs/{first}/cancel")
        await there.wait_count(2)
        await running.logs_when(lambda items: items[0]["status"] == "delivered")


async def test_only_what_waits_can_be_cancelled_and_a_retry_brings_it_back(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        await running.post("/in/any")
        [item] = await running.logs_when(lambda items: items[0]["status"] == "delivered")
        answer = await post(running, f"/logs/{item['id']}/cancel", 409)
        assert answer["status"] == "delivered"
        assert "it is delivered already" in answer["detail"]
        await post(running, "/routes/r/pause")
        await running.post("/in/any")
        held = (await running.get("/logs?status=held"))["items"][0]["id"]
        assert (await post(running, f"/logs/{held}/cancel"))["delivery"]["status"] == "cancelled"
        await post(running, "/routes/r/resume")
        assert (await post(running, f"/logs/{held}/retry"))["delivery"]["id"] == held
        await running.logs_when(lambda items: items[0]["status"] == "delivered")
        for id_text in NOBODY:
            assert id_text in (await post(running, f"/logs/{id_text}/cancel", 404))["detail"]


# -- replay and forget -----------------------------------------------------------------------------------------------


async def test_a_replay_makes_new_deliveries_of_the_same_event_under_todays_config(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    entries = "name: a, to: {url: SINK/a}", "name: b, match: {model: page}, to: {url: SINK/b}"
    async with relay_and_sink(tmp_path, *entries) as (running, there):
        said = body(model="post", id="1")
        event_id = (await running.post("/in/any", said))[1]["id"]
        [first] = await running.logs_when(lambda items: items[0]["status"] == "delivered")
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace("model: page", "model: post"))
        await post(running, "/reload")
        answer = await post(running, f"/events/{event_id}/replay")
        assert answer.keys() == {"id", "routes", "deliveries"}
        assert (answer["id"], answer["routes"]) == (event_id, ["a", "b"])
        items = await running.logs_when(lambda items: len(items) == 3, f"?event_id={event_id}&status=delivered")
        assert [(item["id"], item["route"]) for item in reversed(items)] == [
            (first["id"], "a"), *zip(answer["deliveries"], ("a", "b"), strict=True)
        ]  # fmt: skip
        assert [received.body for received in there.received] == [said] * 3
        answer = await post(running, f"/events/{event_id}/replay?route=b")
        assert answer["routes"] == ["b"]
        [new] = answer["deliveries"]
        await running.logs_when(lambda items: items[0]["id"] == new, "?status=delivered")
        actions = [line for line in lines(capsysbinary, "manual_action") if line["action"] == "replay"]
        assert [(line["event_id"], line["routes"], line["who"]) for line in actions] == [
            (event_id, ["a", "b"], "anonymous"), (event_id, ["b"], "anonymous")
        ]  # fmt: skip


async def test_a_replay_that_nobody_wants_or_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    entries = "name: pages, match: {model: page}, to: {url: SINK}", "name: off, enabled: false, to: {url: SINK}"
    async with relay_and_sink(tmp_path, *entries) as (running, there):
        event_id = (await running.post("/in/any", body(model="post")))[1]["id"]
        detail = (await post(running, f"/events/{event_id}/replay", 409))["detail"]
        assert "no route wants it under today's config" in detail
        assert f"relay explain {event_id}" in detail
        for name in ("pages", "off"):
            detail = (await post(running, f"/events/{event_id}/replay?route={name}", 409))["detail"]
            assert f"the route {name} does not want it" in detail
        detail = (await post(running, f"/events/{event_id}/replay?route=page", 404))["detail"]
        assert detail == "there is no route 'page' in the config (did you mean 'pages'?)"
        assert "rout" in (await post(running, f"/events/{event_id}/replay?rout=pages", 400))["detail"]
        assert "empty" in (await post(running, f"/events/{event_id}/replay?route=", 400))["detail"]
        for id_text in NOBODY:
            for action in ("replay", "forget"):
                assert id_text in (await post(running, f"/events/{id_text}/{action}", 404))["detail"]
        assert (await running.get(f"/logs/{event_id}"))["deliveries"] == []
        assert there.received == []


async def test_what_is_forgotten_has_no_body_and_no_headers_and_cannot_be_replayed(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        event_id = (await running.post("/in/any", body(model="post", id="1")))[1]["id"]
        await running.logs_when(lambda items: items[0]["status"] == "delivered")
        assert await post(running, f"/events/{event_id}/forget") == {"id": event_id, "forgotten": True}
        shown = await running.get(f"/logs/{event_id}")
        assert (shown["body"], shown["headers"]) == (None, [])
        assert shown["event"]["entry_id"] == "1"  # the description stays
        assert shown["deliveries"][0]["delivery"]["status"] == "delivered"
        detail = (await post(running, f"/events/{event_id}/replay", 409))["detail"]
        assert "its body is no longer kept" in detail
        [line] = lines(capsysbinary, "manual_action")
        assert (line["action"], line["event_id"], line["who"]) == ("forget", event_id, "anonymous")


async def test_what_is_still_to_be_sent_cannot_be_forgotten(tmp_path: Path) -> None:
    async with relay_and_sink(
        tmp_path, f"name: r, to: {{url: SINK}}, {LATER}", answer=lambda r: 503
    ) as (running, _):  # fmt: skip
        event_id = (await running.post("/in/any", b"{}"))[1]["id"]
        [item] = await running.logs_when(lambda items: items[0]["attempts"] == 1)
        answer = await post(running, f"/events/{event_id}/forget", 409)
        assert answer["status"] == "pending"
        assert f"{item['id']} is still to be sent: cancel it first" in answer["detail"]
        await post(running, f"/logs/{item['id']}/cancel")
        await post(running, f"/events/{event_id}/forget")


# -- routes ----------------------------------------------------------------------------------------------------------


async def test_a_pause_holds_what_waits_and_what_comes_and_resume_releases_it_in_order(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    dam = Dam()
    entry = "name: r, to: {url: SINK}, concurrency: 1"
    async with relay_and_sink(tmp_path, entry, answer=dam, head=TOKENS) as (running, there):
        operate: Any = {"headers": bearer(OPERATE)}
        for number in "123":
            await running.post("/in/any", body(id=number))
        await there.wait_count(1)
        answer = await post(running, "/routes/r/pause?reason=content%20freeze", **operate)
        assert answer["changed"] is True
        assert (answer["route"]["state"], answer["route"]["reason"]) == ("paused", "content freeze")
        assert await post(running, "/routes/r/pause?reason=another", **operate) == {**answer, "changed": False}
        dam.open.set()  # what was under way ends as it would have
        await running.post("/in/any", body(id="4"))

        async def shown() -> list[tuple[str, str]]:
            items = (await running.get("/logs?order=asc", **operate))["items"]
            return [(item["entry_id"], item["status"]) for item in items]

        await until(shown, lambda items: items[0][1] != "pending")
        assert await shown() == [("1", "delivered"), ("2", "held"), ("3", "held"), ("4", "held")]
        health = await running.get("/health", **operate)
        assert (health["status"], health["checks"]["routes"]) == ("ok", "ok")  # somebody wanted it so
        assert (health["routes"][0]["state"], health["routes"][0]["reason"]) == ("paused", "content freeze")
        assert len(there.received) == 1
        answer = await post(running, "/routes/r/resume", **operate)
        assert (answer["changed"], answer["released"], answer["route"]["state"]) == (True, 3, "healthy")
        await there.wait_count(4)
        assert [json.loads(received.body)["id"] for received in there.received] == list("1234")
        answer = await post(running, "/routes/r/resume", **operate)
        assert (answer["changed"], answer["released"]) == (False, 0)
        for item in (await running.get("/logs", **operate))["items"][:3]:
            detail = await running.get(f"/logs/{item['id']}", **operate)
            assert [attempt["trigger"] for attempt in detail["attempts"]] == ["resume"]
        told = [(line["action"], line["who"], line["route"], line.get("reason")) for line in lines(
            capsysbinary, "manual_action"
        )]  # fmt: skip
        assert told == [("pause", "admin", "r", "content freeze"), ("resume", "admin", "r", None)]


async def test_a_pause_outlives_a_restart_and_says_who_it_was(tmp_path: Path) -> None:
    async with sink() as there:
        text = TOKENS + routes(f"name: r, to: {{url: '{there.url}'}}")
        async with relay_here(tmp_path, text) as running:
            await post(running, "/routes/r/pause", headers=bearer(OPERATE))
        async with relay_here(tmp_path, text) as running:
            await running.post("/in/any")
            route = await running.get("/routes/r", headers=bearer(READ))
            assert (route["state"], route["reason"], route["held"]) == ("paused", "by hand (admin)", 1)
            await post(running, "/routes/r/resume", headers=bearer(OPERATE))
            await there.wait_count(1)


async def test_a_pause_that_cannot_be_written_down_holds_but_is_not_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, there):
        assert running.running is not None

        async def full(*_: Any, **__: Any) -> None:
            raise Unavailable("no space")

        with monkeypatch.context() as patch:
            patch.setattr(running.running.store, "save_states", full)
            assert "a restart may undo it" in (await post(running, "/routes/r/pause", 503))["detail"]
        await running.post("/in/any")
        assert await states(running) == ["held"]
        assert (await post(running, "/routes/r/pause"))["changed"] is False
        saved = await running.running.store.states("route")
        assert saved["r"]["state"] == "paused"
        assert there.received == []


async def test_all_routes_are_paused_and_resumed_at_once(tmp_path: Path) -> None:
    entries = (
        "name: a, to: {url: SINK}", "name: b, to: {url: SINK}", "name: off, enabled: false, to: {url: SINK}"
    )  # fmt: skip
    async with relay_and_sink(tmp_path, *entries) as (running, there):
        await post(running, "/routes/b/pause?reason=mine")
        done = (await post(running, "/routes/pause?reason=freeze"))["routes"]
        assert [(one["route"]["name"], one["route"]["state"], one["changed"]) for one in done] == [
            ("a", "paused", True), ("b", "paused", False), ("off", "disabled", True)
        ]  # fmt: skip
        assert [one["route"]["reason"] for one in done[:2]] == ["freeze", "mine"]
        for _ in range(2):
            await running.post("/in/any")
        assert await states(running) == ["held"] * 4
        done = (await post(running, "/routes/resume"))["routes"]
        assert [(one["route"]["name"], one["changed"], one["released"]) for one in done] == [
            ("a", True, 2), ("b", True, 2), ("off", True, 0)
        ]  # fmt: skip
        await there.wait_count(4)


async def test_a_reason_has_a_limit_and_what_is_not_known_is_refused(tmp_path: Path) -> None:
    async with relay_here(tmp_path, routes("name: www, to: {url: 'http://127.0.0.1:9'}")) as running:
        assert "longer than 500" in (await post(running, f"/routes/www/pause?reason={'x' * 501}", 400))["detail"]
        assert "unknown parameter 'why'" in (await post(running, "/routes/www/pause?why=x", 400))["detail"]
        assert "takes none" in (await post(running, "/routes/www/resume?reason=x", 400))["detail"]
        assert "takes none" in (await post(running, "/routes/www/test?to=x", 400))["detail"]
        for action in ("pause", "resume", "test"):
            detail = (await post(running, f"/routes/wwww/{action}", 404))["detail"]
            assert detail == "there is no route 'wwww' in the config (did you mean 'www'?)"
        assert (await running.ask("GET", "/routes/pause"))[0] == 404  # it is for POST; and no route is called that
        assert (await running.get("/routes/www"))["state"] == "healthy"


async def test_routes_are_shown_as_health_shows_them_and_so_is_what_is_held_for_removed_ones(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: a, to: {url: SINK}", "name: b, to: {url: SINK}") as (running, _):
        await post(running, "/routes/pause")
        await running.post("/in/any")
        assert await running.get("/routes") == {"routes": (await running.get("/health"))["routes"], "removed": []}
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace("name: b", "name: c"))
        await post(running, "/reload")
        shown = await running.get("/routes")
        assert [route["name"] for route in shown["routes"]] == ["a", "c"]
        assert shown["removed"] == [{"name": "b", "held": 1}]
        assert await running.get("/routes/a") == shown["routes"][0]
        assert (await running.ask("GET", "/routes/b"))[0] == 404
        assert (await running.ask("GET", "/routes?state=paused"))[0] == 400


# -- test and move ---------------------------------------------------------------------------------------------------


async def test_a_test_says_what_the_destination_answered_and_leaves_no_trace(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def told(received: Received) -> web.Response:
        return web.Response(status=200, text="built", headers={"X-Build": "7"})

    entries = "name: r, to: {url: SINK/hook}", "name: off, enabled: false, to: {url: SINK/off}"
    async with relay_and_sink(tmp_path, *entries, answer=told) as (running, there):
        await post(running, "/routes/r/pause")
        for name, path in (("r", "/hook"), ("off", "/off")):  # also where nothing else is sent
            answer = await post(running, f"/routes/{name}/test")
            assert answer.keys() == {"request", "response", "error", "duration_ms"}
            assert answer["error"] is None
            assert (answer["response"]["status"], answer["response"]["body"]) == (200, "built")
            assert ["X-Build", "7"] in answer["response"]["headers"]
            assert answer["request"]["url"] == there.url + path
            received = there.received[-1]
            assert (received.path, json.loads(received.body)["test"]) == (path, True)
            assert received.headers["X-Relay-Event"] == "relay.test"
        assert await states(running) == []
        actions = [(line["action"], line["route"]) for line in lines(capsysbinary, "manual_action")]
        assert actions == [("pause", "r"), ("test", "r"), ("test", "off")]


async def test_a_test_of_what_refuses_or_cannot_be_reached_says_why_and_turns_nothing(tmp_path: Path) -> None:
    entries = "name: no, to: {url: SINK}, unhealthy_after: 1", "name: gone, to: {url: 'http://127.0.0.1:9'}"
    async with relay_and_sink(tmp_path, *entries, answer=lambda r: 410) as (running, _):
        answer = await post(running, "/routes/no/test")
        assert (answer["response"]["status"], answer["error"]["code"]) == (410, "gone")
        answer = await post(running, "/routes/gone/test")
        assert (answer["response"], answer["error"]["code"]) == (None, "connect_error")
        assert answer["request"]["method"] == "POST"
        shown = (await running.get("/routes"))["routes"]
        assert [(route["state"], route["consecutive_failures"]) for route in shown] == [("healthy", 0)] * 2


async def test_a_renamed_route_takes_over_what_is_held_and_sends_it(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with relay_and_sink(tmp_path, "name: old, to: {url: SINK}", "name: b, to: {url: SINK/b}") as (running, there):
        await post(running, "/routes/old/pause")
        for _ in range(3):
            await running.post("/in/any")
        await there.wait_count(3)
        detail = (await post(running, "/routes/old/move?to=b", 409))["detail"]
        assert detail.startswith("old is still in the config: rename or remove it there")
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace("name: old", "name: new"))
        [warning] = (await post(running, "/reload"))["warnings"]
        assert warning.startswith("route old, which is no longer in the config, was paused by hand: ")
        assert [line["problem"] for line in lines(capsysbinary, "config_warning")] == [warning]
        paused = "old was paused by hand; new is not"
        assert "did you mean 'new'?" in (await post(running, "/routes/old/move?to=nwe", 404))["detail"]
        assert "say with to=ROUTE" in (await post(running, "/routes/old/move", 400))["detail"]
        assert await post(running, "/routes/old/move?to=new&dry_run=1") == moved(3, paused)
        assert await post(running, "/routes/old/move?to=new") == moved(3, paused)
        await there.wait_count(6)
        await running.logs_when(lambda items: len(items) == 3, "?route=new&status=delivered")
        assert await post(running, "/routes/old/move?to=new") == moved(0)
        line = next(line for line in lines(capsysbinary, "manual_action") if line["action"] == "move")
        assert (line["route"], line["to"], line["count"], line["who"]) == ("old", "new", 3, "anonymous")


def moved(count: int, *warnings: str) -> dict[str, Any]:
    return {"count": count, "windows_left": 0, "warnings": list(warnings)}


# -- windows ---------------------------------------------------------------------------------------------------------


async def collect(running: Relay, count: int = 2) -> tuple[str, list[str]]:
    """A window's id, and its events'."""
    events = [(await running.post("/in/any", body(id=str(number))))[1]["id"] for number in range(count)]
    [window] = (await running.get("/windows"))["items"]
    return window["id"], events


async def test_windows_are_listed_while_they_take_events(tmp_path: Path) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, f"name: r, to: {{url: SINK}}, {WINDOWS}", clock=clock) as (running, there):
        assert await running.get("/windows") == {"items": []}
        events = []
        for _ in range(3):
            events.append((await running.post("/in/any"))[1]["id"])
            clock.advance(10)
        [window] = (await running.get("/windows"))["items"]
        assert window == {
            "id": window["id"], "route": "r", "opened_at": "2026-11-23T12:00:00.000Z",
            "due_at": "2026-11-23T12:00:50.000Z", "held": False, "events": events,
        }  # fmt: skip
        assert await states(running) == ["pending", "merged", "merged"]
        clock.advance(30)
        await there.wait_count(1)
        await running.logs_when(lambda items: len(items) == 1, "?status=delivered")
        assert await running.get("/windows") == {"items": []}
        assert (await running.ask("GET", "/windows?route=r"))[0] == 400
        # The carrier says for whom it was sent; what was merged into it says into what.
        shown = await running.get(f"/logs/{window['id']}")
        assert (shown["event"]["id"], shown["merged"]) == (events[0], events[1:])
        for event_id in events[1:]:
            [group] = (await running.get(f"/logs/{event_id}"))["deliveries"]
            assert (group["delivery"]["status"], group["delivery"]["merged_into"]) == ("merged", window["id"])
            assert (await running.get(f"/logs/{group['delivery']['id']}"))["merged"] == []


async def test_a_window_is_sent_now_when_it_is_flushed(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with relay_and_sink(tmp_path, f"name: r, to: {{url: SINK}}, {WINDOWS}") as (running, there):
        window, _ = await collect(running)
        answer = await post(running, f"/windows/{window}/flush")
        assert answer["delivery"]["id"] == window
        [received] = await there.wait_count(1)
        assert (received.id, json.loads(received.body)["id"]) == (window, "1")
        detail = (await post(running, f"/windows/{window}/flush", 409))["detail"]
        assert f"{window} is no open window" in detail
        [line] = lines(capsysbinary, "manual_action")
        assert (line["action"], line["who"], line["delivery_id"], line["route"]) == ("flush", "anonymous", window, "r")


async def test_a_window_of_a_route_that_may_not_send_is_closed_and_held_when_it_is_flushed(tmp_path: Path) -> None:
    entries = tuple(f"name: {name}, to: {{url: SINK/{name}}}, {WINDOWS}" for name in ("paused", "off", "removed"))
    async with relay_and_sink(tmp_path, *entries) as (running, there):
        await running.post("/in/any")
        await post(running, "/routes/paused/pause")
        path = tmp_path / "config.yaml"
        text = path.read_text()
        changed = text.replace("name: off,", "name: off, enabled: false,").replace("name: removed", "name: other")
        path.write_text(changed)
        await post(running, "/reload")
        windows = (await running.get("/windows"))["items"]
        assert [(window["route"], window["held"]) for window in windows] == [
            ("paused", True), ("off", True), ("removed", True)
        ]  # fmt: skip
        for window in windows:
            assert (await post(running, f"/windows/{window['id']}/flush"))["delivery"]["status"] == "held"
        assert (await running.get("/windows"))["items"] == []
        assert there.received == []
        path.write_text(text)
        await post(running, "/reload")
        await post(running, "/routes/paused/resume")
        await there.wait_count(3)


async def test_a_window_that_is_held_takes_events_and_stays_until_it_is_flushed(tmp_path: Path) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, f"name: r, to: {{url: SINK}}, {WINDOWS}", clock=clock) as (running, there):
        window, events = await collect(running)
        answer = await post(running, f"/windows/{window}/hold")
        assert (answer["window"]["id"], answer["window"]["held"], answer["window"]["events"]) == (window, True, events)
        assert answer["delivery"]["status"] == "held"
        clock.advance(3600)
        await running.post("/in/any", body(id="late"))
        await post(running, "/routes/r/pause")
        await post(running, "/routes/r/resume")  # releases what the pause held, and no more
        assert there.received == []
        [shown] = (await running.get("/windows"))["items"]
        assert (shown["held"], len(shown["events"])) == (True, 3)
        await post(running, f"/windows/{window}/flush")
        [received] = await there.wait_count(1)
        assert json.loads(received.body)["id"] == "late"


async def test_a_window_that_is_dropped_is_never_sent_and_the_next_event_opens_another(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, f"name: r, to: {{url: SINK}}, {WINDOWS}") as (running, there):
        window, _ = await collect(running)
        answer = await post(running, f"/windows/{window}/cancel")
        assert (answer["delivery"]["id"], answer["delivery"]["status"]) == (window, "cancelled")
        assert await states(running) == ["cancelled", "merged"]
        other, _ = await collect(running, 1)
        assert other != window
        await post(running, f"/windows/{other}/flush")
        [received] = await there.wait_count(1)
        assert received.id == other


async def test_what_is_no_open_window_is_a_409_and_what_is_not_there_a_404(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        await post(running, "/routes/r/pause")
        await running.post("/in/any")
        [item] = (await running.get("/logs"))["items"]
        for action in ("flush", "hold", "cancel"):
            answer = await post(running, f"/windows/{item['id']}/{action}", 409)
            assert answer["status"] == "held"
            assert "is no open window" in answer["detail"]
            assert "relay cancel" in answer["detail"]
            for id_text in NOBODY:
                assert id_text in (await post(running, f"/windows/{id_text}/{action}", 404))["detail"]
            assert (await running.ask("POST", f"/windows/{item['id']}/{action}?all=1"))[0] == 400
        assert await states(running) == ["held"]


# -- sources ---------------------------------------------------------------------------------------------------------

KEYS = "first-secret-of-hub", "second-secret-of-hub"
HUB = f"""
sources:
  hub: {{type: github, secret: [{KEYS[0]}, {KEYS[1]}], path: /hub}}
  any: {{type: generic, verify: none}}
"""


def signed(secret: str) -> dict[str, str]:
    code = hmac.new(secret.encode(), b"{}", hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={code}", "X-GitHub-Event": "push"}


async def test_a_source_says_what_came_what_was_refused_and_which_secret_is_still_used(tmp_path: Path) -> None:
    clock = ManualClock()
    async with relay_here(tmp_path, HUB, clock) as running:
        assert (await running.get("/sources"))["sources"] == [
            {
                "name": "hub", "type": "github", "path": "/hub", "verify": ["secret"], "last_event_at": None,
                "silent_since": None, "accepted": 0, "duplicate": 0, "ignored": 0, "rejected": {},
                "secrets": [
                    {"proof": "secret[0]", "last_used_at": None}, {"proof": "secret[1]", "last_used_at": None}
                ],
            },
            {
                "name": "any", "type": "generic", "path": "/in/any", "verify": [], "last_event_at": None,
                "silent_since": None, "accepted": 0, "duplicate": 0, "ignored": 0, "rejected": {}, "secrets": [],
            },
        ]  # fmt: skip
        await running.post("/hub", headers=signed(KEYS[1]))
        clock.advance(60)
        await running.post("/hub", headers=signed(KEYS[0]))
        for _ in range(2):
            await running.post("/hub", headers=signed("wrong"))
        await running.post("/hub", headers={})
        await running.post("/in/any")
        hub, any_ = (await running.get("/sources"))["sources"]
        assert hub["last_event_at"] == any_["last_event_at"] == "2026-11-23T12:01:00.000Z"
        assert hub["rejected"] == {
            "the signature in X-Hub-Signature-256 does not fit": 2, "no X-Hub-Signature-256 header": 1
        }  # fmt: skip
        assert [secret["last_used_at"] for secret in hub["secrets"]] == [
            "2026-11-23T12:01:00.000Z", "2026-11-23T12:00:00.000Z"
        ]  # fmt: skip
        await post(running, "/reload")
        assert (await running.get("/sources"))["sources"] == [hub, any_]
        # Another secret is another one: nothing is said of it that was true of the one before it.
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace(KEYS[0], "third-secret-of-hub"))
        await post(running, "/reload")
        again = (await running.get("/sources"))["sources"][0]
        assert [secret["last_used_at"] for secret in again["secrets"]] == [None, None]
        assert (again["rejected"], again["last_event_at"]) == (hub["rejected"], hub["last_event_at"])
        assert (await running.ask("GET", "/sources?name=hub"))[0] == 400


async def test_a_source_says_how_many_were_accepted_repeats_or_ignored(tmp_path: Path) -> None:
    config = (
        "sources: {a: {type: strapi, verify: none}, b: {type: strapi, verify: none}}\n"
        "routes: [{name: r, to: {url: 'http://127.0.0.1:9/'}}]\n"
    )
    async with relay_here(tmp_path, config) as running:
        for uid, times in (("api::a.a", 2), ("api::b.b", 3), ("plugin::users-permissions.user", 4)):
            for _ in range(times):
                body = {"event": "entry.publish", "uid": uid, "model": "m", "entry": {"id": 1}}
                assert (await running.post("/in/a", json.dumps(body).encode()))[0] == 200
        await post(running, "/reload")
        counted = [
            (each["name"], each["accepted"], each["duplicate"], each["ignored"], each["rejected"])
            for each in (await running.get("/sources"))["sources"]
        ]
        assert counted == [("a", 2, 3, 4, {}), ("b", 0, 0, 0, {})]


async def test_the_reasons_for_refusals_are_bounded(tmp_path: Path) -> None:
    async with relay_here(tmp_path, HUB) as running:
        assert running.running is not None
        tally = running.running.reloader.runtime.sources["hub"].tally
        for number in range(MOST_REASONS + 10):
            tally.refused(f"{number} " + "x" * 10_000)
        rejected = (await running.get("/sources"))["sources"][0]["rejected"]
        assert len(rejected) == MOST_REASONS + 1
        assert next(iter(rejected.items())) == (OTHER, 10)
        assert max(map(len, rejected)) == 200


async def test_an_address_that_fails_too_often_is_counted_too(tmp_path: Path) -> None:
    async with relay_here(tmp_path, HUB) as running:
        for _ in range(15):
            await running.post("/hub", headers=signed("wrong"))
        rejected = (await running.get("/sources"))["sources"][0]["rejected"]
        assert sum(rejected.values()) == 15
        assert rejected["too many failures from one address"] > 0


@pytest.mark.parametrize(("name", "config"), CASES)
def test_what_holds_is_among_the_secrets_that_are_shown(name: str, config: dict[str, Any]) -> None:
    section = types()[name].Config(type=name, **several(config))
    adapter = types()[name].Adapter(section)
    held = adapter.verify(adapter.sign(samples.load(name), NOW), NOW).held
    assert held
    assert set(held) <= set(proofs(section))


# -- who may ---------------------------------------------------------------------------------------------------------


async def test_a_token_that_may_only_read_does_nothing_by_hand(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS) as (running, _):
        for path in ("/routes", "/routes/r", "/sources", "/windows"):
            await running.get(path, headers=bearer(READ))
            assert (await running.ask("GET", path))[0] == 401
        event, delivery = NOBODY
        for path in (
            "/logs/retry?all=1", f"/logs/{delivery}/cancel", f"/events/{event}/replay", f"/events/{event}/forget",
            "/routes/pause", "/routes/resume", "/routes/r/pause", "/routes/r/resume", "/routes/r/test",
            "/routes/x/move?to=r", f"/windows/{delivery}/flush", f"/windows/{delivery}/hold",
            f"/windows/{delivery}/cancel",
        ):  # fmt: skip
            status, _, answer = await request(running, "POST", path, bearer(READ))
            assert (status, answer["error"]) == (403, "forbidden"), path
            assert (await running.ask("GET", path, headers=bearer(OPERATE)))[0] in (404, 405), path
            status, _, answer = await request(
                running, "POST", path, {**bearer(OPERATE), "Origin": "https://evil.example"}
            )
            assert (status, answer["error"]) == (403, "forbidden"), path
