"""Two relays' stores on one PostgreSQL, in one process: what holds whoever is quicker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from relay.delivery import Mark
from relay.lane import Order
from relay.store import Store, Unavailable
from relay.stores import open_store
from tests.contract.desk import SECOND, Desk, delivered
from tests.fakes import ManualClock
from tests.harness import PATIENCE
from tests.postgres import Database

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
async def desks(database: Database) -> AsyncIterator[tuple[Desk, Desk]]:
    clock = ManualClock()
    stores = [await open_store(database.url, clock) for _ in range(2)]

    async def reopen() -> Store:
        return stores[0]

    yield Desk(stores[0], clock, reopen), Desk(stores[1], clock, reopen)
    for store in stores:
        await store.close()


@contextlib.contextmanager
def stopped_before(one: Desk, place: str, what: str, meanwhile: Callable[[], Awaitable[object]]) -> Iterator[None]:
    """A store that does not go on, for longer than its lease, just before (reading) or after (writing) it does that."""
    part = getattr(one.store, place)
    real = getattr(part, what)

    async def late(*values: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(part, what, real)
            if place == "_writer":
                found = await real(*values, **options)
                await meanwhile()
                return found
            await meanwhile()
            return await real(*values, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, what, late)
        yield


async def buried(desk: Desk, database: Database) -> None:
    """Others take its relay for dead, and it has noticed that and lives on."""
    member = desk.store._member  # type: ignore[attr-defined]
    before = member.id
    database.sql(f"DELETE FROM process WHERE id = {before}")
    database.sql("NOTIFY relay, 'look'")
    async with asyncio.timeout(PATIENCE):
        while member.id == before or member.lapsed():
            await asyncio.sleep(0.01)


async def taken_over(desks: tuple[Desk, Desk], database: Database) -> None:
    """The first one is buried, and the second one sends what it had in hand."""
    await buried(desks[0], database)
    async with asyncio.timeout(PATIENCE):
        while not (found := await desks[1].claim()):
            await asyncio.sleep(0.01)
    assert len(found) == 1


async def test_what_was_born_in_the_hand_of_a_relay_that_stopped_is_not_sent_by_it(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    one, _ = desks
    event = one.event()
    with stopped_before(one, "_writer", "add", lambda: taken_over(desks, database)):
        added = await one.store.add(event, [one.owed(event)])
    assert not added.ready
    assert added.looks == {"www"}


async def test_what_a_relay_claimed_before_it_stopped_is_not_sent_by_it(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    one, other = desks
    await other.add("www")
    database.sql("UPDATE delivery SET owner = NULL")
    with stopped_before(one, "_claims", "ask", lambda: taken_over(desks, database)), pytest.raises(Unavailable):
        await one.claim()


async def test_a_window_that_a_relay_took_before_it_stopped_is_not_sent_by_it(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    one, other = desks
    await other.add("www")
    database.sql("UPDATE delivery SET owner = NULL")
    [delivery] = await one.claim()
    with stopped_before(one, "_claims", "collected", lambda: taken_over(desks, database)):
        assert await one.store.take(delivery, one.clock.now()) is None


async def wait_for(database: Database, sql: str, value: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while database.sql(sql) != [(value,)]:
            await asyncio.sleep(0.01)


async def test_an_event_posted_to_two_relays_at_the_same_moment_is_one(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    mark = Mark(b"entry 7", b"v1", 60 * SECOND)

    async def accept(desk: Desk) -> tuple[bool, int]:
        event = desk.about()
        added = await desk.store.add(event, [desk.owed(event)], mark)
        return added.duplicate, added.event

    with psycopg.connect(database.url, options="-c search_path=relay") as stranger:
        stranger.execute("LOCK TABLE tally IN EXCLUSIVE MODE")  # which is written last
        async with asyncio.TaskGroup() as group:
            first = group.create_task(accept(desks[0]))
            await wait_for(database, WAITING, 1)
            second = group.create_task(accept(desks[1]))
            await wait_for(database, WAITING, 2)
            stranger.rollback()
    (was, one), (is_, same) = first.result(), second.result()
    assert (was, is_, one) == (False, True, same)
    assert database.sql("SELECT count(*) FROM event") == [(1,)]


async def test_what_joins_a_lane_while_the_first_of_it_ends_is_let_go(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    one, other = desks
    await one.follow(www=Order.ROUTE)
    first = await one.tell()
    await other.follow(www=Order.ENTRY)  # its config was read again, the other one's not yet
    one.wait(1)
    with psycopg.connect(database.url, options="-c search_path=relay") as stranger:
        stranger.execute("LOCK TABLE tally IN EXCLUSIVE MODE")  # which is written last
        async with asyncio.TaskGroup() as group:
            recorded = one.store.record(delivered(first))
            await wait_for(database, WAITING, 1)
            joined = group.create_task(other.tell())
            await wait_for(database, WAITING, 2)
            stranger.rollback()
            await recorded
    assert await other.claimed() == [joined.result().id]
