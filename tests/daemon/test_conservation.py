"""Whatever is done to a relay, by destinations and by hand: nothing owed is lost, nothing is sent against orders."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from relay import health, journal
from relay.ids import Ids
from tests.harness import Received, Relay, Sink, relay_here, sink

pytestmark = pytest.mark.long

ROUTES = {
    "plain": "max_pending: 40",
    "fragile": "unhealthy_after: 2",
    "doomed": "unhealthy_after: 2, disable_after: 4",
    "debounced": "debounce: {wait: 20ms, max_wait: 60ms}",
    "split": "debounce: {wait: 10ms, by: [entry_id]}, order: entry",
    "batched": "batch: {max: 4, wait: 20ms}",
    "entry": "order: entry, concurrency: 4",
    "latest": "order: latest, concurrency: 4",
    "whole": "order: route",
    "slow": "rate: 100/s, delay: 5ms, concurrency: 1",
}
SOURCES = """
sources:
  any:
    type: generic
    verify: none
    map: {action: body.action, entry_id: body.id, stage: body.stage}
    dedup: {key: body.key, window: 1h}
"""
RETRY = "retry: {policy: fixed, every: 10ms, attempts: 3, jitter: 0.5}"
ACTIONS = ("publish", "update", "delete")


def config(url: str, away: set[str], disabled: set[str]) -> str:
    entries = [
        f"  - {{name: {name}, to: {{url: '{url}/{name}'}}, payload: normalized, {RETRY}, {policy},"
        f" enabled: {str(name not in disabled).lower()}}}\n"
        for name, policy in ROUTES.items()
        if name not in away
    ]
    return SOURCES + "routes:\n" + "".join(entries)


class World:
    """Relays that share a store, their only destination, and what may be said of both: here, of one relay."""

    GRACE = 0.0
    """Seconds after which what one relay is told not to send is not sent by any."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.owed = 0
        self.number = 0
        self.events: list[str] = []
        self.away: set[str] = set()
        self.disabled: set[str] = set()
        self.forbidden: dict[
            str, float
        ] = {}  # what was kept from being sent and was not in flight then, and since when
        self.wrong: list[str] = []
        self.relays: list[Relay] = []
        self.sink: Sink

    @property
    def relay(self) -> Relay:
        """Any of them."""
        return self.random.choice(self.relays)

    def rows(self, sql: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.folder}/relay.db?mode=ro", uri=True)) as connection:
            return connection.execute(sql, values).fetchall()

    def answer(self, request: Received) -> int:
        """What the destination says. It also looks whether it may be asked at all."""
        number = self.ids.number(request.id)[1]
        [(state,)] = self.rows("SELECT state FROM delivery WHERE id = ?", number)
        if state in ("delivered", "merged"):
            self.wrong.append(f"{request.id} was sent to {request.path} while {state}: {self.told(number)}")
        if monotonic() > self.forbidden.get(request.id, inf) + self.GRACE:
            self.wrong.append(f"{request.id} was sent after it was cancelled or held")
        return self.random.choices([200, 500, 422, 410], [60, 30, 9, 1])[0]

    def told(self, number: int) -> list[Any]:
        """The attempts that were made for a delivery."""
        return self.rows('SELECT n, "trigger", status, error_code FROM attempt WHERE delivery_id = ?', number)

    # -- what is done ------------------------------------------------------------------------------------------------

    async def post(self) -> None:
        for _ in range(self.random.randint(1, 12)):
            self.number += 1
            body = {
                "id": self.random.choice(["a", "b", "c", None]),
                "action": self.random.choice(ACTIONS),
                "stage": self.random.choice(["draft", "published"]),
                "key": str(self.random.randint(1, 60)) if self.random.random() < 0.2 else f"n{self.number}",
            }
            status, answer = await self.relay.post("/in/any", json.dumps(body).encode())
            assert status == 200
            if not answer["duplicate"]:
                self.owed += len(answer["routes"])
            self.events.append(answer["id"])

    async def pause(self) -> None:
        await self.relay.ask("POST", f"/routes/{self.route()}/pause")
        self.forbid("held")

    async def resume(self) -> None:
        self.forbidden.clear()  # what of it may still not go is forbidden anew by `check`
        await self.relay.ask("POST", f"/routes/{self.route()}/resume")

    async def retry(self) -> None:
        self.forbidden.clear()
        if self.random.random() < 0.3:
            assert (await self.relay.ask("POST", "/logs/retry?all=1"))[0] == 200
        for item in self.some("failed", "cancelled", "pending"):
            await self.relay.ask("POST", f"/logs/{item}/retry")

    async def cancel(self) -> None:
        for item in self.some("pending", "held"):
            await self.relay.ask("POST", f"/logs/{item}/cancel")
        self.forbid("cancelled")

    async def replay(self) -> None:
        if self.events:
            status, answer = await self.relay.ask("POST", f"/events/{self.random.choice(self.events)}/replay")
            if status == 200:
                self.owed += len(answer["routes"])

    async def windows(self) -> None:
        self.forbidden.clear()
        for window in (await self.relay.get("/windows"))["items"][:3]:
            verb = self.random.choice(["flush", "hold", "cancel"])
            await self.relay.ask("POST", f"/windows/{window['id']}/{verb}")

    async def reload(self) -> None:
        self.forbidden.clear()
        names = list(ROUTES)
        self.away = set(self.random.sample(names, self.random.randint(0, 2)))
        self.disabled = set(self.random.sample(names, self.random.randint(0, 2)))
        for relay in self.relays:
            assert relay.running is not None
            path = relay.running.reloader.path
            head = path.read_text().partition("\nsources:")[0]
            path.write_text(head + config(self.sink.url, self.away, self.disabled))
            assert (await relay.ask("POST", "/reload"))[0] == 200
        self.forbid("held")

    def route(self) -> str:
        return self.random.choice([name for name in ROUTES if name not in self.away])

    def some(self, *states: str) -> list[str]:
        places = ", ".join("?" * len(states))
        rows = self.rows(f"SELECT id FROM delivery WHERE state IN ({places}) ORDER BY random() LIMIT 5", *states)
        return [self.ids.text("dlv_", number) for (number,) in rows]

    def forbid(self, state: str) -> None:
        """From now on what is in this state may not be sent, but for what was on its way already."""
        couriers = [
            courier
            for relay in self.relays
            if relay.running is not None
            for courier in relay.running.dispatcher._couriers.values()
        ]
        sending = {number for courier in couriers for number in courier.sending}
        for (number,) in self.rows("SELECT id FROM delivery WHERE state = ?", state):
            if number not in sending:
                self.forbidden.setdefault(self.ids.text("dlv_", number), monotonic())

    @property
    def ids(self) -> Ids:
        """How their ids are written."""
        running = self.relays[0].running
        assert running is not None
        return running.store.ids

    # -- what always holds -------------------------------------------------------------------------------------------

    def check(self) -> None:
        assert self.wrong == []
        states = dict(self.rows("SELECT state, count(*) FROM delivery GROUP BY state"))
        assert sum(states.values()) == self.owed, "nothing is lost, nothing appears"
        assert (
            self.rows(
                "SELECT m.id, c.state FROM delivery m LEFT JOIN delivery c ON c.id = m.merged_into"
                " WHERE m.state = 'merged' AND (c.id IS NULL OR c.state = 'merged')"
            )
            == []
        ), "each merged one has one carrier, which is none itself"
        assert (
            self.rows(
                "SELECT route, lane FROM delivery WHERE lane IS NOT NULL AND state IN ('pending', 'held')"
                " GROUP BY route, lane HAVING sum(CASE blocked WHEN 0 THEN 1 ELSE 0 END) != 1"
            )
            == []
        ), "of each lane one may go"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A relay from its start to its end."""
        text = config(self.sink.url, self.away, self.disabled)
        async with relay_here(self.folder, text) as relay:
            self.relays = [relay]
            yield


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_owed_is_always_accounted_for(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_PROBE", timedelta(seconds=0.02))
    monkeypatch.setattr(health, "LONGEST_PROBE", timedelta(seconds=0.08))
    await hold_out(World(tmp_path, seed), monkeypatch)


async def hold_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do this and that to it; in the end all that was not cancelled has arrived."""
    monkeypatch.setattr(journal, "crashed", lambda what: world.wrong.append(traceback.format_exc()))
    deeds = [world.post] * 6 + [
        world.pause, world.resume, world.resume, world.retry, world.cancel, world.replay, world.windows, world.reload,
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        world.sink = await stack.enter_async_context(sink(world.answer))
        for _ in range(3):
            async with world.running():
                for _ in range(25):
                    await world.random.choice(deeds)()
                    world.check()
            world.forbidden.clear()
        # In the end the destination is well, all routes are there, and everything that is not cancelled goes through.
        world.away, world.disabled = set(), set()
        world.sink.answer = lambda request: 200
        async with world.running():
            await world.relay.ask("POST", "/routes/resume")
            for window in (await world.relay.get("/windows"))["items"]:
                await world.relay.ask("POST", f"/windows/{window['id']}/flush")
            await world.relay.logs_when(lambda items: not items, "?status=pending,held")
            world.check()
            states = Counter(dict(world.rows("SELECT state, count(*) FROM delivery GROUP BY state")))
            assert states["delivered"] > 0
            assert set(states) <= {"delivered", "failed", "merged", "cancelled"}
