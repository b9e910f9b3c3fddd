"""Pruning on PostgreSQL: one relay at a time, in nobody's way, and nothing that somebody is about to use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from types import SimpleNamespace

import psycopg
import pytest

from relay.delivery import Delivery, Mark, Owed
from relay.store import Haste, Pruned, Unavailable, quickly
from relay.stores import open_store
from relay.stores._sql import rows, tables
from relay.stores.postgresql import PostgresStore, pruning
from relay.stores.postgresql.connection import connect, connect_async
from relay.window import debounce
from tests.contract.desk import SECOND, Desk, delivered
from tests.fakes import ManualClock
from tests.postgres import Cluster, Database

DAY = timedelta(days=1)


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    clock = ManualClock()
    store = await open_store(database.url, clock)

    async def never() -> PostgresStore:
        raise AssertionError

    yield Desk(store, clock, never)
    await store.close()


@pytest.fixture
def other(desk: Desk, database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with connect(database.url, "other") as connection:
        yield connection


async def ended(desk: Desk, *routes: str) -> list[Delivery]:
    deliveries = await desk.add(*routes)
    for delivery in deliveries:
        await desk.store.record(delivered(delivery))
    return deliveries


async def prune(desk: Desk) -> Pruned:
    return await desk.store.prune(desk.clock.now(), DAY, DAY)


async def test_a_pruning_that_is_cancelled_twice_leaves_no_connection(
    desk: Desk, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await connect_async(database.url, "pruning")

    async def cancelled(sql: str) -> None:
        raise asyncio.CancelledError

    async def connected(url: str, role: str) -> object:
        monkeypatch.setattr(made, "execute", cancelled)
        return made

    monkeypatch.setattr(pruning, "connect_async", connected)
    with pytest.raises(asyncio.CancelledError):
        await prune(desk)
    assert made.closed


async def test_one_relay_at_a_time_prunes(desk: Desk, other: psycopg.Connection[tuple[object, ...]]) -> None:
    await ended(desk, "www")
    desk.wait(2 * DAY.total_seconds())
    other.execute("SELECT pg_advisory_lock($1)", [pruning._LOCK])
    assert await prune(desk) == Pruned()
    other.execute("SELECT pg_advisory_unlock($1)", [pruning._LOCK])
    assert await prune(desk) == Pruned(events=1, deliveries=1)


async def test_who_has_pruned_is_in_nobodys_way_also_before_the_server_knows_that_its_connection_is_closed(
    desk: Desk, other: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    closing: list[psycopg.AsyncConnection[tuple[object, ...]]] = []

    async def later(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        closing.append(connection)

    with monkeypatch.context() as patching:
        patching.setattr(psycopg.AsyncConnection, "close", later)
        await prune(desk)
    assert other.execute("SELECT pg_try_advisory_lock($1)", [pruning._LOCK]).fetchone() == (True,)
    for connection in closing:
        await connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM event WHERE id = $1 FOR UPDATE",
        "UPDATE event SET matched = matched + 1 WHERE id = $1",
        "SELECT 1 FROM delivery WHERE event_id = $1 FOR UPDATE",
    ],
)
async def test_what_somebody_else_has_in_hand_is_passed_over(
    desk: Desk, other: psycopg.Connection[tuple[object, ...]], sql: str
) -> None:
    [held], _ = await ended(desk, "www"), await ended(desk, "www")
    desk.wait(2 * DAY.total_seconds())
    with other.transaction():
        other.execute(sql, [held.event.id])
        assert await prune(desk) == Pruned(events=1, deliveries=1)
    assert await desk.store.delivery(held.id) is not None
    assert await prune(desk) == Pruned(events=1, deliveries=1)


async def test_what_is_merged_into_what_somebody_else_has_in_hand_is_passed_over(
    desk: Desk, other: psycopg.Connection[tuple[object, ...]]
) -> None:
    desk.groupings["www"] = debounce(SECOND, 10 * SECOND, (), timedelta())
    carrier, merged = await desk.tell(), await desk.tell()
    await desk.store.cancel(carrier.id, desk.clock.now())
    desk.wait(2 * DAY.total_seconds())
    with other.transaction():
        other.execute("SELECT 1 FROM delivery WHERE id = $1 FOR UPDATE", [carrier.id])
        assert await prune(desk) == Pruned()
    assert await desk.store.delivery(merged.id) is not None
    assert (await prune(desk)).deliveries == 2


async def test_what_is_owed_anew_while_its_event_is_pruned_is_not_promised(desk: Desk, database: Database) -> None:
    [old] = await ended(desk, "www")
    desk.wait(2 * DAY.total_seconds())
    again = desk.owe(old.event, "www")
    assert (await prune(desk)).events == 1
    assert isinstance(desk.store, PostgresStore)
    with pytest.raises(KeyError):
        await desk.store._writer.owe(old.event.id, 7, [Owed(again, 100)])
    assert database.sql("SELECT count(*) FROM relay.delivery") == [(0,)]
    assert desk.counts().get("www", (0, 0)) == (0, 0)


async def test_what_repeats_may_be_known_by_is_forgotten_in_time(desk: Desk, database: Database) -> None:
    for number in range(3):
        await desk.send(await desk.tell(mark=Mark(b"%d" % number, b"v", (1 + number) * DAY)))
    desk.wait(2.5 * DAY.total_seconds())
    await desk.store.prune(desk.clock.now(), 100 * DAY, 100 * DAY)
    assert database.sql("SELECT key FROM relay.seen") == [(b"2",)]


async def test_how_much_was_pruned_is_kept(desk: Desk, database: Database) -> None:
    for _ in range(2):
        newest = (await ended(desk, "www", "search"))[1]
        desk.wait(2 * DAY.total_seconds())
        await prune(desk)
    kept = dict(database.sql("SELECT key, value FROM relay.meta"))
    assert (kept["pruned_events"], kept["pruned_deliveries"]) == ("2", "4")
    assert kept[tables.PRUNED_UP_TO] == str(newest.event.id)
    assert kept[tables.PRUNED_DELIVERIES_UP_TO] == str(newest.id)


async def test_a_shape_goes_only_when_no_relay_can_know_it_any_more(
    desk: Desk, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_SHAPES_KEPT", 1)
    keys = "SELECT key FROM relay.shape WHERE route = '{}'"
    await ended(desk, "gone")
    await desk.add("www")
    [(before,)] = database.sql(keys.format("gone"))
    desk.wait(2 * DAY.total_seconds())
    await prune(desk)
    [(retired,)] = database.sql(keys.format("gone"))
    assert retired.startswith("retired ")
    assert retired.endswith(before)
    [(used,)] = database.sql(keys.format("www"))
    assert not used.startswith("retired ")
    # This relay has known it: a delivery that it stores is found.
    [delivery] = await desk.add("gone")
    assert await desk.states(delivery) == ["pending"]
    await desk.store.record(delivered(delivery))
    desk.wait(2 * DAY.total_seconds())
    await prune(desk)
    assert database.sql(keys.format("gone")) == [(retired,)], "a relay that runs may know it"
    now = round(desk.clock.now().timestamp() * 1000)
    database.sql(f"UPDATE relay.process SET started_at = {now}")
    await prune(desk)
    assert database.sql(keys.format("gone")) == []
    assert len(database.sql("SELECT 1 FROM relay.shape")) == 1


async def test_without_a_server_pruning_says_so(desk: Desk, postgres: Cluster) -> None:
    postgres.stop()
    try:
        with pytest.raises(Unavailable, match="the database cannot be used"):
            await prune(desk)
    finally:
        postgres.start()


@pytest.mark.parametrize(("later", "walks", "rate"), [(30, 1, 110.0), (30, 2, 220.0), (61, 1, 50.0)])
async def test_events_of_the_last_minute_say_how_many_are_to_be_removed_in_a_second(
    desk: Desk, database: Database, later: int, walks: int, rate: float
) -> None:
    database.sql(f"""
        INSERT INTO relay.event (id, source, type, received_at, headers, sha256, size, matched)
        SELECT {rows.first_id(desk.clock.now())} + n, 'blog', 'strapi', 0, '[]', '', 0, 1
        FROM generate_series(1, 6000) n
    """)
    async with await connect_async(database.url, "other") as connection:
        doing = pruning._Pruning(connection, None, quickly)
        doing._now = desk.clock.now() + timedelta(seconds=later)
        doing._walks = walks
        assert await doing._rate() == pytest.approx(rate)


@pytest.mark.parametrize(
    ("haste", "bodies", "each"),
    [(Haste.GENTLY, DAY, 3 / 50.0), (Haste.GENTLY, DAY / 2, 3 / 100.0), (Haste.QUICKLY, DAY, 0.0)],
)
async def test_a_step_is_followed_by_the_rest_that_its_pace_says(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, haste: Haste, bodies: timedelta, each: float
) -> None:
    asked: list[float] = []
    slept: list[float] = []
    sleep = asyncio.sleep

    def rest(pace: pruning.Pace, now: float, worked: float, each: float) -> float:
        asked.append(each)
        return 12.5

    async def passing(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    for _ in range(3):
        await ended(desk, "www")
    desk.wait(2 * DAY.total_seconds())
    monkeypatch.setattr(pruning.Pace, "rest", rest)
    monkeypatch.setattr(pruning, "asyncio", SimpleNamespace(sleep=passing))
    done = await desk.store.prune(desk.clock.now(), DAY, bodies, haste=lambda: haste)
    assert (done.events, asked, slept[0]) == (3, [each], 12.5)


@pytest.mark.parametrize(
    ("worked", "each", "goal"),
    [
        (0.01, 0.1, 0.1),  # it waits for the next one
        (0.04, 0.1, 0.1),
        (0.08, 0.1, 0.16),  # no more than half of the time is worked
        (0.01, 5.0, 1.0),  # somebody may want it to make haste
        (0.01, 0.0, 0.02),  # in haste
    ],
)
def test_steps_follow_each_other_as_events_come_whatever_they_take(worked: float, each: float, goal: float) -> None:
    now = 1000.0
    pace = pruning.Pace(now)
    for _ in range(100):
        now += worked
        now += pace.rest(now, worked, each)
    assert (now - 1000.0) / 100 == pytest.approx(goal, rel=0.02)


def test_steps_that_came_late_are_made_up_for_within_bounds() -> None:
    now = 1000.0
    pace = pruning.Pace(now)
    now += 3600.0  # something else took an hour
    rests = []
    for _ in range(100):
        now += 0.01
        rests.append(pace.rest(now, 0.01, 0.1))
        now += rests[-1]
    assert 11 <= rests.count(0.01) <= 13
    assert rests[-1] == pytest.approx(0.09)
