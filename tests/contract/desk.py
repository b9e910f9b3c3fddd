"""What the contract tests of a store hand it, and how they ask it what became of that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

from relay.clock import to_ms
from relay.delivery import (
    Added,
    Attempt,
    Code,
    Delivery,
    Failure,
    HeldReason,
    Mark,
    Owed,
    Request,
    Response,
    Result,
    State,
    Trigger,
)
from relay.event import Change, Description, Event
from relay.ids import DELIVERY, DeliveryId, EventId
from relay.lane import Order, lane, supersedes
from relay.store import DeliveryDetail, Store
from relay.window import Grouping
from tests.fakes import NOON, ManualClock

SECOND = timedelta(seconds=1)
MOST = 1_000_000


class Desk:
    """A store with what a test needs to hand it things."""

    def __init__(
        self,
        store: Store,
        clock: ManualClock,
        reopen: Callable[[], Awaitable[Store]],
        damage: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self._reopen = reopen
        self._damage = damage
        self.orders: dict[str, Order] = {}
        self.groupings: dict[str, Grouping] = {}
        self.paused: set[str] = set()
        self.most: dict[str, int] = {}

    def wait(self, seconds: float) -> datetime:
        self.clock.advance(seconds)
        return self.clock.now()

    async def reopen(self) -> None:
        self.store = await self._reopen()

    async def damage(self, sql: str) -> None:
        """Somebody else changes the database, between two runs of relay."""
        assert self._damage is not None
        await self._damage(sql)
        await self.reopen()

    # -- events ------------------------------------------------------------------------------------------------------

    def event(self, body: bytes = b'{"a":1}', source: str = "blog", description: Description | None = None) -> Event:
        now = self.clock.now()
        return Event(
            id=EventId(self.store.ids.draw(to_ms(now))),
            source=source,
            type="strapi",
            received_at=now,
            description=description or Description("entry.publish", (Change("page", "published", "publish", "7"),)),
            headers=(("Content-Type", "application/json"), ("X-Odd", "caf\udce9")),
            body=body,
            sha256=sha256(body).digest(),
        )

    def about(
        self,
        entry: str | None = "7",
        stage: str | None = "published",
        action: str = "publish",
        body: bytes = b'{"a":1}',
        source: str = "blog",
    ) -> Event:
        """An event about one entry."""
        return self.event(body, source, Description(f"entry.{action}", (Change("page", stage, action, entry),)))

    # -- deliveries --------------------------------------------------------------------------------------------------

    def owe(self, event: Event, route: str = "www", after: timedelta = timedelta()) -> Delivery:
        due = self.clock.now() + after
        return Delivery(DeliveryId(self.store.ids.draw(to_ms(self.clock.now()))), route, event, due, due)

    def owed(self, event: Event, route: str = "www", after: timedelta = timedelta()) -> Owed:
        """A delivery that joins the queue as its route wants it."""
        order, grouping, now = self.orders.get(route, Order.NONE), self.groupings.get(route), self.clock.now()
        delivery = self.owe(event, route, after if grouping is None else grouping.due(now, now) - now)
        delivery.lane = lane(order, event)
        delivery.reserved = grouping is None and order is not Order.LATEST
        return Owed(
            delivery=delivery,
            most=self.most.get(route, MOST),
            paused=route in self.paused,
            supersedes=supersedes(order, event),
            grouping=grouping,
            window=None if grouping is None else grouping.key(event),
        )

    async def add(self, *routes: str, body: bytes = b'{"a":1}', source: str = "blog") -> list[Delivery]:
        event = self.event(body, source)
        deliveries = [self.owe(event, route) for route in routes]
        await self.put(event, deliveries)
        return deliveries

    async def put(self, event: Event, deliveries: Sequence[Delivery] = ()) -> Added:
        """Store an event with deliveries that are simply more of their routes."""
        return await self.store.add(event, [Owed(delivery, MOST) for delivery in deliveries])

    async def tell(self, event: Event | None = None, route: str = "www", mark: Mark | None = None) -> Delivery:
        """Store an event that one route is owed, as the route wants it."""
        owed = self.owed(event or self.about(), route)
        await self.store.add(owed.delivery.event, [owed], mark)
        return owed.delivery

    async def replay(self, event: Event, route: str = "www") -> Delivery:
        """Owe a stored event once more, as the route wants it."""
        owed = self.owed(replace(event, received_at=self.clock.now()), route)
        await self.store.owe(event.id, [owed])
        return owed.delivery

    # -- routes ------------------------------------------------------------------------------------------------------

    async def follow(self, **orders: Order) -> None:
        """Routes that keep these orders."""
        self.orders.update(orders)
        await self.store.follow(self.orders)

    async def pause(self, route: str = "www") -> None:
        self.paused.add(route)
        await self.settle(route)

    async def resume(self, route: str = "www") -> None:
        self.paused.discard(route)
        await self.settle(route)

    async def settle(self, *routes: str, kept: Mapping[str, HeldReason] | None = None) -> None:
        """There are these routes, some of them paused."""
        await self.store.settle(routes, {**dict.fromkeys(self.paused, HeldReason.PAUSED), **(kept or {})})

    # -- what became of it -------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, tuple[int, int]]:
        return {route: (each.pending, each.held) for route, each in self.store.counts().items()}

    async def claim(self, route: str = "www") -> list[Delivery]:
        return await self.store.claim(route, None, self.clock.now(), 100, ())

    async def claimed(self, route: str = "www", limit: int = 100) -> list[DeliveryId]:
        return [found.id for found in await self.store.claim(route, None, self.clock.now(), limit, ())]

    async def take(self, delivery: Delivery) -> Delivery | None:
        """Claim it as a courier does, and begin with it. None where it is not to be had."""
        for found in await self.claim(delivery.route):
            if found.id == delivery.id:
                return found if found.reserved else await self.store.take(found, self.clock.now())
        return None

    async def send(self, delivery: Delivery) -> None:
        """Take it, and have it arrive."""
        taken = await self.take(delivery)
        assert taken is not None
        await self.store.record(delivered(taken, taken.attempts + 1))

    async def detail(self, delivery: Delivery) -> DeliveryDetail:
        found = await self.store.delivery(delivery.id)
        assert found is not None
        return found

    async def state(self, delivery: Delivery) -> str:
        return (await self.detail(delivery)).item.status

    async def states(self, *deliveries: Delivery) -> list[str]:
        return [await self.state(delivery) for delivery in deliveries]

    async def carrier(self, delivery: Delivery) -> DeliveryId | None:
        """What it was merged into."""
        into = (await self.detail(delivery)).item.merged_into
        return None if into is None else DeliveryId(self.store.ids.number(into, DELIVERY)[1])


def attempt(n: int = 1, status: int | None = 200, at: datetime = NOON) -> Attempt:
    return Attempt(
        n=n,
        trigger=Trigger.INITIAL if n == 1 else Trigger.RETRY,
        started_at=at,
        duration_ms=12,
        request=Request("POST", "https://example.com/***", (("webhook-id", "dlv_1"), ("X-A", "caf\udce9"))),
        response=None if status is None else Response(status, (("Server", "caf\udce9"),), b"\xff\x00", True),
        error=None if status == 200 else Failure(Code.HTTP_STATUS if status else Code.TIMEOUT, "no luck"),
    )


def delivered(delivery: Delivery, n: int = 1) -> Result:
    return Result(delivery, attempt(n), State.DELIVERED, None, n, None, NOON + SECOND)


def failed(delivery: Delivery, n: int = 1) -> Result:
    made = attempt(n, 500)
    return Result(delivery, made, State.FAILED, None, n, made.error, NOON + SECOND)


def again(delivery: Delivery, due: datetime, n: int = 1) -> Result:
    made = attempt(n, None)
    return Result(delivery, made, State.PENDING, due, n, made.error, NOON + SECOND)


def expired(delivery: Delivery) -> Result:
    """It ended without an attempt."""
    failure = Failure(Code.EXPIRED, "older than 1h")
    return Result(delivery, None, State.FAILED, None, delivery.tries, failure, NOON + SECOND)
