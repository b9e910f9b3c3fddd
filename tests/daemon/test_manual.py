"""Who did what by hand: each POST of the admin side leaves a line with the token's name, also where it was not let."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relay import journal
from relay.web.admin import Admin
from tests.daemon.test_admin import OPERATE, READ, TOKENS, bearer, body, relay_and_sink
from tests.fakes import ManualClock
from tests.harness import Received, Relay, answered

WAITS = "retry: {policy: fixed, every: 1h, attempts: 5, jitter: 0}"
KIM = "kims-own-token-0123456789"
TOKENS_OF_TWO = TOKENS.replace("tokens: {", f"tokens: {{kim: {{token: {KIM}, scope: operate}}, ")


def lines(captured: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    """What was written down of manual actions since the last look, without what says when."""
    journal.outlet.drain(10)
    found = [json.loads(line) for line in captured.readouterr().err.splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("timestamp", "level")}
        for line in found
        if line["event"] in ("manual_action", "manual_refused")
    ]


def answer(received: Received) -> int:
    return 503


async def first(running: Relay, query: str) -> dict[str, Any]:
    found = await answered(partial(running.get, f"/logs{query}", headers=bearer(READ)), lambda found: found["items"])
    item: dict[str, Any] = found["items"][0]
    return item


async def test_each_post_that_does_something_leaves_a_line_with_who_did_it(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    entries = (
        "name: fails, to: {url: SINK}, match: {model: a}, retry: none",
        f"name: waits, to: {{url: SINK}}, match: {{model: b}}, {WAITS}",
        "name: collects, to: {url: SINK}, match: {model: c}, batch: {wait: 1h}",
    )
    seen: set[str] = set()
    async with relay_and_sink(tmp_path, *entries, answer=answer, head=TOKENS_OF_TWO) as (running, _):

        async def act(path: str, **facts: Any) -> None:
            """As Kim; one line, with these facts."""
            seen.add(re.sub(r"(dlv|evt)_\w+", "{id}", re.sub("/routes/(fails|waits|gone)", "/routes/{name}", path)))
            status, said = await running.ask("POST", path, headers=bearer(KIM))
            assert status == 200, said
            assert lines(capsysbinary) == [{"event": "manual_action", "who": "kim", **facts}]

        for model in ("a", "b", "c", "c", "c"):
            await running.post("/in/any", body(model=model))
        failed, waiting = await first(running, "?status=failed"), await first(running, "?status=pending&route=waits")
        windows = (await running.get("/windows", headers=bearer(READ)))["items"]
        assert lines(capsysbinary) == []  # to look is no deed
        one, event = failed["id"], failed["event_id"]
        await act(f"/logs/{one}/retry", action="retry", delivery_id=one, route="fails")
        await first(running, "?status=failed")
        await act("/logs/retry?route=fails", action="retry", query="route=fails", count=1)
        await first(running, "?status=failed")
        await act(f"/logs/{waiting['id']}/cancel", action="cancel", delivery_id=waiting["id"], route="waits")
        await act(f"/events/{event}/replay", action="replay", event_id=event, routes=["fails"])
        pending = partial(running.get, "/logs?status=pending&route=fails", headers=bearer(READ))
        await answered(pending, lambda found: not found["items"])  # nothing of it is to be sent any more
        await act(f"/events/{event}/forget", action="forget", event_id=event)
        await act("/routes/fails/pause?reason=why+not", action="pause", route="fails", reason="why not")
        await act("/routes/fails/resume", action="resume", route="fails")
        await act("/routes/waits/test", action="test", route="waits")
        await act("/routes/gone/move?to=waits", action="move", route="gone", to="waits", count=0)
        window = windows[0]["id"]
        await act(f"/windows/{window}/hold", action="hold", delivery_id=window, route="collects")
        await act(f"/windows/{window}/flush", action="flush", delivery_id=window, route="collects")
        await running.post("/in/any", body(model="c"))
        window = (await running.get("/windows", headers=bearer(READ)))["items"][0]["id"]
        await act(f"/windows/{window}/cancel", action="cancel", delivery_id=window, route="collects")
        await act("/reload", action="reload")
        await act("/store/prune", action="prune")
        for action in ("pause", "resume"):  # all: a line for each route
            seen.add(f"/routes/{action}")
            assert (await running.ask("POST", f"/routes/{action}", headers=bearer(KIM)))[0] == 200
            told = lines(capsysbinary)
            assert {line["who"] for line in told} == {"kim"}
            assert {(line["action"], line["route"]) for line in told} == {
                (action, name) for name in ("fails", "waits", "collects")
            }
    assert {path.partition("?")[0] for path in seen} == posts()


async def test_what_would_be_pruned_is_counted_for_whom_it_may_be_and_leaves_no_line(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    store = f"store: {{url: 'sqlite:{tmp_path / 'relay.db'}', retention: 500ms}}\n"
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS_OF_TWO + store) as (running, _):

        async def prune(query: str, token: str = KIM) -> tuple[int, Any]:
            return await running.ask("POST", f"/store/prune{query}", headers=bearer(token))

        await running.post("/in/any")
        await first(running, "?status=delivered")
        there = {"events": 1, "deliveries": 1, "bodies": 0}
        assert await answered(partial(prune, "?dry_run=1"), lambda found: found[1]["events"]) == (200, there)
        assert await first(running, "?status=delivered")
        assert lines(capsysbinary) == []
        assert (await prune("?dry_run=1", READ))[0] == 403
        assert (await prune("?dry_run=yes"))[1]["detail"] == "dry_run takes 1 or 0, not 'yes'"
        lines(capsysbinary)
        assert await prune("?dry_run=0") == (200, there)
        assert [line["action"] for line in lines(capsysbinary)] == ["prune"]
        assert (await prune("?dry_run=1"))[1]["events"] == 0


def posts() -> set[str]:
    """All that the admin side takes POSTs for."""
    resources = Admin(_Nothing()).application().router.routes()  # type: ignore[arg-type]
    return {route.resource.canonical for route in resources if route.method == "POST" and route.resource is not None}


class _Nothing:
    """The handlers are listed, not called."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self) -> float:
        return 0.0


async def test_what_is_refused_is_written_down_with_who_asked_and_why(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS_OF_TWO) as (running, _):
        await running.post("/in/any")
        delivered = (await first(running, "?status=delivered"))["id"]
        elsewhere = {"Origin": "https://evil.example"}
        for path, headers, who, status, why in (
            (f"/logs/{delivered}/retry", bearer(KIM), "kim", 409, "delivered"),
            ("/routes/nobody/pause", bearer(OPERATE), "admin", 404, "there is no route 'nobody'"),
            ("/logs/retry", bearer(KIM), "kim", 400, "no filter"),
            ("/routes/r/test?x=1", bearer(KIM), "kim", 400, "unknown parameter 'x'"),
            ("/nothing", bearer(KIM), "kim", 404, "there is nothing at /nothing"),
            ("/reload", bearer(READ), "ci", 403, "may only read"),
            ("/reload", {}, None, 401, "a token is needed"),
            ("/reload", bearer("guessed"), None, 401, "a token is needed"),
            ("/reload", bearer(KIM) | elsewhere, None, 403, "cross-origin"),
        ):
            assert (await running.ask("POST", path, headers=headers))[0] == status
            [line] = lines(capsysbinary)
            assert why in line.pop("detail")
            assert line == {"event": "manual_refused", "action": path.partition("?")[0], "who": who, "status": status}
        (tmp_path / "config.yaml").write_text("rowtes: []")
        assert (await running.ask("POST", "/reload", headers=bearer(KIM)))[0] == 422
        told = lines(capsysbinary)
        assert [(line["event"], line["who"]) for line in told] == [("manual_action", "kim"), ("manual_refused", "kim")]
        assert (await running.ask("GET", "/nothing", headers=bearer(KIM)))[0] == 404
        assert lines(capsysbinary) == []


async def test_who_tries_many_tokens_does_not_fill_the_log(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head=TOKENS_OF_TWO, clock=clock) as (running, _):
        for n in range(15):
            assert (await running.ask("POST", "/reload", headers=bearer(f"guess-{n}")))[0] == 401
        assert (await running.ask("POST", "/nothing", headers=bearer(KIM)))[0] == 404
        assert [line["who"] for line in lines(capsysbinary)] == [None] * 10 + ["kim"]
        clock.advance(1)
        await running.ask("POST", "/reload")
        assert [line["who"] for line in lines(capsysbinary)] == [None]


async def test_without_tokens_it_was_anonymous(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        await running.ask("POST", "/routes/r/pause")
        await running.ask("POST", "/routes/nobody/pause")
    assert [(line["event"], line["who"]) for line in lines(capsysbinary)] == [
        ("manual_action", "anonymous"),
        ("manual_refused", "anonymous"),
    ]


async def test_who_did_it_is_written_at_any_level(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}", head="log: {level: error}\n") as (running, _):
        await running.ask("POST", "/routes/r/pause")
    assert [(line["event"], line["action"]) for line in lines(capsysbinary)] == [("manual_action", "pause")]
