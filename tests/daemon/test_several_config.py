"""Relays that share a store and for a while do not have the same config: what one has disabled stays held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from tests.fakes import until as until_seen
from tests.harness import LISTEN, Relay, relay_here, sink
from tests.postgres import Database
from tests.several import several_here, until

SOURCES = "sources: {any: {type: generic, verify: none}}\n"
POSTED = 6


def routes(url: str) -> str:
    entries = "".join(f"  - {{name: {name}, to: {{url: '{url}/{name}'}}}}\n" for name in ("first", "second"))
    return f"{SOURCES}routes:\n{entries}"


async def switch(folder: Path, relay: Relay, *, on: bool) -> None:
    """One of them reads that the first route is enabled, or no longer so."""
    path = folder / "config.yaml"
    text = path.read_text().replace("enabled: false, name: first", "name: first")
    path.write_text(text if on else text.replace("name: first", "enabled: false, name: first"))
    assert (await relay.ask("POST", "/reload"))[0] == 200


def states(database: Database, route: str = "first") -> dict[str, int]:
    """How many deliveries of a route are in each state, and why they are held."""
    where = f"WHERE route = '{route}' GROUP BY 1"
    return dict(database.sql(f"SELECT concat_ws(' ', state, held_reason), count(*) FROM delivery {where}"))


async def delivered(relay: Relay) -> None:
    """Wait until all of the first route has arrived."""
    query = "/logs?route=first&status=delivered"
    await until(lambda: relay.get(query), lambda found: len(found["items"]) == POSTED)


async def post(relays: list[Relay]) -> None:
    for number in range(POSTED):
        assert (await relays[number % len(relays)].post("/in/any"))[0] == 200


async def test_what_one_relay_has_disabled_is_held_until_the_last_one_has_it_enabled_again(
    tmp_path: Path, database: Database
) -> None:
    async with sink() as destination:
        async with several_here(tmp_path, database.url, routes(destination.url)) as relays:
            assert (await relays[0].ask("POST", "/routes/pause"))[0] == 200
            for relay in relays:
                await until(lambda relay=relay: relay.get("/routes/first"), lambda found: found["state"] == "paused")  # type: ignore[misc]
            await post(relays)
            assert states(database) == {"held paused": POSTED}
            await switch(tmp_path / "a", relays[0], on=False)
            assert states(database) == {"held disabled": POSTED}
            # The others do not know of it yet, and have something to release.
            status, answer = await relays[1].ask("POST", "/routes/resume")
            assert (status, [each["released"] for each in answer["routes"]]) == (200, [0, POSTED])
            assert states(database) == {"held disabled": POSTED}
            for number in (1, 2):
                await switch(tmp_path / "abc"[number], relays[number], on=False)
            for number in (0, 1):
                await switch(tmp_path / "abc"[number], relays[number], on=True)
                assert states(database) == {"held disabled": POSTED}
            assert all(one.path == "/second" for one in destination.received)
            await switch(tmp_path / "c", relays[2], on=True)
            await delivered(relays[2])
            assert sum(one.path == "/first" for one in destination.received) == POSTED


@asynccontextmanager
async def held_here(tmp_path: Path, url: str, text: str) -> AsyncIterator[Relay]:
    """A relay with events that wait for its first route, which is paused."""
    async with several_here(tmp_path, url, text, count=1) as [stays]:
        assert (await stays.ask("POST", "/routes/first/pause"))[0] == 200
        await post([stays])
        yield stays


def disabled_there(tmp_path: Path, url: str, text: str) -> AbstractAsyncContextManager[Relay]:
    """Another relay, which has that route disabled."""
    (tmp_path / "other").mkdir()
    off = text.replace("name: first", "enabled: false, name: first")
    return relay_here(tmp_path / "other", f"{LISTEN}store: {{url: '{url}'}}\n{off}")


async def test_what_a_relay_had_disabled_is_sent_by_others_when_it_has_ended(
    tmp_path: Path, database: Database
) -> None:
    async with sink() as destination:
        text = routes(destination.url)
        async with held_here(tmp_path, database.url, text) as stays:
            async with disabled_there(tmp_path, database.url, text):
                status, answer = await stays.ask("POST", "/routes/first/resume")
                assert (status, answer["changed"], answer["released"]) == (200, True, 0)
                assert states(database) == {"held disabled": POSTED}
            await delivered(stays)


async def test_what_was_disabled_by_a_relay_that_nobody_saw_is_sent_when_it_has_ended(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came and went while the connection was away on which another one sees who lives."""
    looks = list[object]()

    def lost(connection: object) -> None:
        looks.append(connection)
        raise psycopg.OperationalError("the connection was lost")

    async with sink() as destination:
        text = routes(destination.url)
        async with held_here(tmp_path, database.url, text) as stays:
            assert stays.running is not None
            with monkeypatch.context() as away:
                away.setattr(stays.running.store._member, "_look", lost)  # type: ignore[attr-defined]
                await until_seen(lambda: len(looks) >= 2)
                async with disabled_there(tmp_path, database.url, text):
                    assert (await stays.ask("POST", "/routes/first/resume"))[0] == 200
                    assert states(database) == {"held disabled": POSTED}
            await delivered(stays)
