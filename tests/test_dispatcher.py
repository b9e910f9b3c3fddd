"""Who is sent when: a real store, attempts that tests decide."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from relay.clock import to_ms
from relay.config import load
from relay.delivery import Attempt, Delivered, Delivery, Result, State, Trigger
from relay.dispatcher import Dispatcher
from relay.event import Description, Event
from relay.health import RouteState
from relay.ids import DeliveryId, EventId
from relay.notify import Notices
from relay.oversight import Oversight
from relay.routing import Route
from relay.runtime import build
from relay.stores.sqlite import SqliteStore, open_store
from tests.fakes import NOON, ManualClock, until

CONFIG = b"sources: {any: {type: generic, verify: none}}\nroutes: [{name: r, to: {url: 'http://a.test/'}, MORE}]\n"


class SlowToAnswer:
    """A store whose first claim has read long before its caller hears of it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.read, self.tell = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def claim(
        self, route: str, retried: bool | None, now: datetime, limit: int, exclude: Collection[DeliveryId]
    ) -> list[Delivery]:
        found = await self._store.claim(route, retried, now, limit, exclude)
        if found and not self.read.is_set():
            self.read.set()
            await self.tell.wait()
        return found


def told(store: SqliteStore, body: bytes = b"{}") -> Event:
    """An event, about to be stored."""
    number = EventId(store.ids.draw(to_ms(NOON)))
    return Event(number, "any", "generic", NOON, Description("e"), (), body, sha256(body).digest())


async def test_a_probe_and_a_claim_that_is_under_way_never_send_the_same_delivery(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await open_store(tmp_path / "relay.db", clock=clock)
    slow = SlowToAnswer(store)
    notices = Notices(clock)
    oversight = Oversight(store, clock, notices)
    [route] = build(load(CONFIG.replace(b"MORE", b"retry: none")), 1, NOON).routing.routes.values()
    sent: list[tuple[DeliveryId, Trigger]] = []

    async def attempt(by: Route, delivery: Delivery) -> Result:
        sent.append((delivery.id, delivery.trigger))
        made = Attempt(delivery.attempts + 1, delivery.trigger, clock.now(), 1, None, None, None)
        result = Result(delivery, made, State.DELIVERED, None, 1, None, clock.now())
        oversight.saw(by, result, Delivered())
        return result

    event = told(store)
    oversight.follow({"r": route})
    async with notices, Dispatcher(slow, clock, attempt, oversight) as dispatcher:
        await dispatcher.follow({"r": route})
        await store.add(event, [route.owe(event, DeliveryId(store.ids.draw(to_ms(NOON))), paused=False)])
        dispatcher.look("r")
        await slow.read.wait()
        health = oversight.of("r")
        health.state, health.probe_at = RouteState.UNHEALTHY, NOON - timedelta(seconds=1)
        dispatcher.look("r")  # time for a probe
        with suppress(TimeoutError):  # it must not go out while somebody else reads: there is nothing to wait for
            await until(lambda: sent, 0.3)
        slow.tell.set()
        [courier] = dispatcher._couriers.values()
        await until(lambda: sent and not (courier.claiming or courier.probing or courier.workers or courier.waiting))
        assert [number for number, _ in sent] == [sent[0][0]]
    await store.close()


async def test_what_is_handed_over_while_a_probe_is_chosen_is_not_chosen_too(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await open_store(tmp_path / "relay.db", clock=clock)
    slow = SlowToAnswer(store)
    notices = Notices(clock)
    oversight = Oversight(store, clock, notices)
    [route] = build(load(CONFIG.replace(b"MORE", b"retry: none")), 1, NOON).routing.routes.values()
    sent: list[DeliveryId] = []
    answers = asyncio.Event()

    async def attempt(by: Route, delivery: Delivery) -> Result:
        sent.append(delivery.id)
        await answers.wait()
        made = Attempt(delivery.attempts + 1, delivery.trigger, clock.now(), 1, None, None, None)
        return Result(delivery, made, State.DELIVERED, None, 1, None, clock.now())

    event = told(store)
    oversight.follow({"r": route})
    health = oversight.of("r")
    async with notices, Dispatcher(slow, clock, attempt, oversight) as dispatcher:
        await dispatcher.follow({"r": route})
        [courier] = dispatcher._couriers.values()
        await until(lambda: not courier.claiming)
        health.state, health.probe_at = RouteState.UNHEALTHY, NOON - timedelta(seconds=1)
        added = await store.add(event, [route.owe(event, DeliveryId(store.ids.draw(to_ms(NOON))), paused=False)])
        dispatcher.look("r")
        await slow.read.wait()  # the probe's: it has found the one that is told of only now
        health.state = RouteState.HEALTHY
        dispatcher.offer(added)
        with suppress(TimeoutError):  # it must not begin beside the probe
            await until(lambda: sent, 0.3)
        health.state = RouteState.UNHEALTHY
        slow.tell.set()
        await until(lambda: sent)
        answers.set()
        await until(lambda: store.counts() == {} and not (courier.probing or courier.workers))
        assert len(sent) == 1
    await store.close()


async def test_a_clock_that_is_set_back_stalls_no_retry(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await open_store(tmp_path / "relay.db", clock=clock)
    notices = Notices(clock)
    oversight = Oversight(store, clock, notices)
    [route] = build(load(CONFIG.replace(b"MORE", b"retry: none")), 1, NOON).routing.routes.values()
    sent: list[datetime] = []

    async def attempt(by: Route, delivery: Delivery) -> Result:
        sent.append(clock.now())
        made = Attempt(delivery.attempts + 1, delivery.trigger, clock.now(), 1, None, None, None)
        if len(sent) == 1:
            return Result(delivery, made, State.PENDING, clock.now() + timedelta(minutes=1), 1, None, clock.now())
        return Result(delivery, made, State.DELIVERED, None, 2, None, clock.now())

    oversight.follow({"r": route})
    async with notices, Dispatcher(store, clock, attempt, oversight) as dispatcher:
        await dispatcher.follow({"r": route})
        event = told(store)
        await store.add(event, [route.owe(event, DeliveryId(store.ids.draw(to_ms(NOON))), paused=False)])
        dispatcher.look("r")
        await until(lambda: len(sent) == 1 and not dispatcher.in_flight)
        clock.advance(30)
        clock._now -= timedelta(days=1)
        dispatcher._wake.set()  # it looks at the clocks every few seconds, and whenever it is woken
        await until(lambda: dispatcher._seen[0] == clock.now())
        assert len(sent) == 1, "it is not time yet"
        clock.advance(31)
        dispatcher._wake.set()
        await until(lambda: store.counts() == {})
        assert sent[1] == NOON - timedelta(days=1) + timedelta(seconds=61)
    await store.close()


async def test_what_many_routes_have_in_memory_together_is_bounded_and_each_goes_on(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await open_store(tmp_path / "relay.db", clock=clock)
    notices = Notices(clock)
    oversight = Oversight(store, clock, notices)
    names = [f"r{number}" for number in range(4)]
    listed = ", ".join(f"{{name: {name}, to: {{url: 'http://a.test/'}}}}" for name in names)
    text = f"sources: {{any: {{type: generic, verify: none}}}}\nroutes: [{listed}]\n"
    routes = build(load(text.encode()), 1, NOON).routing.routes
    going: list[str] = []
    most, answers = 0, asyncio.Semaphore(0)

    async def attempt(by: Route, delivery: Delivery) -> Result:
        nonlocal most
        going.append(by.name)
        most = max(most, len(going) + sum(courier.waiting for courier in dispatcher._couriers.values()))
        await answers.acquire()
        going.remove(by.name)
        made = Attempt(delivery.attempts + 1, delivery.trigger, clock.now(), 1, None, None, None)
        return Result(delivery, made, State.DELIVERED, None, 1, None, clock.now())

    oversight.follow(routes)
    events = [told(store, b"x" * 1000) for _ in range(20)]
    for event in events:
        owed = [route.owe(event, DeliveryId(store.ids.draw(to_ms(NOON))), paused=False) for route in routes.values()]
        await store.add(event, owed)
    async with notices, Dispatcher(store, clock, attempt, oversight, most_bytes=-1) as dispatcher:
        await dispatcher.follow(routes)
        await until(lambda: sorted(going) == names)
        for _ in range(80):
            answers.release()
        await until(lambda: store.counts() == {})
        assert dispatcher._bytes == 0, "what has been sent is no more in memory"
    assert most <= 2 * len(names), f"{most} bodies were in memory at once"
    await store.close()
