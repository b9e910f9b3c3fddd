"""The stores that keep the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from relay.store import Store
from relay.stores import open_store
from tests.contract.desk import Desk
from tests.fakes import ManualClock
from tests.postgres import Database

_POSTGRESQL = find_spec("relay.stores.postgresql")
_NO_POSTGRESQL = pytest.mark.skipif(
    _POSTGRESQL is None or not _POSTGRESQL.has_location, reason="relay.stores.postgresql cannot be imported"
)
BACKENDS = ("sqlite", pytest.param("postgresql", marks=_NO_POSTGRESQL))


@dataclass(frozen=True)
class Backend:
    """A store with nothing in it, by its URL."""

    url: str
    execute: Callable[[str], object]
    """Change its database while no store is open on it, in words that all databases share."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "postgresql":
        database: Database = request.getfixturevalue("database")
        return Backend(database.url, database.sql)
    path = tmp_path / "relay.db"

    def execute(sql: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(sql)

    return Backend(f"{request.param}:{path}", execute)


@pytest.fixture
async def desk(backend: Backend) -> AsyncIterator[Desk]:
    clock = ManualClock()
    stores: list[Store] = []

    async def reopen() -> Store:
        for store in stores:
            await store.close()
        stores.append(await open_store(backend.url, clock))
        return stores[-1]

    async def damage(sql: str) -> None:
        await stores[-1].close()
        backend.execute(sql)

    yield Desk(await reopen(), clock, reopen, damage)
    await stores[-1].close()
