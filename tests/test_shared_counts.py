"""What each of two relays on one PostgreSQL says of what waits, before it looks again: the other one changes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from relay.store import Store
from relay.stores.postgresql import PostgresStore, open_url
from relay.stores.postgresql import store as stores
from tests.contract.desk import Desk
from tests.fakes import ManualClock
from tests.postgres import Database

Desks = tuple[Desk, Desk]


@pytest.fixture
async def desks(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desks]:
    """Of relays that never look by themselves."""
    monkeypatch.setattr(stores, "BEAT", 3600.0)
    clock = ManualClock()
    opened: list[PostgresStore] = [await open_url(database.url.removeprefix("postgresql:"), clock) for _ in range(2)]

    async def reopen() -> Store:
        raise AssertionError("not used here")

    yield Desk(opened[0], clock, reopen), Desk(opened[1], clock, reopen)
    for each in opened:
        await each.close()


async def test_who_pauses_what_another_one_has_released_counts_what_there_is(desks: Desks) -> None:
    one, other = desks
    for _ in range(3):
        await one.add("www")
    await one.pause()
    await other.resume()
    assert other.counts() == {"www": (3, 0)}
    await one.settle()
    assert one.counts() == {"www": (0, 3)}


async def test_who_pauses_what_another_one_took_in_counts_what_there_is(desks: Desks) -> None:
    one, other = desks
    for _ in range(3):
        await other.add("www")
    await one.pause()
    assert one.counts() == {"www": (0, 3)}


async def test_who_pauses_after_all_is_held_counts_what_there_is(desks: Desks) -> None:
    one, other = desks
    await one.add("www")
    await other.pause()
    await one.pause()
    assert one.counts() == other.counts() == {"www": (0, 1)}


async def test_who_pauses_and_resumes_beside_another_one_counts_neither_twice(
    desks: Desks, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = desks
    monkeypatch.setattr("relay.stores._sql.settling.AT_ONCE", 2)
    for _ in range(20):
        await one.add("www")
    low: list[int] = []
    for desk in desks:
        desk.store.on_commit(lambda _: low.extend(n for each in desks for both in each.counts().values() for n in both))
    for _ in range(5):
        await asyncio.gather(one.pause(), other.settle("www"))
    await asyncio.gather(one.settle(), other.settle())
    assert min(low) >= 0
    for desk in desks:
        await desk.settle()
        count = "count(*) FILTER (WHERE state = '{}')".format
        [(pending, held)] = database.sql(f"SELECT {count('pending')}, {count('held')} FROM delivery")
        assert desk.counts() == {"www": (pending, held)}
        assert pending + held == 20


async def test_who_sends_what_another_one_took_in_never_counts_below_nothing(desks: Desks, database: Database) -> None:
    one, other = desks
    for _ in range(3):
        await other.add("www")
    database.sql("UPDATE delivery SET owner = NULL")
    [first, *_] = await one.claim()
    await one.send(first)
    assert one.counts() == {"www": (2, 0)}


async def test_a_look_that_is_asked_for_while_another_one_ends_is_made_too(desks: Desks) -> None:
    one, other = desks
    writing = one.store._writing  # type: ignore[attr-defined]
    counted = writing._counted

    def late(session: object) -> object:
        found = counted(session)
        writing.recount = True
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_counted", late)
        await one.pause()
    await other.add("www")
    await one.add("search")
    assert one.counts() == {"www": (1, 0), "search": (1, 0)}
