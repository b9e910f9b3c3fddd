"""Several relays hold and release on one PostgreSQL: with different configs, and while others turn the same route."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

from relay.config import load
from relay.delivery import HeldReason
from relay.dispatcher import Dispatcher
from relay.health import RouteHealth, RouteState
from relay.lane import Order
from relay.notify import Notices
from relay.oversight import Oversight
from relay.runtime import build
from relay.store import Unavailable
from relay.stores.postgresql.membership import CHANNEL
from tests.contract.desk import Desk, delivered
from tests.postgres import Database
from tests.test_postgres_sharing import CONFIG, Relay, two
from tests.test_postgres_sharing import start as start  # a fixture
from tests.test_shared_store import WAITING, buried, wait_for
from tests.test_shared_store import desks as desks  # a fixture

MANY = 1600  # more than three steps
ENOUGH = 12
"""Steps that are taken for those at most: a settling that takes more does not end."""
OFF = {"www": HeldReason.DISABLED}


async def many(desk: Desk, number: int = MANY) -> None:
    event = desk.event()
    await desk.put(event, [desk.owe(event) for _ in range(number)])


def waiting(database: Database) -> dict[str, int]:
    """How many there are in each state, and why."""
    return dict(database.sql("SELECT concat_ws(' ', state, held_reason), count(*) FROM delivery GROUP BY 1"))


@contextlib.contextmanager
def between(desk: Desk, meanwhile: Callable[[], Awaitable[object]]) -> Iterator[list[object]]:
    """This is done before each transaction of a store but the first two: what is to be done was found, and some of it
    was done. Yields those that there were."""
    writer = desk.store._writer  # type: ignore[attr-defined]
    real, calls = writer.call, list[object]()

    async def call(command: Any, *values: Any, **options: Any) -> Any:
        calls.append(command)
        assert len(calls) <= ENOUGH, "it does not end"
        if len(calls) > 2:
            await meanwhile()
        return await real(command, *values, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "call", call)
        yield calls


def takes_too_long(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How many of a route are held is more than can be counted. Returns of which that was asked."""
    asked = list[str]()

    async def late(route: str) -> dict[str, int]:
        asked.append(route)
        raise Unavailable("the query took longer than 5 s: narrow it down")

    monkeypatch.setattr(desk.store._logs, "held", late)  # type: ignore[attr-defined]
    return asked


@pytest.mark.parametrize("countable", [True, False])
async def test_two_that_want_the_contrary_of_a_route_both_end(
    desks: tuple[Desk, Desk], database: Database, monkeypatch: pytest.MonkeyPatch, countable: bool
) -> None:
    """Nothing in the store says who is right: nobody has saved a state of that route."""
    one, other = desks
    await many(one)
    if not countable:
        takes_too_long(one, monkeypatch)

    async def release() -> None:
        await other.store.settle(["www"], {})

    with between(one, release):
        await one.store.settle(["www"], {"www": HeldReason.PAUSED})
    assert sum(waiting(database).values()) == MANY


async def test_two_that_hold_for_different_reasons_both_end(desks: tuple[Desk, Desk], database: Database) -> None:
    one, other = desks
    await many(one)
    await one.store.settle([], OFF)

    async def rename() -> None:
        await other.store.settle(["www"], {"www": HeldReason.PAUSED})

    with between(one, rename):
        await one.store.settle([], OFF)
    assert waiting(database) == {"held disabled": MANY}


@pytest.mark.parametrize(("before", "after"), [("pending", "held disabled"), ("held disabled", "pending")])
async def test_what_was_delivered_just_now_is_neither_held_nor_released(
    desks: tuple[Desk, Desk], database: Database, before: str, after: str
) -> None:
    """A settling that waits for a row finds it as it is then, not as it was when it looked for what is to be done."""
    store = desks[0].store
    await many(desks[0], 3)
    kept: dict[str, HeldReason] = {} if before == "pending" else OFF
    await store.settle(() if kept else ["www"], kept)
    with psycopg.connect(database.url, options="-c search_path=relay") as other:
        other.execute(
            "UPDATE delivery SET state = 'delivered', held_reason = NULL, held_at = NULL"
            " WHERE id = (SELECT min(id) FROM delivery)"
        )
        async with asyncio.TaskGroup() as group:
            settling = group.create_task(store.settle(["www"] if kept else (), {} if kept else OFF))
            await wait_for(database, WAITING, 1)
            other.commit()
    assert sum(settling.result().held.values()) + sum(settling.result().released.values()) == 2
    assert waiting(database) == {"delivered": 1, after: 2}


async def test_a_settling_that_finds_nothing_wakes_nobody(desks: tuple[Desk, Desk], database: Database) -> None:
    """A relay settles where something is due of a route that it does not have: it would wake itself to do so again."""
    one, other = desks
    await one.add("www")
    for desk, routes in ((one, ["www"]), (other, ["another"])):
        await desk.store.settle(routes, {})
    with (
        psycopg.connect(database.url, autocommit=True) as listening,
        psycopg.connect(database.url, autocommit=True) as last,
    ):
        listening.execute(f"LISTEN {CHANNEL}")
        await other.store.settle(["another"], {})
        last.execute("SELECT pg_notify(%s, 'over')", [CHANNEL])
        heard = []
        for notice in listening.notifies():
            heard.append(notice.payload)
            if heard[-1] == "over":
                break
    assert heard == ["over"]


async def test_what_takes_too_long_to_be_counted_is_settled_all_the_same_and_counted_once(
    desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = desks
    await many(one)
    asked = takes_too_long(one, monkeypatch)
    assert (await one.store.settle([], OFF)).held == {"www": MANY}
    assert len(asked) == 1
    await many(other, 3)
    assert (await one.store.settle(["www"], {})).released == {"www": MANY}
    assert len(asked) == 2


async def test_what_is_taken_in_behind_another_relay_while_its_route_is_resumed_waits_for_nobody(
    desks: tuple[Desk, Desk],
) -> None:
    """It is stored under a later id than it came with, and after what was held has been looked for."""
    one, other = desks
    for desk in desks:
        await desk.follow(www=Order.ENTRY)
    await one.pause()
    event = one.about()
    one.wait(1)
    first = await other.tell()
    owed = one.owed(event)
    assert owed.paused
    async with asyncio.TaskGroup() as group:
        group.create_task(one.resume())
        await one.store.add(event, [owed])
    assert owed.delivery.id > first.id
    assert await one.states(first, owed.delivery) == ["pending", "pending"]


@pytest.mark.parametrize("place", [10, 25, 40, 55])
async def test_a_settling_and_the_results_of_another_relay_do_not_wait_for_each_other(
    desks: tuple[Desk, Desk], database: Database, place: int
) -> None:
    """Neither has locked what the other one needs next where they meet: here where a stranger stops both."""
    one, other = desks
    for desk in desks:
        await desk.store.settle(["www"], {})
    for _ in range(60):
        await other.add("www")
    taken = await other.claim()
    assert len(taken) == 60
    with psycopg.connect(database.url, options="-c search_path=relay") as stranger:
        stranger.execute("SELECT id FROM delivery ORDER BY id OFFSET %s LIMIT 1 FOR UPDATE", [place])
        async with asyncio.TaskGroup() as group:
            group.create_task(one.store.settle([], OFF))
            await wait_for(database, WAITING, 1)
            done = asyncio.gather(*(other.store.record(delivered(each)) for each in reversed(taken)))
            await wait_for(database, WAITING, 2)
            stranger.rollback()
            await done
    for desk in desks:
        await desk.store.close()
    assert waiting(database) == {"delivered": 60}
    assert database.sql(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{database.name}'") == [(0,)]


async def test_what_one_relay_has_disabled_no_other_one_releases(desks: tuple[Desk, Desk], database: Database) -> None:
    one, other = desks
    await many(one, 3)
    for desk in desks:
        await desk.store.settle(["www"], {})
    assert (await one.store.settle([], OFF)).held == {"www": 3}
    settled = await other.store.settle(["www", "another"], {})
    assert (settled.held, settled.released) == ({}, {})
    await other.add("www")  # it takes in what is sent to it
    assert (await other.store.settle(["www"], {})).held == {"www": 1}
    assert waiting(database) == {"held disabled": 4}


async def test_what_is_disabled_is_released_by_the_last_relay_that_enables_it(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    await many(one, 3)
    for desk in desks:
        await desk.store.settle([], OFF)
    assert (await one.store.settle(["www"], {})).released == {}
    assert (await other.store.settle(["www"], {})).released == {"www": 3}


async def test_what_is_disabled_is_released_when_the_relay_is_gone_that_had_it_disabled(
    desks: tuple[Desk, Desk],
) -> None:
    one, other = desks
    await many(one, 3)
    await one.store.settle([], OFF)
    assert (await other.store.settle(["www"], {})).released == {}
    await one.store.close()
    assert (await other.store.settle(["www"], {})).released == {"www": 3}


async def test_what_a_dead_relay_had_disabled_is_released_by_who_hears_of_its_end(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    await many(first, 3)
    await first.store.settle([], OFF)
    first.stop(monkeypatch)
    assert (await second.store.settle(["www"], {})).released == {}
    async with asyncio.timeout(10):
        while not second.heard.gone:
            await asyncio.sleep(0.01)
    assert (await second.store.settle(["www"], {})).released == {"www": 3}


async def test_a_relay_that_was_taken_for_dead_has_disabled_what_it_had_before(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    one, other = desks
    await many(one, 3)
    await one.store.settle([], OFF)
    await buried(one, database)
    assert (await other.store.settle(["www"], {})).released == {}


async def test_a_pause_that_another_relay_has_ended_meanwhile_holds_nothing_more(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    one, other = desks
    await many(one)
    for desk in desks:
        await desk.store.settle(["www"], {})
    await one.store.save_states("route", {"www": RouteHealth(RouteState.PAUSED).saved()})

    async def resume() -> None:
        await other.store.save_states("route", {"www": RouteHealth().saved()})
        await other.store.settle(["www"], {})

    with between(one, resume):
        assert (await one.store.settle(["www"], {"www": HeldReason.PAUSED})).held == {"www": 500}
    assert waiting(database) == {"pending": MANY}
    assert (await one.store.settle(["www"], {"www": HeldReason.PAUSED})).held == {}, "it has not heard of it yet"


async def test_a_release_that_was_not_finished_is_finished_by_whoever_settles_next(
    desks: tuple[Desk, Desk], database: Database
) -> None:
    one, other = desks
    await many(one)
    await one.store.settle([], {"www": HeldReason.PAUSED})

    async def die() -> None:
        raise ConnectionError

    with between(one, die), pytest.raises(ConnectionError):
        await one.store.settle(["www"], {})
    assert waiting(database) == {"held paused": MANY - 500, "pending": 500}
    assert (await other.store.settle(["www"], {})).released == {"www": MANY - 500}


async def test_a_pause_is_saved_before_what_waits_is_settled_by_it(start: Any, database: Database) -> None:
    first, second = await two(start)
    routes = build(load(CONFIG), 1, first.clock.now()).routing.routes
    oversight = Oversight(first.store, first.clock, Notices(first.clock))

    async def attempt(*values: object) -> Any:
        raise AssertionError

    async with Dispatcher(first.store, first.clock, attempt, oversight) as dispatcher:
        await dispatcher.follow(routes)
        await second.store.save_states("route", {"www": RouteHealth().saved()})
        await second.store.settle(["www"], {})
        await second.add("www")
        oversight.pause("www", "its destination is gone")
        await dispatcher.obey()
        assert waiting(database) == {"held paused": 1}


async def test_who_may_have_been_taken_for_dead_settles_again(start: Any, database: Database) -> None:
    relay: Relay = await start()
    oversight = Oversight(relay.store, relay.clock, Notices(relay.clock))

    async def attempt(*values: object) -> Any:
        raise AssertionError

    async with Dispatcher(relay.store, relay.clock, attempt, oversight) as dispatcher:
        await dispatcher.follow({})
        await relay.add("www")  # as others would have released it
        dispatcher.lost()
        async with asyncio.timeout(10):
            while waiting(database) != {"held removed": 1}:
                await asyncio.sleep(0.01)
