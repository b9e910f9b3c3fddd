"""What of one route is in memory: what is ready to be sent, what is being sent, and whose turn it is.

A courier has two queues. First attempts go before others, but never all: of its slots up to half are for what waits for
another try, and with one slot the two take turns. So neither a backlog of retries nor a stream of new events starves
the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from relay.clock import Clock
from relay.delivery import Delivery
from relay.health import RouteHealth
from relay.ids import DeliveryId
from relay.limits import TokenBucket
from relay.routing import Route

_READY_PER_SLOT = 8
_READY_LEAST = 64
_PROBED = 1000  # what is remembered of probes: those of a week


class Queue:
    """What of one kind is ready in memory, and whether the store may hold more that is due."""

    __slots__ = ("behind", "ready", "retried", "sending")

    def __init__(self, retried: bool) -> None:
        self.retried = retried
        self.sending = 0
        self.ready: deque[Delivery] = deque()
        self.behind = True


class Courier:
    """What of one route is in memory. It outlives its route while attempts of it are in flight, so that a route that
    returns does not send again what is being sent."""

    __slots__ = (
        "again", "bucket", "bytes", "claimed", "claiming", "first", "health", "name", "over", "probed", "probing",
        "recalled", "relaning", "rerun", "resting", "route", "sending", "stuck", "turn", "workers",
    )  # fmt: skip

    def __init__(self, route: Route, health: RouteHealth, clock: Clock) -> None:
        self.name = route.name
        self.route: Route | None = route
        self.health = health
        self.first = Queue(retried=False)
        self.again = Queue(retried=True)
        self.sending: dict[DeliveryId, Delivery] = {}
        self.stuck: set[DeliveryId] = set()  # sent, but the result cannot be recorded: not to be sent again
        self.recalled: set[DeliveryId] = set()  # not to be sent, also if a claim that is under way brings them
        self.rerun: set[DeliveryId] = set()  # asked for by hand while they were being sent
        self.claimed = DeliveryId(0)  # the highest id that was ever read from the store
        self.bytes = 0  # of bodies that are ready, or being sent
        self.workers = 0
        self.claiming = False
        self.probing = False
        self.probed: deque[DeliveryId] = deque(maxlen=_PROBED)  # since the destination was well
        self.resting = False  # out of rate
        self.relaning = False  # its deliveries are being put into other lanes
        self.over = asyncio.Event()  # its route was gone, and nothing was being sent; or it came back
        self.turn = False  # with one slot: whose it is
        self.bucket = _bucket(route, clock)

    def follow(self, route: Route, clock: Clock) -> None:
        """Another config."""
        if self.route is None or self.route.rate != route.rate:
            self.bucket = _bucket(route, clock)
        self.route = route
        self.over.set()

    @property
    def queues(self) -> tuple[Queue, Queue]:
        return self.first, self.again

    @property
    def slots(self) -> int:
        """How many ordinary attempts may be under way at once."""
        return 0 if self.route is None else self.health.slots(self.route.concurrency)

    @property
    def waiting(self) -> int:
        """How many are ready to be sent."""
        return len(self.first.ready) + len(self.again.ready)

    @property
    def known(self) -> set[DeliveryId]:
        """What must not be claimed again."""
        ready = {delivery.id for queue in self.queues for delivery in queue.ready}
        return ready | self.sending.keys() | self.stuck

    def fresh(self, found: Sequence[Delivery]) -> list[Delivery]:
        """What was just read from the store, as far as it is to be sent."""
        self.claimed = max([self.claimed, *(delivery.id for delivery in found)])
        known = self.known | self.recalled
        return [delivery for delivery in found if delivery.id not in known]

    def room(self, queue: Queue, slots: int) -> int:
        """How many more of a kind are to be kept ready."""
        return max(_READY_LEAST, slots * _READY_PER_SLOT) - len(queue.ready)

    def pick(self, slots: int) -> Queue:
        """Where the next one to be sent is taken from; there must be one."""
        if not (self.first.ready and self.again.ready):
            return self.first if self.first.ready else self.again
        if slots == 1:
            self.turn = not self.turn
            return self.again if self.turn else self.first
        return self.again if self.again.sending < max(1, slots // 2) else self.first

    def look(self) -> None:
        """The store may hold more that is due."""
        self.first.behind = self.again.behind = True


def _bucket(route: Route, clock: Clock) -> TokenBucket | None:
    # What could have been sent before a restart is not made up for after it.
    return None if route.rate is None else TokenBucket(route.rate, clock.monotonic, level=1.0)


def size_of(delivery: Delivery) -> int:
    """The bytes that a delivery holds in memory, nearly all of them its body, or the bodies of its window."""
    if delivery.collected is None:
        return len(delivery.event.body)
    return sum([len(event.body) for event in delivery.collected.events])
