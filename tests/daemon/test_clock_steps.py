"""Somebody sets the wall clock of a whole relay: what waits is not given up for it, and it is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay import journal
from relay.steps import KNOWN
from relay.store import Unavailable
from tests.fakes import ManualClock, until
from tests.harness import Received, Relay, relay_here, sink
from tests.postgres import Database

HOUR = timedelta(hours=1)
RETRY = "unhealthy_after: 100, retry: {policy: fixed, every: 1m, attempts: 50, jitter: 0}"


def config(url: str, more: str) -> str:
    return f"sources: {{any: {{type: generic, verify: none}}}}\nroutes: [{{name: r, to: {{url: '{url}'}}, {more}}}]\n"


def said(captured: pytest.CaptureFixture[bytes], event: str) -> list[dict[str, Any]]:
    journal.outlet.drain(10)
    lines = [json.loads(line) for line in captured.readouterr().err.splitlines()]
    return [line for line in lines if line["event"] == event]


class Sometimes:
    """A destination that answers as it is told to."""

    def __init__(self) -> None:
        self.status = 503

    def __call__(self, received: Received) -> int:
        return self.status


async def look(relay: Relay) -> None:
    """The clocks are looked at, and whatever is due is begun."""
    assert relay.running is not None
    dispatcher = relay.running.dispatcher
    steps = dispatcher._stepping._steps
    seen = steps._seen
    dispatcher._schedule._woken.set()  # it looks every few seconds, and whenever it is woken
    await until(lambda: steps._seen is not seen and steps.back is None and not steps.unsaved)


def attempted(number: int) -> Callable[[list[dict[str, Any]]], object]:
    return lambda items: items and items[-1]["attempts"] >= number


@pytest.mark.parametrize("restarted", [False, True])
async def test_nothing_is_given_up_by_a_step_ahead_of_the_clock(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], restarted: bool
) -> None:
    clock, answer = ManualClock(), Sometimes()
    async with sink(answer) as destination:
        text = config(destination.url, f"max_age: 10m, {RETRY}")
        async with relay_here(tmp_path, text, clock) as relay:
            await relay.post("/in/any")
            await relay.logs_when(attempted(1))
            clock.advance(2)
            clock.step(HOUR)
            await look(relay)
            await relay.logs_when(attempted(2))
            [line] = said(capsysbinary, "clock_set_ahead")
            assert (line["level"], line["seconds"]) == ("warning", 3600)
            if not restarted:
                await _ages(relay, clock)
        if restarted:
            async with relay_here(tmp_path, text, clock) as relay:
                await _ages(relay, clock)


async def _ages(relay: Relay, clock: ManualClock) -> None:
    """It is sent for as long as it may be, and then given up."""
    for number in range(3, 11):
        clock.advance(60)
        await look(relay)
        await relay.logs_when(attempted(number))
    clock.advance(240)
    await look(relay)
    [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
    assert item["error"]["code"] == "expired"


async def test_a_step_that_nobody_has_looked_at_yet_gives_nothing_up_either(tmp_path: Path) -> None:
    clock, going = ManualClock(), asyncio.Event()
    reached = asyncio.Event()

    async def first_waits(received: Received) -> int:
        reached.set()
        await going.wait()
        return 200

    async with sink(first_waits) as destination:
        text = config(destination.url, "max_age: 10m, concurrency: 1")
        async with relay_here(tmp_path, text, clock) as relay:
            for _ in range(2):
                await relay.post("/in/any")
            await reached.wait()
            clock.step(HOUR)
            going.set()  # and the second one, which waits in memory, is begun at once
            await relay.logs_when(lambda items: [item["status"] for item in items] == ["delivered"] * 2)


async def test_a_step_ahead_and_back_changes_no_age(tmp_path: Path) -> None:
    clock, answer = ManualClock(), Sometimes()
    async with (
        sink(answer) as destination,
        relay_here(tmp_path, config(destination.url, f"max_age: 10m, {RETRY}"), clock) as relay,
    ):
        await relay.post("/in/any")
        await relay.logs_when(attempted(1))
        clock.step(HOUR)
        await look(relay)
        await relay.logs_when(attempted(2))
        clock.advance(5)
        clock.step(-HOUR)
        await look(relay)
        for number in range(3, 12):
            clock.advance(60)
            await look(relay)
            await relay.logs_when(attempted(number))
        clock.advance(60)  # ten minutes and five seconds
        await look(relay)
        [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
        assert item["error"]["code"] == "expired"


async def test_a_clock_that_is_behind_at_the_start_is_told_and_puts_nothing_off(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    clock, answer = ManualClock(), Sometimes()
    async with sink(answer) as destination:
        text = config(destination.url, RETRY)
        async with relay_here(tmp_path, text, clock) as relay:
            await relay.post("/in/any")
            await relay.logs_when(attempted(1))
            assert (await relay.get("/health"))["checks"]["clock"] == "ok"
        assert said(capsysbinary, "clock_set_back") == []
        clock.step(-HOUR)
        async with relay_here(tmp_path, text, clock) as relay:
            await look(relay)
            [line] = said(capsysbinary, "clock_set_back")
            assert (line["level"], line["seconds"], line["deliveries"]) == ("warning", 3600, 1)
            health = await relay.get("/health")
            assert health["checks"]["clock"].startswith("it is 3600 s behind the newest entry of the store")
            assert health["status"] == "ok", "it is told, and counts for nothing"
            answer.status = 200
            clock.advance(60)
            await look(relay)
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")


async def test_a_step_ahead_that_cannot_be_kept_at_once_is_kept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, answer = ManualClock(), Sometimes()
    async with sink(answer) as destination:
        text = config(destination.url, f"max_age: 10m, {RETRY}")
        async with relay_here(tmp_path, text, clock) as relay:
            await relay.post("/in/any")
            await relay.logs_when(attempted(1))
            assert relay.running is not None
            stepping = relay.running.dispatcher._stepping
            real, failed = stepping._store.save_states, list[str]()

            async def full(kind: str, *values: Any, **options: Any) -> None:
                if failed or kind != KNOWN:
                    return await real(kind, *values, **options)
                failed.append(kind)
                raise Unavailable("the disk is full")

            monkeypatch.setattr(stepping._store, "save_states", full)
            clock.step(HOUR)
            relay.running.dispatcher._schedule._woken.set()
            await until(lambda: failed and stepping._steps.unsaved)
            await look(relay)
            await relay.logs_when(attempted(2))
        async with relay_here(tmp_path, text, clock) as relay:
            await _ages(relay, clock)


async def test_a_relay_whose_clock_is_ahead_gives_up_nothing_that_others_took_in(
    tmp_path: Path, database: Database
) -> None:
    clock, answer = ManualClock(datetime.now(UTC)), Sometimes()
    async with sink(answer) as destination:
        text = f"store: {{url: '{database.url}'}}\n" + config(destination.url, f"max_age: 10m, {RETRY}")
        async with relay_here(tmp_path, text, clock) as relay:
            await relay.post("/in/any")
            await relay.logs_when(attempted(1))
        answer.status = 200
        async with relay_here(tmp_path, text, ManualClock(datetime.now(UTC) + HOUR)) as relay:
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")
