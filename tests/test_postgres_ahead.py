"""The common batch on PostgreSQL is sent in one go; whatever is out of the common is made step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from relay.delivery import Mark
from relay.stores.postgresql import PostgresStore, ahead, open_url, transaction
from relay.stores.postgresql.bulk import ATTEMPT_TYPES
from relay.stores.postgresql.committer import Committer
from relay.stores.postgresql.connection import connect
from tests.contract.desk import SECOND, Desk, delivered
from tests.fakes import ManualClock
from tests.postgres import Database


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    clock = ManualClock()
    store: PostgresStore = await open_url(database.url.removeprefix("postgresql:"), clock)

    store._counting.cancel()  # what counts anew is made step by step

    async def never() -> PostgresStore:
        raise AssertionError

    yield Desk(store, clock, never)
    await store.close()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each batch was written: a word for each round trip in one go, and one for what went step by step."""
    made: list[str] = []
    answers, try_ = ahead._answers, Committer._ahead

    def counted(*values: object) -> object:
        made.append("trip")
        return answers(*values)  # type: ignore[arg-type]

    def tried(self: Committer, session: object, adds: object, *values: object) -> bool:
        done = try_(self, session, adds, *values)  # type: ignore[arg-type]
        if adds and not done:
            made.append("step by step")
        return done

    monkeypatch.setattr(ahead, "_answers", counted)
    monkeypatch.setattr(Committer, "_ahead", tried)
    return made


async def added(desk: Desk, key: bytes, body: bytes = b"{}") -> bool:
    """Store an event; whether it was a repeat."""
    event = desk.event(body)
    done = await desk.store.add(event, [desk.owed(event)], Mark(key, b"v", 60 * SECOND))
    return done.duplicate


async def test_a_plain_batch_takes_two_round_trips(desk: Desk, trips: list[str]) -> None:
    await added(desk, b"of a shape that is known from now on")
    trips.clear()
    await asyncio.gather(*(added(desk, b"%d" % number) for number in range(50)))
    assert trips == ["trip", "trip"]


async def test_a_batch_with_a_repeat_is_rolled_back_and_made_step_by_step(desk: Desk, trips: list[str]) -> None:
    await added(desk, b"1")
    trips.clear()
    assert await asyncio.gather(*(added(desk, key) for key in (b"0", b"1", b"2"))) == [False, True, False]
    assert trips == ["trip", "trip", "step by step"], "sent, rolled back, made again"
    assert desk.counts() == {"www": (3, 0)}


async def test_a_result_of_a_delivery_that_was_cancelled_meanwhile_is_told_of(desk: Desk) -> None:
    first, second = [(await desk.add("www"))[0] for _ in range(2)]
    await desk.store.cancel(first.id, desk.clock.now())
    await asyncio.gather(*(desk.store.record(delivered(each)) for each in (first, second)))
    assert await desk.states(first, second) == ["cancelled", "delivered"]
    assert desk.counts() == {}


@pytest.mark.parametrize("number", [0, 2000])
@pytest.mark.parametrize("known", [False, True], ids=["as made", "analysed"])
async def test_a_result_is_recorded_without_looking_at_all_that_waits_of_its_route(
    desk: Desk, database: Database, known: bool, number: int
) -> None:
    await asyncio.gather(*(desk.add("www") for _ in range(number)))
    if known:
        database.sql("ANALYZE relay.delivery")
    kinds = [f"{kind.kind}[]" for kind in (*transaction._UPDATE_TYPES, *ATTEMPT_TYPES)] + ["bigint[]"]
    with connect(database.url, "writer") as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE recording ({', '.join(kinds)}) AS {transaction._RECORD}")
        plan = connection.execute(f"EXPLAIN EXECUTE recording ({', '.join(['NULL'] * len(kinds))})").fetchall()
    said = "\n".join(row[0] for row in plan)
    assert "Index Scan using delivery_pkey on delivery d" in said, said


async def test_a_batch_larger_than_the_buffers_of_both_sides_gets_through(desk: Desk, trips: list[str]) -> None:
    await added(desk, b"known")
    trips.clear()
    body = b"x" * 500_000
    await asyncio.gather(*(added(desk, b"%d" % number, body) for number in range(60)))
    assert "step by step" not in trips
    assert desk.counts() == {"www": (61, 0)}


async def test_statements_that_the_server_has_forgotten_are_prepared_again(desk: Desk, trips: list[str]) -> None:
    await added(desk, b"1")
    store = desk.store
    assert isinstance(store, PostgresStore)

    def forget(connection: object, deltas: object) -> None:
        store._writing._session.bulk("DEALLOCATE ALL", [])  # type: ignore[union-attr]

    await store._writer.call(forget, about=())
    trips.clear()
    assert not await added(desk, b"2")
    assert "step by step" in trips
    trips.clear()
    assert not await added(desk, b"3")
    assert trips == ["trip", "trip"]


async def test_a_connection_that_was_lost_before_the_commit_costs_nobody_an_answer(
    desk: Desk, database: Database
) -> None:
    await added(desk, b"1")
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'relay writer%'")
    assert not await added(desk, b"2")
    assert desk.counts() == {"www": (2, 0)}
