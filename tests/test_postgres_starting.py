"""How a relay comes by its connections to PostgreSQL: what it waits for."""

from __future__ import annotations

import asyncio

import pytest

from relay.clock import SystemClock
from relay.stores.postgresql import open_url
from tests.harness import PATIENCE
from tests.postgres import Database


def rest(url: str) -> str:
    return url.removeprefix("postgresql:")


def limit(database: Database, connections: int) -> None:
    database.cluster.psql(f'ALTER DATABASE "{database.name}" CONNECTION LIMIT {connections}')


# Five connections: writer, claims, logs, health, membership.
@pytest.mark.parametrize("free", range(5))
async def test_a_start_that_gets_no_more_connections_gives_back_those_it_has_and_waits(
    database: Database, free: int
) -> None:
    held = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'relay %'"
    said: list[str] = []
    waiting = asyncio.Event()

    class Clock(SystemClock):
        async def sleep(self, seconds: float) -> None:
            waiting.set()
            await super().sleep(0.01)

    def gone() -> bool:
        return database.cluster.psql(f"{held} AND datname = '{database.name}'") == [(0,)]

    limit(database, free)
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            started = group.create_task(open_url(rest(database.url), Clock(), said.append))
            await waiting.wait()
            while not gone():
                await asyncio.sleep(0.01)
            limit(database, -1)
    finally:
        limit(database, -1)
    assert len(said) == 1
    assert "cannot open the store" in said[0]
    assert "too many connections" in said[0]
    assert database.sql("SELECT count(*) FROM process") == [(1,)], "it says that it lives when it has all of them"
    await started.result().close()
