"""What holds of lanes, windows and everything else that is owed holds over three relays that share a store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay import health
from tests.daemon.test_conservation import World, config, hold_out
from tests.postgres import Database
from tests.several import several_here

pytestmark = pytest.mark.long

LONG = pytest.mark.soak
"""One of them is enough for every day."""
SEEDS = [pytest.param(seed, 0.02 * (seed % 2), marks=() if seed == 5 else LONG) for seed in range(10)]


class Worlds(World):
    """Three relays, of which any is asked."""

    GRACE = 3.0

    def __init__(self, folder: Path, seed: int, database: Database, ahead: float) -> None:
        super().__init__(folder, seed)
        self._url = database.url
        self._ahead = ahead
        self._connection = psycopg.connect(database.url, autocommit=True, options="-c search_path=relay")

    def rows(self, sql: str, *values: object) -> list[Any]:
        return self._connection.execute(sql.replace("?", "%s").encode(), values or None).fetchall()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        text = config(self.sink.url, self.away, self.disabled)
        async with several_here(self.folder, self._url, text, ahead=self._ahead) as relays:
            self.relays = relays
            yield

    def close(self) -> None:
        self._connection.close()


@pytest.mark.parametrize(("seed", "ahead"), SEEDS)
async def test_what_is_owed_is_always_accounted_for_by_three_relays(
    tmp_path: Path, database: Database, seed: int, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FIRST_PROBE", timedelta(seconds=0.02))
    monkeypatch.setattr(health, "LONGEST_PROBE", timedelta(seconds=0.08))
    world = Worlds(tmp_path, seed, database, ahead)
    with contextlib.closing(world):
        await hold_out(world, monkeypatch)
