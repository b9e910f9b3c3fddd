"""Two relays' stores on one PostgreSQL, in one process: what holds whoever is quicker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from relay.delivery import Mark
from relay.store import Store
from relay.stores import open_store
from tests.contract.desk import SECOND, Desk
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
