"""The admin side over real TCP: health, logs, retry, reload, metrics, and who may use it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

import relay
from relay import journal
from relay.config import ConfigError, load
from relay.delivery import Code
from relay.handover import HandedOver
from relay.runtime import build
from relay.store import Unavailable
from relay.web.logquery import FILTERS
from tests.fakes import NOON, ManualClock
from tests.harness import LISTEN, PATIENCE, Answer, Received, Relay, answered, relay_here, sink

NOTIFIER = "notifiers: {hook: {type: webhook, url: 'http://127.0.0.1:9'}}\n"
NEVER_AGAIN = "retry: none"
LATER = "retry: {policy: fixed, every: 1h, attempts: 5, jitter: 0}"
OPERATE, READ = "operate-token-0123456789", "read-only-token-0123456789"
TOKENS = (
    f'server: {{listen: "127.0.0.1:0"}}\nadmin: {{listen: "127.0.0.1:0", token: {OPERATE}, '
    f"tokens: {{ci: {{token: {READ}, scope: read}}}}, hosts: [relay.example.com]}}\n"
)
SOURCES = """
sources:
  any:
    type: generic
    verify: none
    map: {event: body.event, model: body.model, stage: body.stage, action: body.action, entry_id: body.id}
  www: {type: storyblok, secret: a-secret-that-nobody-knows}
"""


def routes(*entries: str) -> str:
    return SOURCES + "routes:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


def body(**said: str) -> bytes:
    return json.dumps(said).encode()


@asynccontextmanager
async def relay_and_sink(
    folder: Path, *entries: str, answer: Answer = lambda request: 200, head: str = LISTEN, clock: Any = None
) -> AsyncIterator[tuple[Relay, Any]]:
    """Relay with routes to a sink, whose address stands for `SINK` in them."""
    async with sink(answer) as destination:
        text = head + routes(*(entry.replace("SINK", destination.url) for entry in entries))
        async with relay_here(folder, text, clock) as running:
            yield running, destination


async def request(
    running: Relay, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any
) -> tuple[int, Mapping[str, str], Any]:
    """Status, headers and JSON of an answer."""
    async with running.session.request(method, running.admin + path, headers=headers, **options) as response:
        text = await response.text()
        return response.status, response.headers, json.loads(text) if text else None


async def health_when(running: Relay, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        found: dict[str, Any] = (await running.ask("GET", "/health"))[1]
        return found

    return await answered(look, condition)


# -- health ----------------------------------------------------------------------------------------------------------

HEALTH = {"status", "version", "uptime_s", "pid", "config", "store", "routes", "checks"}
CONFIG = {"path", "generation", "sha256", "loaded_at", "last_reload", "pending_restart"}
STORE = {"ok", "backend", "version", "pending", "held", "oldest_pending_s", "size_bytes", "free_bytes"}
ROUTE = {
    "name", "state", "reason", "since", "pending", "held", "consecutive_failures", "last_success_at", "last_error",
    "next_probe_at",
}  # fmt: skip


async def test_health_says_all_that_the_contract_names(tmp_path: Path) -> None:
    entries = "name: good, to: {url: SINK/good}", f"name: bad, to: {{url: SINK/bad}}, {LATER}"
    async with relay_and_sink(tmp_path, *entries, answer=lambda r: 503 if r.path == "/bad" else 200) as (running, _):
        await running.post("/in/any")
        health = await health_when(
            running,
            lambda h: h["routes"][1]["consecutive_failures"] and [r["pending"] for r in h["routes"]] == [0, 1],
        )
        assert health.keys() == HEALTH
        assert (health["status"], health["version"], health["pid"]) == ("ok", relay.__version__, os.getpid())
        assert health["uptime_s"] >= 0
        config = health["config"]
        assert config.keys() == CONFIG
        assert (config["path"], config["generation"]) == (str(tmp_path / "config.yaml"), 1)
        assert re.fullmatch("[0-9a-f]{64}", config["sha256"])
        assert config["last_reload"] == {"ok": True, "at": config["loaded_at"], "error": None}
        assert config["pending_restart"] == []
        store = health["store"]
        assert store.keys() == STORE
        assert (store["ok"], store["backend"], store["held"]) == (True, "sqlite", 0)
        assert re.fullmatch(r"3\.\d+\.\d+", store["version"])
        assert store["size_bytes"] > 0
        assert store["free_bytes"] > 0
        good, bad = health["routes"]
        assert good.keys() == bad.keys() == ROUTE
        assert (good["state"], good["pending"], good["consecutive_failures"]) == ("healthy", 0, 0)
        assert good["last_error"] is None
        assert datetime.fromisoformat(good["last_success_at"]).tzinfo is not None
        assert (bad["pending"], bad["last_success_at"]) == (1, None)
        assert bad["last_error"] == {"code": "http_status", "message": "HTTP 503"}
        assert set(health["checks"].values()) == {"ok"}
        assert (await running.get("/health/live")) == (await running.get("/health/ready")) == {"status": "ok"}


async def test_a_failed_reload_degrades_health_until_one_is_taken_and_relay_stays_ready(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        path = tmp_path / "config.yaml"
        good = path.read_text()
        path.write_text(good.replace("routes:", "rowtes:"))
        assert (await running.ask("POST", "/reload"))[0] == 422
        health = await running.get("/health")  # 200: it serves
        assert health["status"] == "degraded"
        assert health["checks"]["reload"].startswith("the last reload failed: ")
        assert "rowtes: unknown key" in health["config"]["last_reload"]["error"]
        assert (health["config"]["last_reload"]["ok"], health["config"]["generation"]) == (False, 1)
        assert (await running.ask("GET", "/health/ready"))[0] == 200
        path.write_text(good)
        assert (await running.ask("POST", "/reload"))[0] == 200
        assert (await running.get("/health"))["status"] == "ok"


async def test_while_shutting_down_health_fails_and_relay_is_not_ready_but_alive(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer(received: Received) -> int:
        await release.wait()
        return 200

    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", answer=answer) as (running, destination):
        assert running.running is not None
        await running.post("/in/any")
        await destination.wait_count(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(running.running.wind_down())
            status, _, health = await request(running, "GET", "/health")
            assert (status, health["status"], health["checks"]["shutdown"]) == (503, "failing", "shutting down")
            assert (await running.ask("GET", "/health/ready")) == (503, {"status": "failing"})
            assert (await running.ask("GET", "/health/live"))[0] == 200
            release.set()


async def test_what_is_long_overdue_degrades_health(tmp_path: Path) -> None:
    clock, entry = ManualClock(), f"name: r, to: {{url: SINK}}, {LATER}"
    async with relay_and_sink(tmp_path, entry, answer=lambda r: 503, clock=clock) as (running, _):
        await running.post("/in/any")
        await running.logs_when(lambda items: items and items[0]["attempts"] == 1)
        assert running.running is not None
        dispatcher = running.running.dispatcher
        await dispatcher.stop()  # so that nobody sends it when it is due
        for seconds, status, said in (
            (3600 + 299, "ok", "ok"),
            (2, "degraded", "a delivery of route r has been due since 2026-11-23T13:00:00.000Z"),
        ):
            clock.advance(seconds)
            dispatcher.progress_at = clock.monotonic()
            health = await running.get("/health")
            assert (health["status"], health["checks"]["overdue"]) == (status, said)


async def test_a_dispatcher_that_stands_still_fails_health(tmp_path: Path) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", clock=clock) as (running, _):
        assert running.running is not None
        await running.running.dispatcher.stop()
        clock.tick(31)
        status, health = await running.ask("GET", "/health")
        assert (status, health["status"]) == (503, "failing")
        assert health["checks"]["dispatcher"].startswith("the dispatcher made no progress for 3")


async def test_a_commit_that_does_not_end_fails_health(tmp_path: Path) -> None:
    clock, release = ManualClock(), threading.Event()
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", clock=clock) as (running, _):
        assert running.running is not None
        store: Any = running.running.store
        stuck = store._writer.call(lambda connection, deltas: release.wait(PATIENCE))
        await health_when(running, lambda health: store._writer.begun)
        clock.tick(31)
        running.running.dispatcher.progress_at = clock.monotonic()
        status, health = await running.ask("GET", "/health")
        assert (status, health["checks"]["store"]) == (503, "a commit has not ended for 31 s")
        release.set()
        await stuck
        assert (await running.get("/health"))["checks"]["store"] == "ok"


async def test_health_still_says_all_it_knows_when_the_store_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", clock=clock) as (running, _):

        async def unreadable() -> None:
            raise Unavailable("the database cannot be read: disk I/O error")

        assert running.running is not None
        monkeypatch.setattr(running.running.store, "status", unreadable)
        clock.tick(2)
        status, health = await running.ask("GET", "/health")
        assert (status, health["status"], health["store"]["ok"]) == (503, "failing", False)
        assert health.keys() == HEALTH
        assert health["store"].keys() == STORE
        assert health["checks"]["store"] == "the database cannot be read: disk I/O error"
        async with running.session.get(running.admin + "/metrics") as response:
            assert "relay_store_ok 0.0" in await response.text()


async def test_health_fails_while_events_are_refused_for_lack_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", clock=clock) as (running, _):
        found = os.statvfs(tmp_path)
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*found[:4], 100, *found[5:])))
        clock.tick(2)
        assert (await running.post("/in/any"))[0] == 503
        status, health = await running.ask("GET", "/health")
        assert (status, health["status"], health["store"]["ok"]) == (503, "failing", False)
        assert (health["checks"]["disk"], health["checks"]["store"]) == ("0 MiB left: events are refused", "ok")
        async with running.session.get(running.admin + "/metrics") as response:
            assert "relay_store_ok 0.0" in await response.text()
        assert (await running.ask("GET", "/health/ready"))[0] == 200, "nobody else could take them"
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((1, 1, 10 << 30, 0, 100 << 20, *found[5:])))
        clock.tick(2)
        assert (await running.post("/in/any"))[0] == 200
        status, health = await running.ask("GET", "/health")
        assert (status, health["status"], health["store"]["ok"]) == (200, "degraded", True)
        assert health["checks"]["disk"] == "100 MiB left"


async def test_health_knows_how_old_what_waits_is_as_soon_as_it_counts_it(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, delay: 1h, to: {url: SINK}", clock=ManualClock()) as (running, _):

        async def waits() -> tuple[int, float | None]:
            store = (await running.get("/health"))["store"]
            return store["pending"], store["oldest_pending_s"]

        assert await waits() == (0, None)
        await running.post("/in/any")
        assert await waits() == (1, 0)
        [item] = (await running.get("/logs"))["items"]
        await running.ask("POST", f"/logs/{item['id']}/cancel")
        assert await waits() == (0, None)


async def test_the_public_side_says_only_that_it_is_there(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS) as (running, _):
        async with running.session.get(running.public + "/health") as response:
            assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_at_start_the_journal_names_the_store_and_what_waits_in_it(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.stores.sqlite.affected_by_wal_reset_bug", lambda version: True)
    entry = f"name: r, to: {{url: 'http://127.0.0.1:9'}}, {LATER}"
    async with relay_here(tmp_path, routes(entry)) as running:
        await running.post("/in/any")
        await running.logs_when(lambda items: items and items[0]["attempts"] == 1)
    capsysbinary.readouterr()
    async with relay_here(tmp_path, routes(entry)) as running:
        version = (await running.get("/health"))["store"]["version"]
    journal.outlet.drain(10)
    lines = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    [opened] = [line for line in lines if line["event"] == "store_opened"]
    facts = {key: opened[key] for key in ("backend", "version", "path", "pending", "held")}
    assert facts == {
        "backend": "sqlite", "version": version, "path": str(tmp_path / "relay.db"), "pending": 1, "held": 0
    }  # fmt: skip
    [warning] = [line for line in lines if line["event"] == "store_warning"]
    assert f"SQLite {version} has the WAL-reset bug" in warning["reason"]
    assert "let no other program write" in warning["reason"]


# -- logs ------------------------------------------------------------------------------------------------------------

EVENTS = (
    {"event": "entry.publish", "model": "post", "stage": "published", "action": "publish", "id": "1"},
    {"event": "entry.update", "model": "page", "stage": "draft", "action": "update", "id": "2"},
    {"event": "media.delete", "model": "media", "action": "delete", "id": "3"},
)
ENTRIES = (
    "name: all, to: {url: SINK/all}",
    "name: posts, match: {model: post}, to: {url: SINK/posts}, retry: none",
)


def posts_fail(received: Received) -> int:
    return 500 if received.path == "/posts" else 200


@asynccontextmanager
async def with_history(folder: Path) -> AsyncIterator[tuple[Relay, list[str]]]:
    """Relay after EVENTS, a second apart, and the events' ids: each delivered to `all`; the post failed at `posts`."""
    clock = ManualClock()
    async with relay_and_sink(folder, *ENTRIES, answer=posts_fail, clock=clock) as (running, _):
        ids = []
        for event in EVENTS:
            _, answer = await running.post("/in/any", body(**event))
            ids.append(answer["id"])
            clock.advance(1)
        await running.logs_when(lambda items: len(items) == 4, "?status=delivered,failed")
        yield running, ids


def entries(answer: Any) -> list[tuple[str, str]]:
    """Route and entry of each item."""
    return [(item["route"], item["entry_id"]) for item in answer["items"]]


POSTS, ALL1, ALL2, ALL3 = ("posts", "1"), ("all", "1"), ("all", "2"), ("all", "3")
FILTERED = {
    "": [ALL3, ALL2, POSTS, ALL1],
    "order=asc": [ALL1, POSTS, ALL2, ALL3],
    "limit=2": [ALL3, ALL2],
    "route=posts": [POSTS],
    "route=posts,all": [ALL3, ALL2, POSTS, ALL1],
    "route=nobody": [],
    "source=any": [ALL3, ALL2, POSTS, ALL1],
    "source=www": [],
    "type=generic": [ALL3, ALL2, POSTS, ALL1],
    "type=storyblok,strapi": [],
    "model=page": [ALL2],
    "model=post,media": [ALL3, POSTS, ALL1],
    "stage=draft": [ALL2],
    "stage=draft,published": [ALL2, POSTS, ALL1],
    "action=delete,update": [ALL3, ALL2],
    "event=entry.update": [ALL2],
    "event=entry.update,media.delete": [ALL3, ALL2],
    "entry_id=3": [ALL3],
    "entry_id=1,3": [ALL3, POSTS, ALL1],
    "event_id={0}": [POSTS, ALL1],
    "event_id={0},{2}": [ALL3, POSTS, ALL1],
    "event_id=evt_00000000000000000000000000": [],
    "status=failed": [POSTS],
    "status=delivered": [ALL3, ALL2, ALL1],
    "status=failed,delivered": [ALL3, ALL2, POSTS, ALL1],
    "status=pending,held,merged,cancelled": [],
    "since=2026-11-23T12:00:01Z": [ALL3, ALL2],
    "since=2026-11-23T13:00:01%2B01:00": [ALL3, ALL2],
    "since=2s": [ALL3, ALL2],
    "until=2026-11-23T12:00:01Z": [POSTS, ALL1],
    "until=2s": [POSTS, ALL1],
    "since=2s&until=1s": [ALL2],
    "code=500": [POSTS],
    "code=2xx": [ALL3, ALL2, ALL1],
    "code=>=400": [POSTS],
    "code=<500": [ALL3, ALL2, ALL1],
    "code=404,499-500": [POSTS],
    "code=418": [],
    "q={0}": [POSTS, ALL1],
    "q=3": [ALL3],
    "q=media.": [ALL3],
    "q=http 50": [POSTS],
    "q=nobody says so": [],
    "model=post&status=delivered": [ALL1],
    "since=1h&order=asc&limit=1": [ALL1],
}


async def test_each_filter_of_the_logs_finds_what_it_says(tmp_path: Path) -> None:
    async with with_history(tmp_path) as (running, ids):
        found = {query: entries(await running.get("/logs?" + query.format(*ids))) for query in FILTERED}
        assert found == FILTERED
        tried = {name for query in FILTERED for name in re.findall(r"(?:^|&)(\w+)=", query)}
        assert tried | {"cursor"} == set(FILTERS)


ITEM = {
    "id", "event_id", "route", "source", "type", "event", "model", "stage", "action", "entry_id", "status",
    "attempts", "code", "error", "merged_into", "created_at", "updated_at", "next_attempt_at", "duration_ms",
}  # fmt: skip


async def test_a_log_item_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    async with with_history(tmp_path) as (running, ids):
        [item] = (await running.get("/logs?status=failed"))["items"]
        assert item.keys() == ITEM
        assert item["id"].startswith("dlv_")
        assert {key: item[key] for key in ITEM - {"id", "duration_ms", "updated_at"}} == {
            "event_id": ids[0], "route": "posts", "source": "any", "type": "generic", "event": "entry.publish",
            "model": "post", "stage": "published", "action": "publish", "entry_id": "1", "status": "failed",
            "attempts": 1, "code": 500, "error": {"code": "http_status", "message": "HTTP 500"}, "merged_into": None,
            "created_at": "2026-11-23T12:00:00.000Z", "next_attempt_at": None,
        }  # fmt: skip


@pytest.mark.parametrize("order", ["desc", "asc"])
async def test_pages_neither_repeat_nor_skip_an_item_while_rows_arrive(tmp_path: Path, order: str) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        for number in range(7):
            await running.post("/in/any", body(id=str(number)))
        page = await running.get(f"/logs?limit=3&order={order}")
        seen = [item["entry_id"] for item in page["items"]]
        for extra in range(7, 11):
            if page["next"] is None:
                break
            await running.post("/in/any", body(id=str(extra)))
            page = await running.get(f"/logs?limit=3&order={order}&cursor={page['next']}")
            seen += [item["entry_id"] for item in page["items"]]
        # Newest first never meets what came after its first page; oldest first goes on to the end of what there is.
        expected = [str(n) for n in range(6, -1, -1)] if order == "desc" else [str(n) for n in range(len(seen))]
        assert seen == expected
        assert len(seen) >= 7
        assert page["next"] is None


async def test_unmatched_and_rejected_are_items_of_their_own_kind_and_page_with_the_others(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: posts, match: {model: post}, to: {url: SINK}") as (running, _):
        await running.post("/in/any", body(model="post", id="1"))
        _, unmatched = await running.post("/in/any", body(model="page", id="2"))
        await running.post("/in/www", b'{"action":"published"}', {"webhook-signature": "0" * 40})
        await running.post("/in/any", body(model="post", id="3"))  # the rejection is written along with it
        query = "/logs?status=pending,delivered,unmatched,rejected"
        kinds = [item["id"][:4] for item in (await running.get(query))["items"]]
        assert kinds == ["dlv_", "rej_", "evt_", "dlv_"]
        one, paged = await running.get(query + "&limit=1"), []
        while True:
            paged += [item["id"][:4] for item in one["items"]]
            if one["next"] is None:
                break
            one = await running.get(f"{query}&limit=1&cursor={one['next']}")
        assert paged == kinds
        [item] = (await running.get("/logs?status=unmatched"))["items"]
        assert item.keys() == ITEM
        assert (item["id"], item["event_id"], item["route"], item["attempts"]) == (
            unmatched["id"], unmatched["id"], None, 0
        )  # fmt: skip
        [item] = (await running.get("/logs?status=rejected"))["items"]
        assert item.keys() == ITEM
        assert (item["status"], item["code"], item["source"], item["route"], item["attempts"]) == (
            "rejected", 401, "www", None, 0
        )  # fmt: skip
        assert (await running.get("/logs?status=unmatched,rejected&route=posts"))["items"] == []
        assert (await running.get("/logs?status=rejected&source=any"))["items"] == []


BAD_FILTERS = {
    "rout=x": "unknown filter 'rout'",
    "code=teapot": "code takes .*'teapot'",
    "code=500,": "filter 'code' has an empty value in its list",
    "q=%20%20": "q takes .*, not spaces alone",
    "code=599-500": "code takes a range .*'599-500'",
    "q=" + 201 * "x": "q takes up to 200 characters",
    "route=a&route=b": "filter 'route' is given twice",
    "status=lost": "status takes .*'lost'",
    "status=failed,": "status takes .*''",
    "since=yesterday": "since takes .*'yesterday'",
    "since=2026-11-23": "since takes",
    "until=5x": "until takes .*'5x'",
    "since=999999999d": "since takes",
    "limit=0": "limit takes a number from 1 to 1000, not '0'",
    "limit=1001": "limit takes",
    "limit=-1": "limit takes",
    "cursor=abc": "cursor takes the 'next' of an earlier answer",
    "order=up": "order takes asc or desc, not 'up'",
}


async def test_a_filter_that_cannot_be_used_is_a_400_that_names_it(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        for query, message in BAD_FILTERS.items():
            status, answer = await running.ask("GET", f"/logs?{query}")
            assert (status, answer["error"]) == (400, "bad_filter"), query
            assert re.search(message, answer["detail"]), (query, answer)


async def test_of_a_delivery_everything_is_shown(tmp_path: Path) -> None:
    said = b'{"event":"entry.publish","model":"post","action":"publish","id":"1"}'

    def answer(received: Received) -> web.Response:
        return web.Response(status=503 if received.n == 1 else 200, text="thanks", headers={"X-Build": "77"})

    fast = "retry: {policy: fixed, every: 10ms, attempts: 3, jitter: 0}"
    async with relay_and_sink(tmp_path, f"name: r, to: {{url: SINK/hook}}, {fast}", answer=answer) as (running, there):
        _, answered = await running.post("/in/any", said, {"Content-Type": "application/json", "X-One": "1"})
        [item] = await running.logs_when(lambda items: items[0]["status"] == "delivered")
        detail = await running.get(f"/logs/{item['id']}")
        assert detail.keys() == {"delivery", "event", "headers", "body", "attempts", "merged", "waits_for"}
        assert detail["delivery"] == item
        assert detail["body"].encode() == said
        assert ["X-One", "1"] in detail["headers"]
        assert (detail["merged"], detail["waits_for"]) == ([], None)
        description = detail["event"]
        assert description["id"] == answered["id"]
        assert description["changes"] == [{"model": "post", "stage": None, "action": "publish", "entry_id": "1"}]
        assert [attempt["n"] for attempt in detail["attempts"]] == [1, 2]
        first, second = detail["attempts"]
        assert first.keys() == {"n", "trigger", "started_at", "duration_ms", "request", "response", "error"}
        assert (first["trigger"], second["trigger"]) == ("initial", "retry")
        assert first["error"] == {"code": "http_status", "message": "HTTP 503"}
        assert second["error"] is None
        assert first["request"]["method"] == "POST"
        assert first["request"]["url"] == there.url + "/hook"
        assert ["webhook-id", item["id"]] in first["request"]["headers"]
        assert second["response"].keys() == {"status", "headers", "body", "truncated"}
        assert (second["response"]["status"], second["response"]["body"]) == (200, "thanks")
        assert ["X-Build", "77"] in second["response"]["headers"]
        # The event shows the same, delivery by delivery.
        event = await running.get(f"/logs/{answered['id']}")
        assert event.keys() == {"event", "headers", "body", "deliveries"}
        assert event["deliveries"] == [{"delivery": item, "attempts": detail["attempts"]}]


async def test_of_a_rejected_request_the_reason_is_shown_and_no_body(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        await running.post("/in/www", b'{"action":"published"}', {"webhook-signature": "0" * 40, "X-One": "1"})
        [item] = await running.logs_when(lambda items: items, "?status=rejected")
        detail = await running.get(f"/logs/{item['id']}")
        assert detail.keys() == {"rejection", "headers"}
        assert detail["rejection"].keys() == {"id", "source", "status", "code", "reason", "client", "created_at"}
        assert (detail["rejection"]["code"], detail["rejection"]["client"]) == (401, "127.0.0.1")
        assert ["webhook-signature", "***"] in detail["headers"]
        assert ["X-One", "1"] in detail["headers"]


async def test_a_body_that_is_not_text_is_shown_in_base64(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        _, answered = await running.post("/in/any", b"\xff\x00\xfe")
        detail = await running.get(f"/logs/{answered['id']}")
        assert base64.b64decode(detail["body_base64"]) == b"\xff\x00\xfe"
        assert "body" not in detail


@pytest.mark.parametrize("kind", ["dlv_", "evt_", "rej_", "foo_", ""])
async def test_an_id_that_nobody_gave_out_is_a_404(tmp_path: Path, kind: str) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        assert running.running is not None
        ids = running.running.store.ids
        foreign = kind + "01J" + "0" * 23
        own = ids.text(kind, ids.draw()) if kind.endswith("_") else "x"
        for id_text in (foreign, own):
            status, answer = await running.ask("GET", f"/logs/{id_text}")
            assert (status, answer["error"]) == (404, "not_found")
            assert id_text in answer["detail"]
            assert (await running.ask("POST", f"/logs/{id_text}/retry"))[0] == 404


# -- retry -----------------------------------------------------------------------------------------------------------


async def test_retry_sends_what_failed_again_and_counts_anew(tmp_path: Path) -> None:
    mended = asyncio.Event()
    entry = "name: r, to: {url: SINK}, retry: {policy: fixed, every: 1ms, attempts: 2, jitter: 0}"
    async with relay_and_sink(tmp_path, entry, answer=lambda r: 200 if mended.is_set() and r.n > 3 else 500) as (
        running,
        _,
    ):
        await running.post("/in/any")
        [item] = await running.logs_when(lambda items: items[0]["status"] == "failed")
        mended.set()
        status, answer = await running.ask("POST", f"/logs/{item['id']}/retry")
        assert status == 200
        assert answer["delivery"].keys() == ITEM
        assert answer["delivery"]["id"] == item["id"]
        [item] = await running.logs_when(lambda items: items[0]["status"] == "delivered")
        attempts = (await running.get(f"/logs/{item['id']}"))["attempts"]
        assert [(a["n"], a["trigger"]) for a in attempts] == [(1, "initial"), (2, "retry"), (3, "manual"), (4, "retry")]


async def test_retry_makes_a_waiting_delivery_due_now(tmp_path: Path) -> None:
    entry = f"name: r, to: {{url: SINK}}, {LATER}"
    async with relay_and_sink(tmp_path, entry, answer=lambda r: 503 if r.n == 1 else 200) as (running, destination):
        await running.post("/in/any")
        [item] = await running.logs_when(lambda items: items and items[0]["attempts"] == 1)
        assert (await running.ask("POST", f"/logs/{item['id']}/retry"))[0] == 200
        await destination.wait_count(2)
        await running.logs_when(lambda items: items[0]["status"] == "delivered")


async def test_retry_of_what_is_done_or_held_is_a_409_that_says_what_to_do(tmp_path: Path) -> None:
    entry = f"name: r, to: {{url: SINK}}, {LATER}"
    async with relay_and_sink(tmp_path, entry, answer=lambda r: 200 if r.n == 1 else 503) as (running, _):
        await running.post("/in/any")
        [delivered] = await running.logs_when(lambda items: items[0]["status"] == "delivered")
        status, answer = await running.ask("POST", f"/logs/{delivered['id']}/retry")
        assert (status, answer["error"], answer["status"]) == (409, "wrong_state", "delivered")
        assert "nothing to retry" in answer["detail"]
        await running.post("/in/any")
        await running.logs_when(lambda items: items[0]["attempts"] == 1)
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().partition("routes:")[0])
        await running.ask("POST", "/reload")
        held = (await running.logs_when(lambda items: items[0]["status"] == "held"))[0]
        status, answer = await running.ask("POST", f"/logs/{held['id']}/retry")
        assert (status, answer["status"]) == (409, "held")
        assert "bring the route back" in answer["detail"]


# -- reload ----------------------------------------------------------------------------------------------------------


async def test_reload_says_what_changed_and_what_waits_for_a_restart(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: a, to: {url: SINK}", "name: b, to: {url: SINK}") as (running, _):
        path = tmp_path / "config.yaml"
        text = path.read_text()
        assert (await running.ask("POST", "/reload")) == (
            200, {"generation": 2, "changes": {}, "pending_restart": [], "warnings": []}
        )  # fmt: skip
        text = text.replace("name: a,", "name: c,").replace("name: b,", "name: b, description: new,")
        text = text.replace('server: {listen: "127.0.0.1:0"}', 'server: {listen: "127.0.0.1:1", max_body: 1KiB}')
        path.write_text(text.replace("  www: {", "  short: {type: generic, token: x}\n  www: {"))
        status, answer = await running.ask("POST", "/reload")
        assert (status, answer["generation"], answer["pending_restart"]) == (200, 3, ["server.listen"])
        assert answer["changes"] == {
            "routes": {"added": ["c"], "removed": ["a"], "changed": ["b"]},
            "sources": {"added": ["short"], "removed": [], "changed": []},
            "other": ["server"],
        }
        [warning] = answer["warnings"]
        assert warning.endswith("sources.short.token: warning: the secret is shorter than 16 bytes")
        health = await running.get("/health")
        assert health["config"]["pending_restart"] == ["server.listen"]
        assert [route["name"] for route in health["routes"]] == ["c", "b"]


async def test_a_refused_reload_lists_every_mistake_and_changes_nothing(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        path = tmp_path / "config.yaml"
        text = path.read_text()
        path.write_text(text.replace("name: r,", "nome: r,").replace("type: storyblok", "type: storyblock"))
        status, answer = await running.ask("POST", "/reload")
        assert (status, answer["error"]) == (422, "invalid_config")
        assert answer["detail"] == answer["errors"][0]
        assert len(answer["errors"]) == 3
        assert all(re.match(re.escape(str(path)) + r":\d+:\d+: ", line) for line in answer["errors"])
        assert "did you mean 'storyblok'?" in answer["errors"][0]
        assert (await running.post("/in/any"))[1]["routes"] == ["r"]
        assert (await running.get("/health"))["config"]["generation"] == 1
        path.unlink()
        assert (await running.ask("POST", "/reload"))[0] == 422


async def test_a_bug_while_reading_the_config_ends_a_reload_and_not_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        monkeypatch.setattr("relay.reload.build", lambda *_: 1 // 0)
        status, answer = await running.ask("POST", "/reload")
        assert (status, answer["error"]) == (422, "invalid_config")
        assert answer["detail"].endswith("relay failed to read it: ZeroDivisionError")
        assert (await running.post("/in/any"))[0] == 200


async def test_what_is_done_by_hand_is_logged_with_the_tokens_name(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS) as (running, _):
        assert (await running.ask("POST", "/reload", headers=bearer(OPERATE)))[0] == 200
    journal.outlet.drain(10)
    lines = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    [line] = [line for line in lines if line["event"] == "manual_action"]
    assert (line["action"], line["who"]) == ("reload", "admin")


# -- metrics ---------------------------------------------------------------------------------------------------------

METRICS = {
    "relay_events_total", "relay_deliveries_total", "relay_attempts_total", "relay_attempt_duration_seconds",
    "relay_delivery_latency_seconds", "relay_pending", "relay_oldest_pending_seconds", "relay_route_state",
    "relay_store_commit_seconds", "relay_config_last_reload_successful",
    "relay_config_last_reload_success_timestamp_seconds", "relay_config_info", "relay_held", "relay_store_ok",
    "relay_store_size_bytes", "relay_config_reloads_total", "relay_build_info", "relay_filter_errors_total",
    "relay_store_free_bytes", "relay_route_stopped", "relay_source_silent", "relay_source_last_event_timestamp_seconds",
    "relay_store_disk_bytes", "relay_not_found_total", "relay_notifications_total", "relay_journal_dropped_total",
    "relay_internal_errors_total", "relay_event_loop_lag_seconds", "process_cpu_seconds_total",
    "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
    "process_start_time_seconds", "process_virtual_memory_bytes",
}  # fmt: skip


async def scrape(running: Relay) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name, then by label values in the order of the labels' names."""
    async with running.session.get(running.admin + "/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_metrics_have_the_names_and_labels_of_the_contract(tmp_path: Path) -> None:
    entries = *ENTRIES, "name: off, enabled: false, to: {url: SINK}"
    async with relay_and_sink(tmp_path, *entries, answer=posts_fail, head=LISTEN + NOTIFIER) as (running, _):
        for event in EVENTS:
            await running.post("/in/any", body(**event))
        await running.post("/in/www", b"{}", {"webhook-signature": "0" * 40})
        await running.logs_when(lambda items: len(items) == 4, "?status=delivered,failed")
        await running.ask("POST", "/reload")
        found = await scrape(running)
        assert {re.sub("_(bucket|count|sum)$", "", name) for name in found} == METRICS
        assert turned(found["relay_events_total"]) == {("accepted", "any"): 3, ("unauthenticated", "www"): 1}
        assert found["relay_attempts_total"] == {("delivered", "all"): 3, ("http_status", "posts"): 1}
        assert turned(found["relay_deliveries_total"]) == {("all", "delivered"): 3, ("posts", "failed"): 1}
        assert found["relay_attempt_duration_seconds_count"] == {("all",): 3, ("posts",): 1}
        assert found["relay_delivery_latency_seconds_count"] == {("all",): 3}
        assert found["relay_store_commit_seconds_count"][()] > 0
        assert found["relay_pending"] == {("all",): 0, ("posts",): 0, ("off",): 0}
        assert found["relay_oldest_pending_seconds"] == {("all",): 0, ("posts",): 0, ("off",): 0}
        states = found["relay_route_state"]
        assert {labels for labels, value in states.items() if value} == {
            ("all", "healthy"), ("posts", "healthy"), ("off", "disabled")
        }  # fmt: skip
        assert {state for _, state in states} == {"healthy", "unhealthy", "paused", "disabled"}
        assert found["relay_config_last_reload_successful"] == {(): 1}
        config = (await running.get("/health"))["config"]
        assert found["relay_config_info"] == {("2", config["sha256"]): 1}
        taken = datetime.fromisoformat(config["loaded_at"]).timestamp()
        assert found["relay_config_last_reload_success_timestamp_seconds"][()] == pytest.approx(taken, abs=0.002)
        assert found["relay_config_reloads_total"] == {("taken",): 1, ("rejected",): 0}


def turned(samples: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Those that are no longer 0."""
    return {labels: value for labels, value in samples.items() if value}


async def test_the_oldest_pending_seconds_of_a_route_count_from_when_it_was_due(tmp_path: Path) -> None:
    clock = ManualClock()
    entries = f"name: late, to: {{url: SINK}}, {LATER}", "name: fine, to: {url: SINK/fine}"
    async with relay_and_sink(
        tmp_path, *entries, answer=lambda r: 200 if r.path == "/fine" else 503, clock=clock
    ) as (running, _):  # fmt: skip
        await running.post("/in/any")
        await running.logs_when(lambda items: items and items[0]["attempts"] == 1, "?route=late")
        await running.logs_when(lambda items: items, "?route=fine&status=delivered")
        clock.advance(2)  # due in an hour, so nothing waits longer than it should
        assert (await scrape(running))["relay_oldest_pending_seconds"] == {("late",): 0, ("fine",): 0}
        assert running.running is not None
        await running.running.dispatcher.stop()  # so that nobody sends it when it is due
        clock.advance(3600 + 88)
        assert (await scrape(running))["relay_oldest_pending_seconds"] == {("late",): 90, ("fine",): 0}
        assert (await running.ask("GET", "/health"))[1]["store"]["oldest_pending_s"] == 3690
        status = await running.running.store.status()
        assert status.oldest_by_route == {"late": status.oldest_due}
        assert status.oldest_due == NOON + timedelta(hours=1)


# -- errors and headers ----------------------------------------------------------------------------------------------


async def test_errors_are_json_and_nothing_is_kept_by_caches(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        expected = {
            ("GET", "/nothing"): (404, "not_found"),
            ("GET", "/logs/"): (404, "not_found"),
            ("POST", "/health"): (405, "method_not_allowed"),
            ("DELETE", "/logs"): (405, "method_not_allowed"),
            ("GET", "/reload"): (405, "method_not_allowed"),
            ("GET", "/logs?x=1"): (400, "bad_filter"),
            ("POST", "/logs/x/retry"): (404, "not_found"),
        }
        for (method, path), (status, word) in expected.items():
            found, headers, answer = await request(running, method, path)
            assert (found, answer["error"]) == (status, word), path
            assert answer.keys() == {"error", "detail"}
            assert answer["detail"]
            if status == 405:
                assert headers["Allow"] in ("GET,HEAD", "POST")
        for path in ("/health", "/health/live", "/health/ready", "/logs", "/nothing", "/logs?x=1"):
            _, headers, _ = await request(running, "GET", path)
            assert headers["Content-Type"] == "application/json"
            assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
        async with running.session.get(running.admin + "/metrics") as response:
            assert response.headers["Cache-Control"] == "no-store"
        async with running.session.head(running.admin + "/health") as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_a_bug_is_answered_with_500_and_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        monkeypatch.setattr("relay.web.read.logs", lambda *_: 1 // 0)
        assert (await running.ask("GET", "/logs")) == (500, {"error": "internal_error", "detail": "see the log"})


# -- who may ---------------------------------------------------------------------------------------------------------


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


NO_TOKENS = 'server: {listen: "127.0.0.1:0"}\nadmin: {listen: "127.0.0.1:0", hosts: [Relay.Example.com]}\n'


async def test_without_tokens_only_our_own_host_names_are_answered(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=NO_TOKENS) as (running, _):
        ours = (
            "localhost", "LOCALHOST:8081", "127.0.0.1", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:8081",
            "relay.example.com", "relay.example.com:443", "RELAY.EXAMPLE.COM",
        )  # fmt: skip
        foreign = (
            "evil.example", "evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1",
            "notlocalhost", "relay.example.com.evil.example", "[::2]:8081", "0.0.0.0", "",
        )  # fmt: skip
        for host in ours:
            assert (await request(running, "GET", "/health", {"Host": host}))[0] == 200, host
        for host in foreign:
            status, _, answer = await request(running, "GET", "/logs", {"Host": host})
            assert (status, answer["error"]) == (421, "misdirected_request"), host
            assert (await request(running, "POST", "/reload", {"Host": host}))[0] == 421, host
            assert (await request(running, "GET", "/nothing", {"Host": host}))[0] == 421, host
            for path in ("/health/live", "/health/ready"):
                assert (await request(running, "GET", path, {"Host": host}))[0] == 200


def test_the_listen_host_is_one_of_ours() -> None:
    # Loopback addresses are ours anyway, and no other is sure to be here: the gate is asked itself.
    text = b"admin: {listen: 'Relay.Internal:8081', token: operate-token-0123456789}"
    assert build(load(text, environ={}), 1, NOON).gate.hosts == {"relay.internal"}


async def test_with_tokens_a_request_without_a_valid_one_is_challenged(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS) as (running, _):
        refused: list[dict[str, str]] = [
            {}, bearer("wrong"), bearer(""), bearer(OPERATE + "x"), bearer(OPERATE[:-1]), basic("admin", "wrong"),
            basic(OPERATE, ""), {"Authorization": OPERATE}, {"Authorization": "Basic %%%"},
            {"Authorization": "Basic " + base64.b64encode(OPERATE.encode()).decode()},
            {"Authorization": f"Digest {OPERATE}"}, {"Authorization": "Bearer \xe4"}, {"Cookie": f"token={OPERATE}"},
        ]  # fmt: skip
        for headers in refused:
            for method, path in (("GET", "/logs"), ("GET", "/health"), ("POST", "/reload"), ("GET", "/nothing")):
                status, answered, answer = await request(running, method, path, headers)
                assert (status, answer["error"]) == (401, "unauthenticated"), headers
                assert answered["WWW-Authenticate"] == 'Basic realm="relay", charset="UTF-8"'
        assert (await request(running, "GET", f"/logs?token={OPERATE}"))[0] == 401
        for path in ("/health/live", "/health/ready"):
            assert (await request(running, "GET", path, bearer("wrong")))[0] == 200


async def test_a_token_that_is_not_utf_8_is_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_BYTES", os.fsdecode(b"\xff" * 32))
    head = 'server: {listen: "127.0.0.1:0"}\nadmin: {listen: "127.0.0.1:0", token: "${TOKEN_OF_BYTES}"}\n'
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=head) as (running, _):
        for password, status in ((b"\xff" * 32, 200), (b"\xff" * 31, 401)):
            headers = {"Authorization": "Basic " + base64.b64encode(b"me:" + password).decode()}
            assert (await request(running, "GET", "/logs", headers))[0] == status


async def test_a_token_is_taken_as_bearer_and_as_password_of_any_user_by_any_host_name(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS) as (running, _):
        good = [bearer(OPERATE), basic("anyone", OPERATE), basic("", OPERATE), {"Authorization": f"bearer {OPERATE}"}]
        for headers in good:
            assert (await request(running, "GET", "/logs", headers))[0] == 200
            assert (await request(running, "POST", "/reload", headers))[0] == 200
            assert (await request(running, "GET", "/logs", {**headers, "Host": "any.example"}))[0] == 200
        assert (await request(running, "GET", "/logs", {"Host": "any.example"}))[0] == 421
        assert (await request(running, "GET", "/logs", {"Host": "relay.example.com"}))[0] == 401


async def test_a_token_that_may_read_changes_nothing(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS) as (running, _):
        for headers in (bearer(READ), basic("ci", READ)):
            for path in ("/health", "/logs", "/metrics"):
                async with running.session.get(running.admin + path, headers=headers) as response:
                    assert response.status == 200
            for path in ("/reload", "/logs/dlv_0/retry"):
                status, _, answer = await request(running, "POST", path, headers)
                assert (status, answer["error"]) == (403, "forbidden")
                assert "'ci' may only read" in answer["detail"]


@pytest.mark.parametrize("head", [TOKENS, NO_TOKENS], ids=["tokens", "no tokens"])
async def test_what_another_sites_page_sends_is_refused_whatever_its_credentials(tmp_path: Path, head: str) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=head) as (running, _):
        credentials = bearer(OPERATE) if head is TOKENS else {}
        port = running.admin.rpartition(":")[2]
        foreign = [
            {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Origin": "http://127.0.0.1"},
            {"Origin": "http://127.0.0.1:1"}, {"Origin": f"http://localhost:{port}"},
            {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": ""},
            {"Origin": running.admin, "Sec-Fetch-Site": "cross-site"},
            {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        ]  # fmt: skip
        for headers in foreign:
            for path in ("/reload", "/logs/dlv_0/retry", "/nothing"):
                status, _, answer = await request(running, "POST", path, {**credentials, **headers})
                assert (status, answer["error"]) == (403, "forbidden"), headers
            # A page may send its reader here, but not have relay work for it.
            elsewhere = headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
            for mode, refused in (("no-cors", elsewhere), ("cors", elsewhere), ("navigate", False)):
                asked = {**credentials, **headers, "Sec-Fetch-Mode": mode, "Accept": "application/json"}
                assert (await request(running, "GET", "/windows", asked))[0] == (403 if refused else 200), asked
        for headers in ({}, {"Origin": running.admin}, {"Sec-Fetch-Site": "same-origin"}):
            assert (await request(running, "POST", "/reload", {**credentials, **headers}))[0] == 200
        assert (await running.get("/health", headers=credentials))["config"]["generation"] == 4


async def test_a_unix_socket_is_exempt_from_the_host_check_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    head = f'server: {{listen: "127.0.0.1:0"}}\nadmin: {{listen: {{unix: {path}, mode: "0600"}}}}\n'
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=head):
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            assert path.stat().st_mode & 0o777 == 0o600
            async with session.get("http://any.example/logs") as response:
                assert response.status == 200
            async with session.post(
                "http://any.example/reload", headers={"Origin": "https://evil.example"}
            ) as response:
                assert response.status == 403


async def test_tokens_are_asked_for_on_a_unix_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    head = f'server: {{listen: "127.0.0.1:0"}}\nadmin: {{listen: {{unix: {path}}}, token: {OPERATE}}}\n'
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=head):
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            for headers, status in (({}, 401), (bearer(OPERATE), 200)):
                async with session.get("http://any.example/logs", headers=headers) as response:
                    assert response.status == status


async def test_a_unix_socket_that_is_only_in_the_file_exempts_nobody_yet(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        path = tmp_path / "config.yaml"
        text = path.read_text().replace('admin: {listen: "127.0.0.1:0"}', f"admin: {{listen: {{unix: {tmp_path}/a}}}}")
        path.write_text(text)
        status, answer = await running.ask("POST", "/reload")
        assert (status, answer["pending_restart"]) == (200, ["admin.listen"])
        assert (await request(running, "GET", "/logs", {"Host": "evil.example"}))[0] == 421


async def test_the_last_token_cannot_be_taken_away_while_others_can_reach_the_admin_side(tmp_path: Path) -> None:
    head = f'server: {{listen: "127.0.0.1:0"}}\nadmin: {{listen: "0.0.0.0:0", token: {OPERATE}}}\n'
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=head) as (running, _):
        path = tmp_path / "config.yaml"
        text = path.read_text()
        path.write_text(text.replace(f'"0.0.0.0:0", token: {OPERATE}', '"127.0.0.1:0"'))
        status, answer = await running.ask("POST", "/reload", headers=bearer(OPERATE))
        assert (status, answer["error"]) == (422, "invalid_config")
        assert "a token is needed" in answer["detail"]
        assert (await request(running, "GET", "/logs"))[0] != 200


async def test_a_socket_handed_over_that_others_can_reach_needs_a_token_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as open_to_all:
        open_to_all.bind(("0.0.0.0", 0))
        monkeypatch.setattr("relay.handover.handed_over", lambda: HandedOver.of(admin=[open_to_all]))
        with pytest.raises(ConfigError, match="a token is needed"):
            async with relay_here(tmp_path, SOURCES):
                raise AssertionError("it must not start")


def test_every_error_code_of_the_contract_is_one_of_ours() -> None:
    words = (
        "timeout connect_error dns_error tls_error connection_reset protocol_error blocked_address http_status refused"
        " gone auth_error template_error corrupt_body expired queue_full interrupted"
    )
    assert [code.value for code in Code] == words.split()
