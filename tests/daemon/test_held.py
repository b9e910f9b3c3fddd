"""A relay that starts held: on a store that was restored from a backup, and because somebody said so."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay import daemon
from relay.clock import SystemClock, rfc3339
from relay.store import Unavailable
from relay.stores.sqlite import SqliteStore
from relay.stores.sqlite.survey import Survey
from tests.fakes import NOON
from tests.harness import relay_here, relay_process, sink, write_config

TEXT = """
sources: {{open: {{type: generic, verify: none, map: {{action: body.action}}}}}}
routes:
  - {{name: up, match: {{action: up}}, to: {{url: "{url}/up"}}}}
  - {{name: later, match: {{action: later}}, to: {{url: "{url}/later"}}, delay: 1h}}
"""
WHY = f"restored from a backup of {rfc3339(NOON)}: 'relay resume --all' when what waits may be sent"


def restored(folder: Path) -> None:
    """Put a backup of the store in its place."""
    path = folder / "relay.db"
    with Survey(path) as survey:
        survey.copy(folder / "copy.db", NOON, lambda done, total: None)
    for old in folder.glob("relay.db*"):
        old.unlink()
    (folder / "copy.db").rename(path)


async def test_a_restored_backup_sends_nothing_until_somebody_has_looked(tmp_path: Path) -> None:
    async with sink() as there:
        text = TEXT.format(url=there.url)
        async with relay_here(tmp_path, text) as relay:
            await relay.post("/in/open", b'{"action": "later"}')
        restored(tmp_path)
        async with relay_here(tmp_path, text.replace(", delay: 1h", "")) as relay:
            await relay.post("/in/open", b'{"action": "up"}')
            items = (await relay.get("/logs"))["items"]
            assert {item["status"] for item in items} == {"held"}
            assert {route["reason"] for route in (await relay.get("/routes"))["routes"]} == {WHY}
            assert there.received == []
            health = await relay.get("/health")
            assert health["status"] == "degraded", "a restore that nobody attends to sends nothing, and must be seen"
            assert "up is paused" in health["checks"]["routes"]
            await relay.ask("POST", "/routes/resume")
            await there.wait_for(lambda received: {one.path for one in received} >= {"/up"})


async def test_that_it_was_restored_is_told_once(tmp_path: Path) -> None:
    async with sink() as there:
        text = TEXT.format(url=there.url)
        async with relay_here(tmp_path, text):
            pass
        restored(tmp_path)
        for start in ("first", "second"):
            async with relay_process(tmp_path, text) as relay:
                await relay.stop()
            told = [line for line in relay.lines() if line.get("event") == "started_held"]
            assert [line["reason"] for line in told] == [WHY], f"{start} start"
        async with relay_here(tmp_path, text) as again:
            states = {route["state"] for route in (await again.get("/routes"))["routes"]}
            assert states == {"paused"}, "a restart resumes nothing"
            await again.ask("POST", "/routes/resume")
        async with relay_here(tmp_path, text) as again:
            await again.post("/in/open", b'{"action": "up"}')
            await there.wait_count(1)


async def test_what_waits_for_routes_that_are_gone_is_held_when_they_return(tmp_path: Path) -> None:
    async with sink() as there:
        text = TEXT.format(url=there.url)
        async with relay_here(tmp_path, text) as relay:
            await relay.post("/in/open", b'{"action": "later"}')
        restored(tmp_path)
        async with relay_here(tmp_path, text.partition("  - {name: later")[0]):
            pass
        async with relay_here(tmp_path, text) as relay:
            [later] = [route for route in (await relay.get("/routes"))["routes"] if route["name"] == "later"]
            assert (later["state"], later["reason"], later["held"]) == ("paused", WHY, 1)


async def test_resuming_all_resumes_what_is_gone_as_well(tmp_path: Path) -> None:
    async with sink() as there:
        text = TEXT.format(url=there.url)
        without = text.partition("  - {name: later")[0]
        async with relay_here(tmp_path, text) as relay:
            await relay.post("/in/open", b'{"action": "later"}')
        restored(tmp_path)
        async with relay_here(tmp_path, without) as relay:
            status, answer = await relay.ask("POST", "/routes/resume")
            assert (status, [each["route"]["name"] for each in answer["routes"]]) == (200, ["up"])
            assert there.received == []
        async with relay_here(tmp_path, text.replace(", delay: 1h", "")) as relay:
            assert {route["state"] for route in (await relay.get("/routes"))["routes"]} == {"healthy"}


async def test_resuming_all_leaves_what_a_person_paused_before_it_was_removed(tmp_path: Path) -> None:
    async with sink() as there:
        text = TEXT.format(url=there.url)
        async with relay_here(tmp_path, text) as relay:
            await relay.ask("POST", "/routes/later/pause?reason=freeze")
            await relay.post("/in/open", b'{"action": "later"}')
        async with relay_here(tmp_path, text.partition("  - {name: later")[0]) as relay:
            await relay.ask("POST", "/routes/resume")
        async with relay_here(tmp_path, text) as relay:
            states = {route["name"]: route["state"] for route in (await relay.get("/routes"))["routes"]}
            assert states == {"up": "healthy", "later": "paused"}


async def test_held_pauses_everything_before_anything_is_sent(tmp_path: Path) -> None:
    async with sink() as there:
        path = write_config(tmp_path, TEXT.format(url=there.url))
        async with daemon.running(path, SystemClock(), held=True) as running:
            states = {running.oversight.state(name).value for name in running.reloader.runtime.routing.routes}
            reasons = {running.oversight.of(name).reason for name in running.reloader.runtime.routing.routes}
            assert states == {"paused"}
            assert reasons == {"started with --held: 'relay resume --all' when what waits may be sent"}


async def test_what_a_person_paused_keeps_its_reason(tmp_path: Path) -> None:
    async with sink() as there:
        path = write_config(tmp_path, TEXT.format(url=there.url))
        async with relay_here(tmp_path, TEXT.format(url=there.url)) as relay:
            await relay.ask("POST", "/routes/up/pause?reason=freeze")
        async with daemon.running(path, SystemClock(), held=True) as running:
            assert running.oversight.of("up").reason == "freeze"


async def test_where_the_hold_cannot_be_written_down_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise Unavailable("the disk is full")

    path = write_config(tmp_path, TEXT.format(url="http://127.0.0.1:1"))
    monkeypatch.setattr(SqliteStore, "save_states", fails)
    with pytest.raises(Unavailable, match="all routes were to be paused"):
        async with daemon.running(path, SystemClock(), held=True):
            raise AssertionError("it takes events")
