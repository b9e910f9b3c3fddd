"""Three relays that share a store are one to those who watch and work them: whatever is done at one holds for all."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from relay import health
from relay.peers import Peers
from relay.stores.postgresql import membership, store
from relay.stores.postgresql.ahead import Ahead
from tests.daemon.test_stream import following
from tests.harness import Received, Relay, sink
from tests.postgres import Database
from tests.several import several_here, until

ANY = "sources: {any: {type: generic, verify: none, map: {model: body.to, entry_id: body.id}}}\n"
SOON = 3.0
"""Seconds within which all do what one was told."""


def routes(*entries: str, more: str = "") -> str:
    return ANY + more + "routes:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


async def state(relay: Relay, name: str = "r") -> dict[str, Any]:
    return next(route for route in (await relay.get("/health"))["routes"] if route["name"] == name)


async def all_say(relays: list[Relay], wanted: str) -> None:
    """Wait until the route is in this state at each."""
    for relay in relays:
        await until(lambda relay=relay: state(relay), lambda found: found["state"] == wanted)  # type: ignore[misc]


async def post(relay: Relay, number: int, to: str = "x") -> str:
    status, answer = await relay.post("/in/any", json.dumps({"id": number, "to": to}).encode())
    assert status == 200
    return str(answer["id"])


def numbers(requests: list[Received]) -> list[int]:
    return [json.loads(request.body)["id"] for request in requests]


async def done(relay: Relay, count: int) -> list[dict[str, Any]]:
    """What a relay shows of so many deliveries, once none of them waits."""
    return await relay.logs_when(
        lambda items: len(items) == count and not any(item["status"] in ("pending", "held") for item in items),
        "?limit=1000",
    )


async def test_pausing_at_one_relay_stops_all_and_resuming_at_another_starts_them(
    tmp_path: Path, database: Database
) -> None:
    async with sink() as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}")
        async with several_here(tmp_path, database.url, text) as relays:
            posted = 0
            for relay in relays:
                await post(relay, posted)
                posted += 1
            await destination.wait_count(posted)
            assert (await relays[0].ask("POST", "/routes/r/pause"))[0] == 200
            began = monotonic()
            await all_say(relays, "paused")
            assert monotonic() - began < SOON
            before = len(destination.received)
            for number in range(30):
                await post(relays[number % 3], posted)
                posted += 1
            for relay in relays:
                await until(lambda relay=relay: state(relay), lambda found: found["held"] == 30)  # type: ignore[misc]
            assert len(destination.received) == before
            assert (await relays[1].ask("POST", "/routes/r/resume"))[0] == 200
            began = monotonic()
            await destination.wait_count(posted)
            assert monotonic() - began < SOON
            await all_say(relays, "healthy")
            await done(relays[2], posted)
            assert sorted(numbers(destination.received)) == list(range(posted))


async def test_how_many_a_resume_releases_is_asked_of_the_store(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another relay took in is counted here only now and then: here just while it is released."""
    monkeypatch.setattr(store, "BEAT", 3600.0)
    async with sink() as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}")
        async with several_here(tmp_path, database.url, text, count=2) as [one, other]:
            assert (await one.ask("POST", "/routes/r/pause"))[0] == 200
            for number in range(6):
                await post(one, number)
            assert other.running is not None
            other.running.store._writing.recount = True  # type: ignore[attr-defined]
            status, answer = await other.ask("POST", "/routes/r/resume")
            assert (status, answer["changed"], answer["released"]) == (200, True, 6)


async def test_a_dead_destination_is_unhealthy_for_all_who_probe_it_one_by_one_and_tell_of_it_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FIRST_PROBE", timedelta(seconds=1))
    monkeypatch.setattr(health, "LONGEST_PROBE", timedelta(seconds=1))
    well, under_way, most = False, 0, 0
    came: list[float] = []

    async def answer(request: Received) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        came.append(monotonic())
        await asyncio.sleep(0.1)  # so that others may come meanwhile
        under_way -= 1
        return 200 if well else 503

    async with sink(answer) as destination, sink() as chat:
        policy = "retry: {policy: fixed, every: 10ms, attempts: 100, jitter: 0}, unhealthy_after: 3, concurrency: 4"
        told = f"notifiers: {{chat: {{type: webhook, url: '{chat.url}'}}}}\n"
        text = routes(f"name: r, to: {{url: '{destination.url}'}}, notify: chat, {policy}", more=told)
        async with several_here(tmp_path, database.url, text) as relays:
            for number in range(60):
                await post(relays[number % 3], number)
            await all_say(relays, "unhealthy")
            await until(_at_once(lambda: under_way), lambda found: not found)
            most, before = 0, len(came)
            for number in range(60, 90):
                await post(relays[number % 3], number)
            await destination.wait_count(before + 5)
            assert most == 1
            gaps = [later - sooner for sooner, later in zip(came[before:], came[before + 1 :], strict=False)]
            assert min(gaps) > 0.9, "each waits for its time, whoever makes it"
            assert {(await state(relay))["pending"] for relay in relays} == {90}
            well = True
            for relay in relays:
                await done(relay, 90)
            await all_say(relays, "healthy")
            delivered = Counter(numbers(destination.received[before + 5 :]))
            assert max(delivered.values()) == 1
            await chat.wait_count(2)
        kinds = [json.loads(request.body)["kind"] for request in chat.received]
        assert kinds == ["unhealthy", "recovered"]


def _at_once(look: Any) -> Any:
    async def looked() -> Any:
        return look()

    return looked


async def test_any_relay_shows_what_all_have_done(tmp_path: Path, database: Database) -> None:
    async with sink(lambda request: 200 if json.loads(request.body)["to"] == "x" else 500) as destination:
        text = routes(
            f"name: r, match: {{model: x}}, to: {{url: '{destination.url}'}}",
            f"name: waits, match: {{model: y}}, to: {{url: '{destination.url}'}},"
            " retry: {policy: fixed, every: 1h, attempts: 5}, unhealthy_after: 1000",
        )
        async with several_here(tmp_path, database.url, text) as relays:
            for number in range(30):
                await post(relays[number % 3], number, "x" if number % 2 else "y")
            await destination.wait_count(30)
            shown = [
                await relay.logs_when(lambda items: sum(item["attempts"] for item in items) == 30, "?limit=100")
                for relay in relays
            ]
            assert shown[0] == shown[1] == shown[2]
            assert Counter(item["status"] for item in shown[0]) == {"delivered": 15, "pending": 15}
            for relay in relays:
                found = await until(
                    lambda relay=relay: relay.get("/health"),  # type: ignore[misc]
                    lambda seen: seen["store"]["pending"] == 15,
                )
                assert {route["name"]: route["pending"] for route in found["routes"]} == {"r": 0, "waits": 15}
                assert len(found["relays"]) == 3
                assert sum(each["me"] for each in found["relays"]) == 1
                async with relay.session.get(relay.admin + "/", headers={"Accept": "text/html"}) as page:
                    shown_here = await page.text()
                assert "3 relays on this store" in shown_here
                assert '<p class="figure">30</p>' in shown_here, "events of all in the last hour"


async def test_the_stream_of_one_relay_has_what_another_delivers(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That somebody follows is told at once, not at the next beat.
    monkeypatch.setattr(membership, "LEASE", 6000.0)
    monkeypatch.setattr(membership, "BEAT", 600.0)
    async with sink() as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}")
        async with several_here(tmp_path, database.url, text) as relays, following(relays[0]) as stream:
            for relay in relays[1:]:  # what they do before they know of it is not in the stream
                await until(_at_once(lambda relay=relay: relay.running.store._member.followed), bool, every=0.01)
            before: set[str] = set()
            for number, relay in enumerate(relays[1:]):
                event = await post(relay, number)
                items = await stream.until("delivered", event)
                # What another one wrote is looked up when it is heard of: of the last event it may be told once more.
                assert {item["event_id"] for item in items} <= {event, *before}
                before = {event}


async def test_what_one_relay_has_in_hand_is_cancelled_at_another(tmp_path: Path, database: Database) -> None:
    busy = asyncio.Event()

    async def answer(request: Received) -> int:
        await busy.wait()
        return 200

    async with sink(answer) as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}, concurrency: 2")
        async with several_here(tmp_path, database.url, text) as relays:
            for number in range(6):
                await post(relays[0], number)
            await destination.wait_count(2)
            waiting = (await relays[1].get("/logs?status=pending&order=asc"))["items"]
            later = [item["id"] for item in waiting if item["id"] not in {one.id for one in destination.received}]
            for relay, item in zip(relays[1:], later, strict=False):
                assert (await relay.ask("POST", f"/logs/{item}/cancel"))[0] == 200
            busy.set()
            items = await done(relays[2], 6)
            assert Counter(item["status"] for item in items) == {"delivered": 4, "cancelled": 2}
            assert len(destination.received) == 4
            assert not {request.id for request in destination.received} & set(later[:2])


async def test_what_failed_or_waits_at_one_relay_is_retried_at_another(tmp_path: Path, database: Database) -> None:
    well = False
    async with sink(lambda request: 200 if well else 422 if b'"y"' in request.body else 500) as destination:
        text = routes(
            f"name: r, to: {{url: '{destination.url}'}},"
            " retry: {policy: fixed, every: 1h, attempts: 5}, unhealthy_after: 100"
        )
        async with several_here(tmp_path, database.url, text) as relays:
            await post(relays[0], 1, "y")
            await post(relays[0], 2, "x")
            items = await relays[1].logs_when(
                lambda items: sorted(item["status"] for item in items if item["attempts"]) == ["failed", "pending"]
            )
            well = True
            for item in items:
                assert (await relays[1].ask("POST", f"/logs/{item['id']}/retry"))[0] == 200
            await done(relays[2], 2)
            assert sorted(numbers(destination.received)) == [1, 1, 2, 2]


async def test_what_is_retried_where_its_route_is_not_known_is_not_held_while_another_relay_sends_it(
    tmp_path: Path, database: Database
) -> None:
    async with sink(lambda _: 422) as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}")
        async with several_here(tmp_path, database.url, text, count=2) as relays:
            await post(relays[0], 1)
            await done(relays[0], 1)
            for relay, folder, held in zip(relays, "ab", (0, 1), strict=True):
                path = tmp_path / folder / "config.yaml"
                path.write_text(path.read_text().replace("name: r,", "name: other,"))
                assert (await relay.ask("POST", "/reload"))[0] == 200

                async def would(held: int = held) -> bool:
                    status, answer = await relays[0].ask("POST", "/logs/retry?route=r&dry_run=1")
                    return (status, answer) == (200, {"count": 1, "held": held, "passed_over": 0})

                await until(would, bool)


async def test_what_one_relay_is_sending_is_retried_at_another_when_that_has_failed(
    tmp_path: Path, database: Database
) -> None:
    busy = asyncio.Event()

    async def answer(request: Received) -> int:
        if request.n > 1:
            return 200
        await busy.wait()
        return 500

    async with sink(answer) as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}, retry: {{policy: fixed, every: 1h, attempts: 5}}")
        async with several_here(tmp_path, database.url, text) as relays:
            await post(relays[0], 1)
            [request] = await destination.wait_count(1)
            assert (await relays[1].ask("POST", f"/logs/{request.id}/retry"))[0] == 200
            busy.set()
            await destination.wait_count(2)
            [item] = await done(relays[2], 1)
            assert (item["status"], item["attempts"]) == ("delivered", 2)


async def test_a_retry_at_another_relay_is_not_lost_that_is_heard_of_after_the_failure(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it put into the store was overwritten by then: due in an hour."""
    busy = asyncio.Event()
    heard: list[Callable[[], None]] = []

    async def answer(request: Received) -> int:
        if request.n > 1:
            return 200
        await busy.wait()
        return 500

    again = Peers.again
    monkeypatch.setattr(Peers, "again", lambda self, delivery: heard.append(partial(again, self, delivery)))
    async with sink(answer) as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}, retry: {{policy: fixed, every: 1h, attempts: 5}}")
        async with several_here(tmp_path, database.url, text) as relays:
            await post(relays[0], 1)
            [request] = await destination.wait_count(1)
            assert (await relays[1].ask("POST", f"/logs/{request.id}/retry"))[0] == 200
            busy.set()
            await relays[2].logs_when(lambda items: [item["attempts"] for item in items] == [1])
            await until(lambda: asyncio.sleep(0, len(heard)), lambda count: count == 2)
            monkeypatch.undo()
            for each in heard:
                each()
            [item] = await done(relays[2], 1)
            assert (item["status"], item["attempts"]) == ("delivered", 2)


async def test_a_window_that_one_relay_opened_is_sent_or_held_at_another(tmp_path: Path, database: Database) -> None:
    async with sink() as destination:
        text = routes(
            f"name: r, to: {{url: '{destination.url}'}}, payload: normalized, debounce: {{wait: 1h, by: [model]}}"
        )
        async with several_here(tmp_path, database.url, text) as relays:
            ids = {to: [await post(relay, 0, to) for relay in relays] for to in ("x", "y")}
            windows = {tuple(each["events"]): each["id"] for each in (await relays[1].get("/windows"))["items"]}
            assert windows.keys() == {tuple(ids["x"]), tuple(ids["y"])}, "one for all of them"
            assert (await relays[1].ask("POST", f"/windows/{windows[tuple(ids['x'])]}/flush"))[0] == 200
            [request] = await destination.wait_count(1)
            assert len(json.loads(request.body)["events"]) == 3
            assert (await relays[2].ask("POST", f"/windows/{windows[tuple(ids['y'])]}/hold"))[0] == 200
            [held] = (await relays[0].get("/windows"))["items"]
            assert (held["held"], held["id"]) == (True, windows[tuple(ids["y"])])
            assert (await relays[0].ask("POST", f"/windows/{held['id']}/cancel"))[0] == 200
            assert (await relays[1].get("/windows"))["items"] == []


async def test_what_one_relay_took_in_is_forgotten_at_another(tmp_path: Path, database: Database) -> None:
    busy = asyncio.Event()

    async def answer(request: Received) -> int:
        await busy.wait()
        return 200

    async with sink(answer) as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}")
        async with several_here(tmp_path, database.url, text) as relays:
            event = await post(relays[0], 1)
            await destination.wait_count(1)
            assert (await relays[1].ask("POST", f"/events/{event}/forget"))[0] == 409, "it is being sent"
            busy.set()
            await done(relays[1], 1)
            assert (await relays[1].ask("POST", f"/events/{event}/forget"))[0] == 200
            assert (await relays[2].ask("POST", f"/events/{event}/replay"))[0] == 409
            assert database.sql("SELECT count(*) FROM body") == [(0,)]


async def test_a_queue_that_takes_no_more_is_full_for_all(tmp_path: Path, database: Database) -> None:
    async with sink(lambda request: 500) as destination:
        policy = "max_pending: 30, retry: {policy: fixed, every: 1h, attempts: 5}, unhealthy_after: 1000"
        async with several_here(
            tmp_path, database.url, routes(f"name: r, to: {{url: '{destination.url}'}}, {policy}")
        ) as relays:
            for number in range(30):
                await post(relays[number % 3], number)
            for relay in relays:
                await until(lambda relay=relay: state(relay), lambda found: found["pending"] == 30)  # type: ignore[misc]
            for number in range(30, 36):
                await post(relays[number % 3], number)
            items = await relays[0].logs_when(lambda items: len(items) == 36, "?limit=100")
            assert Counter(item["status"] for item in items) == {"pending": 30, "failed": 6}
            assert {item["error"]["code"] for item in items if item["status"] == "failed"} == {"queue_full"}


async def test_a_request_that_comes_to_all_relays_at_once_is_one_event(tmp_path: Path, database: Database) -> None:
    async with sink() as destination:
        keyed = routes(f"name: r, to: {{url: '{destination.url}'}}").replace(
            "none,", "none, dedup: {key: body.id, window: 1h},"
        )
        async with several_here(tmp_path, database.url, keyed) as relays:
            for number in range(20):
                body = json.dumps({"id": number, "to": "x"}).encode()
                answers = await asyncio.gather(*(relay.post("/in/any", body) for relay in relays))
                assert {status for status, _ in answers} == {200}
                assert len({answer["id"] for _, answer in answers}) == 1
                assert sorted(answer["duplicate"] for _, answer in answers) == [False, True, True]
            await done(relays[0], 20)
            assert sorted(numbers(destination.received)) == list(range(20))


async def test_what_was_committed_when_the_connection_broke_is_sent_all_the_same(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows of it then but the database, which says that this relay has it in hand."""
    async with sink() as destination:
        text = routes(f"name: r, to: {{url: '{destination.url}'}}").replace(
            "none,", "none, dedup: {key: body.id, window: 1h},"
        )
        async with several_here(tmp_path, database.url, text, count=1) as [relay]:
            assert relay.running is not None
            raw = relay.running.store._writing._session.raw  # type: ignore[attr-defined]
            commit, execute, said = Ahead.commit, raw.execute, list[str]()

            def broken(sql: str, *values: Any) -> Any:
                found = execute(sql, *values)
                said.append(sql)
                if sql == "COMMIT" and any("INSERT INTO event" in each for each in said):
                    raise psycopg.OperationalError("the connection is lost")
                return found

            def cut(self: Ahead) -> None:
                commit(self)
                monkeypatch.undo()
                raise psycopg.OperationalError("the connection is lost")

            raw.execute = broken  # whichever way it writes this one
            monkeypatch.setattr(Ahead, "commit", cut)
            body = json.dumps({"id": 1, "to": "x"}).encode()
            assert (await relay.post("/in/any", body))[0] == 503
            monkeypatch.undo()
            status, answer = await relay.post("/in/any", body)
            assert (status, answer["duplicate"]) == (200, True)
            assert numbers(await destination.wait_count(1)) == [1]
