"""The stores that keep the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store import Store
from relay.stores import open_store
from tests.contract.desk import Desk
from tests.fakes import ManualClock

BACKENDS = ("sqlite",)


@pytest.fixture(params=BACKENDS)
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    clock = ManualClock()
    url = {"sqlite": f"sqlite:{tmp_path}/relay.db"}[request.param]
    stores: list[Store] = []

    async def reopen() -> Store:
        for store in stores:
            await store.close()
        stores.append(await open_store(url, clock))
        return stores[-1]

    yield Desk(await reopen(), clock, reopen)
    await stores[-1].close()
