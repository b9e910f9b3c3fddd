"""Who is sent when: a real store, attempts that tests decide."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from relay.clock import to_ms
from relay.config import load
from relay.delivery import Attempt, Delivered, Delivery, HeldReason, Owed, Result, State, Trigger
from relay.dispatcher import Dispatcher
from relay.event import Description, Event
from relay.health import RouteState
from relay.ids import DeliveryId, EventId
from relay.lane import Order
from relay.memory import CLAIMED
from relay.notify import Notices
from relay.oversight import Oversight
from relay.routing import Route
from relay.runtime import build
from relay.store import Settled, Unavailable
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
        self,
        route: str,
        retried: bool | None,
        now: datetime,
        limit: int,
        exclude: Collection[DeliveryId],
        most_bytes: int = CLAIMED,
    ) -> list[Delivery]:
        found = await self._store.claim(route, retried, now, limit, exclude, most_bytes)
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
        dispatcher._schedule._woken.set()  # it looks at the clocks every few seconds, and whenever it is woken
        await until(lambda: dispatcher._stepping._steps._seen[0] == clock.now())
        assert len(sent) == 1, "it is not time yet"
        clock.advance(31)
        dispatcher._schedule._woken.set()
        await until(lambda: store.counts() == {})
        assert sent[1] == NOON - timedelta(days=1) + timedelta(seconds=61)
    await store.close()


class Sending:
    """A dispatcher over a real store, whose attempts end when the test says so."""

    def __init__(self, store: SqliteStore, config: str, most_bytes: int) -> None:
        text = f"sources: {{any: {{type: generic, verify: none}}}}\nroutes: [{config}]\n"
        self.routes = build(load(text.encode()), 1, NOON).routing.routes
        self.clock, self.store = ManualClock(), store
        self.notices = Notices(self.clock)
        self.oversight = Oversight(store, self.clock, self.notices)
        self.oversight.follow(self.routes)
        self.going: list[Delivery] = []
        self.sent: list[DeliveryId] = []
        self.most = 0
        self.slow: set[str] = set()
        self.again = 0
        self.answer = asyncio.Event()
        self.dispatcher = Dispatcher(store, self.clock, self.attempt, self.oversight, most_bytes=most_bytes)

    async def attempt(self, by: Route, delivery: Delivery) -> Result:
        self.going.append(delivery)
        self.sent.append(delivery.id)
        self.most = max(self.most, self.dispatcher._stock.memory.taken)
        if by.name in self.slow:
            await self.answer.wait()
        else:
            await asyncio.sleep(0)
        self.going.remove(delivery)
        made = Attempt(delivery.attempts + 1, delivery.trigger, self.clock.now(), 1, None, None, None)
        if self.again:  # some are to be tried again, at once
            self.again -= 1
            return Result(delivery, made, State.PENDING, self.clock.now(), 1, None, self.clock.now())
        result = Result(delivery, made, State.DELIVERED, None, 1, None, self.clock.now())
        self.oversight.saw(by, result, Delivered())
        return result

    async def owe(self, body: bytes, *names: str) -> None:
        event = told(self.store, body)
        self.dispatcher.offer(await self.store.add(event, self.owed(event, *names)))

    def owed(self, event: Event, *names: str) -> list[Owed]:
        return [self.routes[name].owe(event, DeliveryId(self.store.ids.draw(to_ms(NOON))), False) for name in names]

    def of(self, name: str) -> list[Delivery]:
        return [delivery for delivery in self.going if delivery.route == name]


def routes(*names: str, more: str = "concurrency: 64") -> str:
    return ", ".join(f"{{name: {name}, to: {{url: 'http://a.test/'}}, {more}}}" for name in names)


async def test_one_slow_destination_with_large_bodies_does_not_make_the_other_routes_wait_for_each_other(
    tmp_path: Path,
) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    sending = Sending(store, routes("slow", "brisk"), most_bytes=100_000)
    sending.slow = {"slow", "brisk"}
    async with sending.notices, sending.dispatcher:
        await sending.dispatcher.follow(sending.routes)
        for _ in range(40):
            await sending.owe(b"x" * 10_000, "slow")
        await until(lambda: sending.of("slow"))
        for _ in range(20):
            await sending.owe(b"{}", "brisk")
        await until(lambda: len(sending.of("brisk")) == 20)
        assert sending.dispatcher._stock.memory.taken <= 150_000
        sending.answer.set()
        await until(lambda: store.counts() == {})
        await until(lambda: not sending.dispatcher._stock.memory.taken)
    assert sending.most <= 160_000
    await store.close()


async def test_what_many_routes_have_in_memory_together_is_bounded_and_all_of_it_is_sent(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    names = [f"r{number}" for number in range(12)]
    sending = Sending(store, routes(*names), most_bytes=30_000)
    async with sending.notices, sending.dispatcher:
        for _ in range(10):
            event = told(store, b"x" * 10_000)
            owed = [
                route.owe(event, DeliveryId(store.ids.draw(to_ms(NOON))), False) for route in sending.routes.values()
            ]
            await store.add(event, owed)
        await sending.dispatcher.follow(sending.routes)
        await until(lambda: store.counts() == {})
        await until(lambda: not sending.dispatcher._stock.memory.taken)
        assert {courier.bytes for courier in sending.dispatcher._couriers.values()} == {0}
    assert sending.most <= 45_000 + 2 * 10_000, "half as much again, a body beyond, and what a claim has reserved"
    await store.close()


async def test_windows_count_with_all_their_events_and_are_sent_one_by_one_where_memory_is_short(
    tmp_path: Path,
) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    names = [f"r{number}" for number in range(6)]
    sending = Sending(store, routes(*names, more="batch: {max: 5, wait: 1s}"), most_bytes=10_000)
    async with sending.notices, sending.dispatcher:
        await sending.dispatcher.follow(sending.routes)
        for _ in range(5):
            await sending.owe(b"x" * 10_000, *names)
        await until(lambda: store.counts() == {})
        await until(lambda: not sending.dispatcher._stock.memory.taken)
    assert 50_000 <= sending.most <= 3 * 50_000, "of six: two that were full when they were read, and one taken"
    await store.close()


async def test_what_is_recalled_forgotten_or_paused_is_in_memory_no_more(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    sending = Sending(store, routes("r", more="concurrency: 1"), most_bytes=1_000_000)
    sending.slow = {"r"}
    async with sending.notices, sending.dispatcher:
        await sending.dispatcher.follow(sending.routes)
        [courier] = sending.dispatcher._couriers.values()
        await until(lambda: not courier.claiming)
        for _ in range(5):
            await sending.owe(b"x" * 1000, "r")
        await until(lambda: len(sending.going) == 1 and courier.waiting == 4)
        assert sending.dispatcher._stock.memory.taken == courier.bytes == 5000
        sending.dispatcher.recall([courier.first.ready[0].id])
        assert sending.dispatcher._stock.memory.taken == courier.bytes == 4000
        sending.dispatcher._stock.forget(courier)
        assert sending.dispatcher._stock.memory.taken == courier.bytes == 1000
        sending.answer.set()
        await until(lambda: store.counts() == {})
        await until(lambda: sending.dispatcher._stock.memory.taken == courier.bytes == 0)
    await store.close()


async def test_a_window_that_takes_long_where_memory_is_short_holds_up_windows_alone(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    listed = f"{routes('slow', 'idle', 'brisk')}, {routes('window', more='batch: {max: 100, wait: 1s}')}"
    sending = Sending(store, listed, most_bytes=640_000)
    sending.slow = {"slow", "idle", "window"}
    async with sending.notices, sending.dispatcher:
        await sending.dispatcher.follow(sending.routes)
        couriers = sending.dispatcher._couriers
        await until(lambda: not any(courier.claiming for courier in couriers.values()))
        for name in ("slow", "idle"):
            for _ in range(2):
                await sending.owe(b"x" * 160_000, name)
        await until(lambda: sending.dispatcher._stock.memory.taken == 640_000)
        for _ in range(2):
            await sending.owe(b"x" * 1000, "window")
        sending.clock.advance(2)  # it is not full, and is taken when its time has come
        sending.dispatcher._schedule._woken.set()
        await until(lambda: sending.of("window"))
        for _ in range(10):
            await sending.owe(b"{}", "brisk")
        await until(lambda: "brisk" not in store.counts())
        assert sending.of("window"), "it is still being sent"
        sending.answer.set()
        await until(lambda: store.counts() == {})
        await until(lambda: not sending.dispatcher._stock.memory.taken)
    await store.close()


async def test_who_waits_for_memory_that_was_only_reserved_goes_on_when_it_is_let_go(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    sending = Sending(store, routes("r"), most_bytes=1000)
    async with sending.notices, sending.dispatcher:
        await sending.dispatcher.follow(sending.routes)
        [courier] = sending.dispatcher._couriers.values()
        await until(lambda: not courier.claiming)
        sending.dispatcher._stock.memory.taken += 2000  # as others' claims would have it
        event = told(store)
        number = DeliveryId(store.ids.draw(to_ms(NOON)))
        await store.add(event, [sending.routes["r"].owe(event, number, paused=False)])
        sending.dispatcher.look("r")
        assert courier in sending.dispatcher._stock.starved
        sending.dispatcher._stock.memory.taken -= 2000
        sending.dispatcher._stock.feed_soon()
        await until(lambda: store.counts() == {})
    await store.close()


class SlowToSettle:
    """A store that settles when the test says so, or fails to."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.begun, self.ended = 0, 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def settle(self, active: Collection[str], kept: Mapping[str, HeldReason]) -> Settled:
        self.begun += 1
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        settled = await self._store.settle(active, kept)
        self.ended += 1
        return settled


async def test_while_a_backlog_is_held_what_is_due_of_other_routes_is_sent(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    slow = SlowToSettle(store)
    sending = Sending(cast(SqliteStore, slow), routes("gone", "well"), most_bytes=1 << 20)
    sending.again = 1
    async with sending.notices, sending.dispatcher as dispatcher:
        await dispatcher.follow(sending.routes)
        slow.go_on.clear()
        sending.oversight.pause("gone", "410")
        assert await sending.oversight.save()
        await sending.owe(b"{}", "gone")
        dispatcher.settle()
        await until(lambda: slow.begun == 2)
        await sending.owe(b"{}", "well")
        await until(lambda: len(sending.sent) == 2)
        dispatcher.settle()  # it is asked for once more meanwhile
        slow.go_on.set()
        await until(lambda: slow.ended == 3)
        assert [(route, each.pending, each.held) for route, each in store.counts().items()] == [("gone", 0, 1)]
        assert sending.sent[0] == sending.sent[1]
    await store.close()


async def test_what_cannot_be_settled_now_is_settled_later(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    slow = SlowToSettle(store)
    sending = Sending(cast(SqliteStore, slow), routes("r"), most_bytes=1 << 20)
    async with sending.notices, sending.dispatcher as dispatcher:
        await dispatcher.follow(sending.routes)
        slow.error = Unavailable("the disk is full")
        dispatcher.settle()
        await until(lambda: slow.begun == 2 and sending.clock._sleepers)
        slow.error = None
        sending.clock.advance(5)
        await until(lambda: slow.ended == 2)
    await store.close()


async def test_a_bug_in_settling_ends_the_dispatcher(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    slow = SlowToSettle(store)
    sending = Sending(cast(SqliteStore, slow), routes("r"), most_bytes=1 << 20)

    async def run() -> None:
        async with sending.notices, sending.dispatcher as dispatcher:
            await dispatcher.follow(sending.routes)
            slow.error = ZeroDivisionError()
            dispatcher.settle()
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)
    await store.close()


async def test_what_is_due_again_while_the_turn_of_a_route_is_saved_is_sent_again(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    sending = Sending(store, routes("gone", "well"), most_bytes=1 << 20)
    sending.again = 1
    async with sending.notices, sending.dispatcher as dispatcher:
        await dispatcher.follow(sending.routes)
        sending.oversight.pause("gone", "410")
        await sending.owe(b"{}", "well")
        await until(lambda: len(sending.sent) == 2)
    await store.close()


class SlowToFollow:
    """A store that puts what waits into other lanes when the test says so."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def follow(self, orders: Mapping[str, Order], sending: Collection[DeliveryId] = ()) -> None:
        if orders["r"] is not Order.NONE:
            self.begun.set()
            await self.go_on.wait()
        await self._store.follow(orders, sending)


@pytest.mark.parametrize("when", ["stands by", "puts in lanes"])
async def test_what_was_handed_over_while_an_order_came_is_not_sent_past_what_waits(tmp_path: Path, when: str) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    slow = SlowToFollow(store)
    sending = Sending(cast(SqliteStore, slow), "{name: r, to: {url: 'http://a.test/'}}", most_bytes=1 << 20)
    text = CONFIG.replace(b"MORE", b"order: route")
    sent = sending.sent
    async with sending.notices, sending.dispatcher as dispatcher, asyncio.TaskGroup() as group:
        await dispatcher.follow(sending.routes)
        older = told(store)
        [owed] = sending.owed(older, "r")
        owed.delivery.due += timedelta(minutes=1)
        dispatcher.offer(await store.add(older, [owed]))
        sending.routes = build(load(text), 2, NOON).routing.routes
        dispatcher.stand_by(sending.routes)
        if when == "stands by":
            await sending.owe(b"{}", "r")
        following = group.create_task(dispatcher.follow(sending.routes))
        await slow.begun.wait()
        if when == "puts in lanes":
            await sending.owe(b"{}", "r")
        slow.go_on.set()
        await following
        [courier] = dispatcher._couriers.values()
        await until(lambda: not (courier.claiming or courier.workers))
        assert sent == []
        sending.clock.advance(60)
        dispatcher.look("r")
        await until(lambda: len(sent) == 2)
        assert sent[0] == owed.delivery.id
    await store.close()


async def test_one_task_sends_for_one_route_after_another_also_after_a_bug_and_ends_with_the_dispatcher(
    tmp_path: Path,
) -> None:
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    names = [f"r{number}" for number in range(8)]
    sending = Sending(store, routes(*names), most_bytes=100_000)
    well, attempted = sending.attempt, list[str]()

    async def attempt(by: Route, delivery: Delivery) -> Result:
        attempted.append(by.name)
        if by.name == "r3":
            raise AssertionError("a bug")
        return await well(by, delivery)

    sending.dispatcher = Dispatcher(store, sending.clock, attempt, sending.oversight)
    async with sending.notices, sending.dispatcher as dispatcher:
        await dispatcher.follow(sending.routes)
        await until(lambda: not any(courier.first.behind for courier in dispatcher._couriers.values()))
        await until(lambda: not dispatcher._tasks)  # those that looked for what is due
        for number, name in enumerate(names, 1):
            await sending.owe(b"{}", name)
            await until(lambda wanted=number: len(attempted) == wanted and not dispatcher.in_flight)  # type: ignore[misc]
        assert attempted == names
        assert len(dispatcher._tasks) == 1
    assert not dispatcher._tasks
    assert [route for route, count in store.counts().items() if count.pending] == ["r3"]
    await store.close()
