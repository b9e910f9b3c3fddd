"""Queries on PostgreSQL: they find what those on SQLite find, end in time, and outlive the server's restarts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from relay.delivery import State
from relay.ids import DeliveryId, EventId, Ids
from relay.store import LogQuery, Unavailable
from relay.stores._sql import reader as queries
from relay.stores._sql import search, shapes
from relay.stores.postgresql import schema
from relay.stores.postgresql.connection import connect
from relay.stores.postgresql.reader import Reader
from relay.stores.sqlite import SqliteStore, open_store
from relay.web import logquery
from relay.window import debounce
from tests.contract.desk import SECOND, Desk
from tests.fakes import ManualClock
from tests.harness import PATIENCE
from tests.likeness import copy
from tests.postgres import Cluster, Database
from tests.test_search import EVERYTHING, a_query, all_pages, some_traffic

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1::bigint UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@asynccontextmanager
async def both(path: Path, clock: ManualClock, database: Database) -> AsyncIterator[tuple[SqliteStore, Reader]]:
    """A store as it is in a file, and a reader of the same in PostgreSQL."""
    store = await open_store(path, clock=clock)
    copy(path, database.url)
    reader = await Reader.open(database.url, store.ids, "logs")
    try:
        yield store, reader
    finally:
        await reader.close()
        await store.close()


@pytest.fixture
async def logs(database: Database) -> AsyncIterator[Reader]:
    with connect(database.url, "test") as connection:
        schema.migrate(connection)
    reader = await Reader.open(database.url, Ids(1), "logs")
    yield reader
    await reader.close()


async def never() -> SqliteStore:
    raise AssertionError


@pytest.mark.parametrize("most", [4096, 3], ids=["shapes", "most without a shape"])
@pytest.mark.parametrize("seed", range(2))
async def test_a_search_finds_what_it_would_on_sqlite(
    tmp_path: Path, database: Database, seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "MOST_SHAPES", most)
    draw, clock, path = random.Random(seed), ManualClock(), tmp_path / "relay.db"
    store = await open_store(path, clock=clock)
    await some_traffic(Desk(store, clock, never), store, clock, draw)
    await store.close()
    if seed % 2:
        for name in ("_COUNTED", "_GATHERED", "_WAITING"):
            monkeypatch.setattr(search, name, 1)
    async with both(path, clock, database) as (sqlite, postgres):
        query = logquery.parse([("status", EVERYTHING), ("limit", "97")], clock.now(), sqlite.ids)
        everything = await all_pages(sqlite, query)
        assert len(everything) > 300
        assert await all_pages(postgres, query) == everything
        for _ in range(100):
            given = a_query(draw, clock, everything)
            pairs = [
                *given.items(),
                ("limit", draw.choice(("1", "7", "1000"))),
                ("order", draw.choice(("asc", "desc"))),
            ]
            query = logquery.parse(pairs, clock.now(), sqlite.ids)
            assert await all_pages(postgres, query) == await all_pages(sqlite, query), pairs


async def test_whatever_is_asked_is_answered_as_on_sqlite(tmp_path: Path, database: Database) -> None:
    draw, clock, path = random.Random(7), ManualClock(), tmp_path / "relay.db"
    store = await open_store(path, clock=clock)
    desk = Desk(store, clock, never)
    await some_traffic(desk, store, clock, draw)
    desk.groupings["open"] = debounce(SECOND, 10 * SECOND, (), timedelta())
    for _ in range(3):
        await desk.tell(route="open")
    await store.close()
    async with both(path, clock, database) as (sqlite, postgres):
        one = sqlite._logs
        assert await postgres.counts() == await one.counts()
        assert await postgres.first_due() == await one.first_due()
        assert await postgres.oldest_pending() == await one.oldest_pending() is not None
        assert await postgres.windows() == await one.windows() != []
        assert await postgres.states("order") == await one.states("order")
        since = clock.now() - timedelta(hours=12)
        assert await postgres.pace(since) == await one.pace(since) != []
        for route in ("www", "search", "audit", "open", "nobody"):
            assert await postgres.unfinished(route) == await one.unfinished(route)
            assert await postgres.next_due(route, since) == await one.next_due(route, since)
        deliveries = [item for item in await all_pages(sqlite, LogQuery()) if item.status != "unmatched"]
        for item in draw.sample(deliveries, 100):
            number = sqlite.ids.number(item.id)[1]
            assert await postgres.delivery(DeliveryId(number)) == await one.delivery(DeliveryId(number)) is not None
            event = EventId(sqlite.ids.number(item.event_id or "")[1])
            assert await postgres.deliveries_of(event) == await one.deliveries_of(event) != []
            assert await postgres.event(event) == await one.event(event) is not None
        for item in await all_pages(sqlite, LogQuery(status=("rejected",))):
            number = sqlite.ids.number(item.id)[1]
            assert await postgres.rejection(number) == await one.rejection(number) is not None
        assert await postgres.delivery(DeliveryId(1)) is None
        counted = await sqlite.status()
        status = await postgres.status()
        assert status.backend == "postgresql"
        assert (status.pending, status.held) == (counted.pending, counted.held)
        assert (status.oldest_pending, status.oldest_due) == (counted.oldest_pending, counted.oldest_due)
        assert status.oldest_by_route == counted.oldest_by_route
        assert status.size_bytes > 1 << 20
        assert status.location == f"postgresql://127.0.0.1:{database.cluster.port}/{database.name}"
        assert database.sql("SHOW server_version")[0][0].startswith(status.version)
        assert State.PENDING.value in {item.status for item in deliveries}


async def test_a_window_comes_with_all_its_events(tmp_path: Path, database: Database) -> None:
    clock, path = ManualClock(), tmp_path / "relay.db"
    store = await open_store(path, clock=clock)
    desk = Desk(store, clock, never)
    desk.groupings["www"] = debounce(SECOND, 10 * SECOND, (), timedelta())
    for number in range(3):
        await desk.tell(desk.event(b"%d" % number))
    clock.advance(60)
    [taken] = await desk.claim("www")
    await store.close()
    async with both(path, clock, database) as (_, postgres):
        taken.reserved = True
        taken.collected = None
        found = await postgres.collected(taken)
        assert found.collected is not None
        assert len(found.collected.events) == 3
        assert found.event.body == b"2"
        assert found.event.sha256


async def test_readers_cannot_write(logs: Reader) -> None:
    with pytest.raises(Unavailable, match="read-only"):
        await logs.ask("DELETE FROM event")
    assert (await logs.search(LogQuery())).items == []


async def test_a_query_that_takes_too_long_is_cut_off(logs: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    before = logs._connection
    monkeypatch.setattr(queries, "QUERY_SECONDS", 0.05)
    with pytest.raises(Unavailable, match=r"the query took longer than 0\.05 s: narrow it down"):
        await logs.ask(ENDLESS)
    monkeypatch.undo()
    assert (await logs.search(LogQuery())).items == []
    assert logs._connection is before


async def test_several_queries_of_one_search_have_one_deadline(logs: Reader) -> None:
    began = time.monotonic()
    async with logs._snapshot():
        await logs._ask("SELECT 1", (), began + 0.5)
        with pytest.raises(Unavailable, match="took longer than"):
            await logs._ask(ENDLESS, (), began + 0.5)
    assert time.monotonic() - began < 3
    assert await logs.ask("SELECT 1") == [(1,)]


async def test_who_waits_for_longer_than_a_query_may_take_is_told_so(
    logs: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "QUERY_SECONDS", 0.3)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(logs, ENDLESS)) for _ in range(20)]
    told = [task.result() for task in tasks]
    assert {"took longer" in words or "busy with other queries" in words for words in told} == {True}
    assert sum("busy" in words for words in told) > 15
    monkeypatch.undo()
    assert await logs.ask("SELECT 1") == [(1,)]


async def outcome(logs: Reader, sql: str) -> str:
    try:
        return str(await logs.ask(sql))
    except Unavailable as error:
        return str(error)


@pytest.mark.parametrize("inside", [False, True])
async def test_a_question_that_is_given_up_harms_no_other(logs: Reader, database: Database, inside: bool) -> None:
    async def within() -> None:
        async with logs._snapshot():
            await logs._ask(ENDLESS)

    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(within() if inside else logs.ask(ENDLESS))
            await until(
                database,
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%RECURSIVE n(i)%' AND state = 'active'"
                " AND pid <> pg_backend_pid()",
            )
            task.cancel()
        assert task.cancelled()
        assert await logs.ask("SELECT 1") == [(1,)]
    assert len(database.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'relay logs%'")) == 1


async def until(database: Database, sql: str) -> None:
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(database.sql, sql):
        assert time.monotonic() < end, sql
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("immediate", [True, False])
async def test_a_restart_of_the_server_is_not_noticed_by_the_next_query(
    logs: Reader, postgres: Cluster, immediate: bool
) -> None:
    await asyncio.to_thread(postgres.restart, immediate)
    assert (await logs.search(LogQuery())).items == []
    postgres.restart(immediate)
    assert await logs.ask("SELECT 1") == [(1,)]


async def test_without_a_server_queries_fail_and_come_back_with_it(logs: Reader, postgres: Cluster) -> None:
    await asyncio.to_thread(postgres.stop)
    try:
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"the database cannot be used: .*refused"):
                await logs.search(LogQuery())
    finally:
        postgres.start()
    assert await logs.ask("SELECT 1") == [(1,)]


async def test_a_snapshot_whose_connection_is_lost_does_not_go_on_with_another(
    logs: Reader, database: Database
) -> None:
    async with logs._snapshot():
        database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'relay logs%'")
        for _ in range(2):
            with pytest.raises(Unavailable, match="the database cannot be used"):
                await logs._ask("SELECT 1")
    assert await logs.ask("SELECT 1") == [(1,)]


async def test_a_snapshot_sees_one_state(logs: Reader, database: Database) -> None:
    async with logs._snapshot():
        assert await logs._ask("SELECT count(*) FROM tally") == [(0,)]
        database.sql("INSERT INTO relay.tally VALUES ('www', 1, 7, 0)")
        assert await logs._ask("SELECT count(*) FROM tally") == [(0,)]
    assert (await logs.counts())["www"].pending == 7


async def test_a_server_that_says_nothing_is_not_waited_for(
    logs: Reader, postgres: Cluster, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(pid,)] = await logs.ask("SELECT pg_backend_pid()")
    monkeypatch.setattr(queries, "QUERY_SECONDS", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="did not answer within"):
            await logs.ask("SELECT 1")
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    assert await logs.ask("SELECT 1") == [(1,)]


async def test_closing_ends_what_is_being_asked(logs: Reader, database: Database) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outcome(logs, ENDLESS))
        waiting = group.create_task(outcome(logs, "SELECT 1"))
        await until(
            database,
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%RECURSIVE n(i)%' AND state = 'active'"
            " AND pid <> pg_backend_pid()",
        )
        await logs.close()
        await logs.close()
    assert task.result() == waiting.result() == "relay is shutting down"
    with pytest.raises(Unavailable, match="shutting down"):
        await logs.search(LogQuery())


async def test_a_reader_of_nothing_says_what_is_wrong(postgres: Cluster) -> None:
    with pytest.raises(Unavailable, match=r'the database cannot be used: .*"nowhere" does not exist'):
        await Reader.open(postgres.url("nowhere"), Ids(1), "logs")
