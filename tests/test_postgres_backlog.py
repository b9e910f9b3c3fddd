"""A backlog on PostgreSQL: whatever it believes of the table, nothing that is asked often looks at all that waits."""

from __future__ import annotations

from typing import Any

import pytest

from relay.stores import open_store
from relay.stores._sql import lanes, reader, settling
from relay.stores.postgresql import membership, transaction
from relay.stores.postgresql.connection import connect
from relay.stores.postgresql.dialect import translated
from tests.fakes import ManualClock
from tests.postgres import Database

# What came and went, then of three routes what waits, in no lane or in a single one; and what is held.
HISTORY = """
    INSERT INTO delivery (id, event_id, route, state, held_reason, held_at, lane, blocked, due, first_due, attempts,
        tries, "trigger", updated_at)
    SELECT n, n, '{route}', '{state}', {why}, {at}, {lane}, {blocked}, n, n, 0, 0, 'initial', n
    FROM generate_series({first}, {first} + 19999) n
"""
NEITHER = {"why": "NULL", "at": "NULL"}
GONE = {"route": "www", "state": "delivered", "lane": "'[]'", "blocked": "0", "first": 1, **NEITHER}
WAITING: tuple[dict[str, Any], ...] = (
    {"route": "www", "state": "pending", "lane": "NULL", "blocked": "0", "first": 20001, **NEITHER},
    {"route": "ordered", "state": "pending", "lane": "'[1]'", "blocked": "1", "first": 40001, **NEITHER},
    {"route": "off", "state": "held", "lane": "NULL", "blocked": "0", "first": 60001, "why": "'paused'", "at": "n"},
)
LATEST = 90_000
STEP = settling.AT_ONCE
ASKED: dict[str, tuple[str, str, list[Any]]] = {
    "what of routes is pending": ("writer", settling._PENDING, []),
    "what of routes is held": ("writer", settling._HELD, []),
    "the newest of all": ("writer", settling._NEWEST, []),
    "holding": ("writer", settling._HOLD, ["paused", LATEST, "www", LATEST, STEP]),
    "renaming": ("writer", settling._RENAME, ["disabled", "off", "paused", LATEST, STEP]),
    "releasing": ("writer", settling._RELEASE, [LATEST, "off", "paused", LATEST, STEP]),
    "letting the next one of a lane go on": ("writer", lanes._RELEASE, ["ordered", "[1]"]),
    "the newest of lanes": ("writer", transaction._NEWEST_OF_LANES, [["ordered", "www"], ["[1]", "[]"], LATEST]),
    "what is due": ("member", membership._DUE, [LATEST, 0, [], []]),
    "when something is due": ("reader", reader._FIRST_DUE, []),
}


@pytest.fixture
async def backlog(database: Database) -> Database:
    await (await open_store(database.url, ManualClock())).close()
    database.sql(HISTORY.format(**GONE))
    database.sql("ANALYZE delivery")
    for waiting in WAITING:
        database.sql(HISTORY.format(**waiting))
    return database


def most_read(node: dict[str, Any]) -> float:
    """Of all rows that one step of a plan looked at."""
    mine = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return float(max([mine, *(most_read(each) for each in node.get("Plans", []))]))


@pytest.mark.parametrize("known", [False, True], ids=["as it was before", "analysed"])
async def test_nothing_that_is_asked_often_reads_all_that_waits(backlog: Database, known: bool) -> None:
    if known:
        backlog.sql("ANALYZE delivery")
    read = {}
    for what, (role, sql, values) in ASKED.items():
        with connect(backlog.url, role) as connection, connection.transaction(force_rollback=True):
            explained = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {translated(sql)}"
            [(plan,)] = connection.execute(explained.encode(), values or None).fetchall()
            read[what] = most_read(plan[0]["Plan"])
    assert {what: number for what, number in read.items() if number > 2 * STEP} == {}
