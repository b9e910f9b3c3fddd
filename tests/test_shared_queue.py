"""The model of the queue (see `test_sqlite_queue`), of three stores on one PostgreSQL: whatever is done, at any."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import defaultdict
from typing import Any

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.delivery import Result
from relay.ids import DeliveryId
from relay.lane import Order
from relay.store import Store
from relay.stores import open_store
from relay.window import Grouping
from tests import test_sqlite_queue as model
from tests.contract.desk import Desk
from tests.fakes import ManualClock
from tests.postgres import Cluster

pytestmark = pytest.mark.long

STORES = 3
_clusters: list[Cluster] = []


@pytest.fixture(autouse=True)
def _cluster(postgres: Cluster) -> None:
    """Where the machines, which get no fixtures, find it."""
    _clusters[:] = [postgres]


class Shared(model.Queue):
    """Three stores, of which one is told now, another one then."""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.stack = contextlib.ExitStack()
        self.database = self.stack.enter_context(_clusters[0].database())
        self.stores: list[Store] = [self.run(self.opened()) for _ in range(STORES)]
        self.desk = Desk(self.stores[0], self.clock, self.opened)
        self.other = self.stack.enter_context(
            psycopg.connect(self.database.url, autocommit=True, options="-c search_path=relay")
        )
        self.owed = 0
        self.delivered = set()
        self.sending = {}
        self.strangers = set()
        self.senders: dict[DeliveryId, int] = {}
        self.at = 0

    def opened(self) -> Any:
        return open_store(self.database.url, self.clock)

    @property
    def store(self) -> Any:  # type: ignore[override]
        return self.stores[self.at]

    @rule(at=st.integers(0, STORES - 1))
    def elsewhere(self, at: int) -> None:
        """What follows is done at another one."""
        self.at, self.desk.store = at, self.stores[at]

    def ask(self, sql: str, *values: object) -> list[Any]:
        """In SQLite's words, of a copy of the tables as they are now."""
        with contextlib.closing(sqlite3.connect(":memory:")) as copy:
            for table in ("event", "delivery"):
                found = self.other.execute(f"SELECT * FROM {table}".encode())
                names = [f'"{column.name}"' for column in found.description or ()]
                copy.execute(f"CREATE TABLE {table} ({', '.join(names)})")
                copy.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", found.fetchall())
            return copy.execute(sql, values).fetchall()

    def teardown(self) -> None:
        async def close() -> None:
            await asyncio.gather(*(store.close() for store in self.stores))

        self.run(close())
        self.runner.close()
        self.stack.close()

    # -- what each of them does, or must be told ---------------------------------------------------------------------

    @rule(route=model.routes, limit=st.integers(1, 5), retried=st.none() | st.booleans())
    def send(self, route: str, limit: int, retried: bool | None) -> None:
        before = set(self.sending)
        super().send(route, limit, retried)
        self.senders |= dict.fromkeys(self.sending.keys() - before, self.at)

    def write(self, results: list[Result]) -> None:
        """By whoever has sent it."""
        by = defaultdict[int, list[Result]](list)
        for result in results:
            by[self.senders.get(result.delivery.id, self.at)].append(result)

        async def recording() -> None:
            await asyncio.gather(*(self.stores[at].record(each) for at, some in by.items() for each in some))

        self.run(recording())

    @rule(paused=st.sets(model.routes), removed=st.sampled_from(["", "", *model.ROUTES]))
    def settle(self, paused: set[str], removed: str) -> None:
        active = set(model.ROUTES) - {removed}
        self.desk.paused = paused & active
        self.run(self.desk.settle(*active))

    @rule(policies=model.policies)
    def follow(self, policies: dict[str, tuple[Order, Grouping | None]]) -> None:
        at = self.at
        for each in range(STORES):
            self.elsewhere(each)
            super().follow(policies)
        self.elsewhere(at)

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.stores[self.at] = self.desk.store = self.run(self.opened())
        self.run(self.desk.follow())
        self.sending = {number: each for number, each in self.sending.items() if self.senders[number] != self.at}

    # -- what is always so -------------------------------------------------------------------------------------------

    @invariant()
    def the_counts_are_right(self) -> None:
        for state in ("pending", "held"):
            counted = self.other.execute(
                f"SELECT route, sum({state})::int FROM tally GROUP BY route HAVING sum({state}) <> 0".encode()
            ).fetchall()
            assert dict(counted) == dict(
                self.ask(f"SELECT route, count(*) FROM delivery WHERE state = '{state}' GROUP BY route")
            )


class LongShared(Shared):
    """The same for long."""


TestShared = Shared.TestCase
TestShared.settings = model.profile(5, 25)
TestLongShared = pytest.mark.soak(LongShared.TestCase)
TestLongShared.settings = model.profile(60, 50)
