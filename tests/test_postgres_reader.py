"""Queries on PostgreSQL: they find what those on SQLite find, end in time, and outlive the server's restarts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
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
from tests.test_search import EVERYTHING, MOST_PAGES, a_query, all_pages, pages, some_traffic

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
        for _ in range(25):
            given = a_query(draw, clock, everything)
            pairs = [
                *given.items(),
                ("limit", draw.choice(("1", "7", "1000"))),
                ("order", draw.choice(("asc", "desc"))),
            ]
            query = logquery.parse(pairs, clock.now(), sqlite.ids)
            most = MOST_PAGES[query.limit]
            assert await pages(postgres, query, most) == await pages(sqlite, query, most), pairs


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


async def test_closing_just_as_an_answer_comes_leaves_no_connection(
    logs: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = logs._run

    async def last(*values: Any) -> list[Any]:
        found = await run(*values)
        await logs.close()
        return found

    monkeypatch.setattr(logs, "_run", last)
    assert await logs.ask("SELECT 1", []) == [(1,)]
    assert logs._connection is None


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
    with pytest.raises(psycopg.OperationalError, match=r'"nowhere" does not exist'):
        await Reader.open(postgres.url("nowhere"), Ids(1), "logs")


# Of each hundred events one is unmatched; what is old is of a route, a state and a code of its own.
MANY = """
    SET search_path = relay;
    INSERT INTO shape (id, key, route, source, type, event)
        SELECT n, n::text, CASE WHEN n > 40 THEN 'old' ELSE 'www' END, 'blog', 'strapi', 'entry.' || n
        FROM generate_series(1, 50) n UNION ALL SELECT 51, 'unmatched', '', 'blog', 'strapi', 'entry.1';
    INSERT INTO event SELECT i.id, 'blog', 'strapi', 'entry.1', n, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
            'e' || n % 500, NULL, NULL, '[]', '', 1,
            CASE WHEN n % 100 = 0 THEN 0 ELSE 1 END, CASE WHEN n % 100 = 0 THEN 51 END
        FROM generate_series(1, 50000) n, LATERAL (SELECT (1767225600000 + n * 1000::bigint) << 21) i(id);
    INSERT INTO delivery (id, event_id, route, state, held_reason, held_at, due, first_due, attempts, tries, "trigger",
            code, updated_at, shape, entry_id)
        SELECT i.id, i.id, CASE WHEN n > 10000 THEN 'www' ELSE 'old' END, s.state,
            CASE WHEN s.state = 'held' THEN 'paused' END, CASE WHEN s.state = 'held' THEN 1 END, n, n, 0, 0, 'event',
            CASE WHEN n > 10000 THEN 200 ELSE 500 END, n, CASE WHEN n > 10000 THEN 1 + n % 40 ELSE 41 + n % 10 END,
            'e' || n % 500
        FROM generate_series(1, 50000) n, LATERAL (SELECT (1767225600000 + n * 1000::bigint) << 21) i(id),
            LATERAL (SELECT CASE WHEN n > 10000 THEN 'delivered' WHEN n % 3 = 0 THEN 'failed'
                WHEN n <= 100 THEN 'pending' WHEN n <= 200 THEN 'held' ELSE 'cancelled' END) s(state)
        WHERE n % 100 > 0;
    INSERT INTO mention SELECT 'several', (1767225600000 + n * 1000::bigint) << 21 FROM generate_series(1, 200) n;
"""
SEARCHES = {
    "newest": LogQuery(limit=5),
    "oldest": LogQuery(limit=5, ascending=True),
    "a route": LogQuery(limit=5, route=("www",)),
    "an old route": LogQuery(limit=5, route=("old",)),
    "far back": LogQuery(limit=5, route=("www",), before=(1767225600000 + 20_000_000) << 21),
    "an old route from its beginning": LogQuery(limit=5, route=("old",), ascending=True),
    "a source": LogQuery(limit=5, source=("blog",)),
    "an event": LogQuery(limit=5, event=("entry.50",)),
    "a state": LogQuery(limit=5, status=("failed",)),
    "states": LogQuery(limit=5, status=("failed", "cancelled")),
    "what waits": LogQuery(limit=5, status=("pending", "held")),
    "delivered": LogQuery(limit=5, status=("delivered",)),
    "a state of an old route": LogQuery(limit=5, status=("failed",), route=("old",)),
    "an old code": LogQuery(limit=5, code=((500, 599),)),
    "an entry": LogQuery(limit=5, entry_id=("e7",)),
    "an entry of several": LogQuery(limit=5, entry_id=("several",)),
    "an event's id": LogQuery(limit=5, event_id=(EventId((1767225600000 + 12_345_000) << 21),)),
    "an event's id and a route": LogQuery(
        limit=5, event_id=(EventId((1767225600000 + 12_345_000) << 21),), route=("www",)
    ),
    "words": LogQuery(limit=5, q="entry.4"),
    "an entry's beginning": LogQuery(limit=5, q="e49"),
    "nothing": LogQuery(limit=5, q="zzz"),
    "unmatched": LogQuery(limit=5, status=("unmatched",)),
    "unmatched of an event": LogQuery(limit=5, status=("unmatched",), event=("entry.1",)),
    "unmatched of an entry": LogQuery(limit=5, status=("unmatched",), entry_id=("e0",)),
}


@pytest.mark.parametrize("analyzed", [False, True])
async def test_no_search_walks_the_table(
    logs: Reader, database: Database, monkeypatch: pytest.MonkeyPatch, analyzed: bool
) -> None:
    for module, name in ((search, "_COUNTED"), (search, "_FEW"), (search, "_GATHERED"), (search, "ERRORS_IN")):
        monkeypatch.setattr(module, name, 300)
    database.sql(MANY)
    if analyzed:
        database.sql("ANALYZE")
    asked: list[tuple[str, Sequence[Any]]] = []
    ask = logs._ask

    async def noting(sql: str, values: Sequence[Any] = (), deadline: float | None = None) -> list[Any]:
        asked.append((sql, values))
        return await ask(sql, values, deadline)

    for name, query in SEARCHES.items():
        asked.clear()
        with monkeypatch.context() as patched:
            patched.setattr(logs, "_ask", noting)
            found = (await logs.search(query)).items
        assert bool(found) == (name != "nothing"), name
        for sql, values in asked:
            if sql.startswith("SELECT"):
                [(plan,)] = await logs.ask(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", values)
                assert _most_read(plan[0]["Plan"]) < 2500, (name, sql, plan)


def _most_read(node: dict[str, Any]) -> float:
    """Of all rows that one step of a plan looked at."""
    mine = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return float(max([mine, *(_most_read(each) for each in node.get("Plans", []))]))
