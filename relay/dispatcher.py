"""Who is sent when: what is due, in order, within each route's concurrency.

Each route has a lane of its own: what was just committed is handed over in memory while there is room; what does not
fit is read back from the store later, oldest due first. So memory stays bounded with any backlog, a dead destination
holds up nobody else, and the store, not this module, is the guarantee: whatever is forgotten here is found there.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from relay import journal
from relay.clock import Clock
from relay.delivery import Delivery, Result, State
from relay.ids import DeliveryId
from relay.routing import Route
from relay.store import Store, Unavailable

_POLL = 5.0  # seconds; also how late a jump of the wall clock is noticed
_LOOK_EVERYWHERE = 60.0  # seconds between looks into the store that nothing asked for: the guarantee
_READY_PER_SLOT = 8
_READY_LEAST = 64
_READY_BYTES = 64 << 20
_RECORD_AGAIN = 0.5  # seconds between tries to record a result that the store could not take

_RECORDING = 5.0  # seconds for the results of attempts that were cut off

Attempt = Callable[[Route, Delivery], Awaitable[Result]]


class _Lane:
    """The deliveries of one route that are in memory. It outlives its route while attempts of it are in flight, so that
    a route that returns does not send again what is being sent."""

    __slots__ = ("behind", "claiming", "ready", "route", "sending", "stuck", "workers")

    def __init__(self, route: Route) -> None:
        self.route: Route | None = route
        self.ready: deque[Delivery] = deque()
        self.sending: dict[DeliveryId, Delivery] = {}
        self.stuck: set[DeliveryId] = set()  # sent, but the result cannot be recorded: not to be sent again
        self.workers = 0
        self.behind = True  # the store may hold more that is due
        self.claiming = False

    @property
    def slots(self) -> int:
        return self.route.concurrency if self.route is not None else 0

    @property
    def room(self) -> int:
        return max(_READY_LEAST, self.slots * _READY_PER_SLOT) - len(self.ready)


class Dispatcher:
    """Owns the tasks that send. Use as an async context manager; leaving it drains."""

    def __init__(self, store: Store, clock: Clock, attempt: Attempt, drain: timedelta = timedelta(seconds=20)) -> None:
        self._store = store
        self._clock = clock
        self._attempt = attempt
        self._drain = drain.total_seconds()
        self._lanes: dict[str, _Lane] = {}
        self._disabled: frozenset[str] = frozenset()
        self._due: list[tuple[datetime, str]] = []
        self._next: dict[str, datetime] = {}  # by route: the one moment it is to be looked at next
        self._bytes = 0
        self._stopping = False
        self._strays = False
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._scheduler: asyncio.Task[None] | None = None
        self.interrupted = 0
        self.progress_at = clock.monotonic()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._scheduler = self._group.create_task(self._schedule(), name="scheduler")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        await self._group.__aexit__(None, None, None)

    # -- what may be sent --------------------------------------------------------------------------------------------

    async def follow(self, routes: Mapping[str, Route]) -> None:
        """Send by these routes from now on; the rest of the queue is held, or released, to fit them.

        Attempts in flight finish under the route they began with.
        """
        enabled = {name: route for name, route in routes.items() if route.enabled}
        self._disabled = frozenset(routes.keys() - enabled.keys())
        for name in self._lanes.keys() - enabled.keys():
            lane = self._lanes[name]
            lane.route = None
            self._forget(lane)
            self._let_go(name, lane)
        for name, route in enabled.items():
            known = self._lanes.get(name)
            if known is None:
                self._lanes[name] = _Lane(route)
            else:
                known.route = route
        await self._settle()
        self._look_everywhere()

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over what was just committed. What does not fit now is found in the store later."""
        for delivery in deliveries:
            lane = self._lanes.get(delivery.route)
            if lane is None or lane.route is None:  # its route went away between match and commit
                self._strays = True
                self._wake.set()
            elif lane.behind or lane.claiming or lane.room <= 0 or self._bytes > _READY_BYTES:
                lane.behind = True
                self._pump(lane)
            else:
                self._bytes += len(delivery.event.body)
                lane.ready.append(delivery)
                self._pump(lane)

    def look(self, route: str) -> None:
        """Something of this route became due by other means than `offer`: a retry by hand, a release."""
        lane = self._lanes.get(route)
        if lane is None or lane.route is None:  # nobody sends it now: it is to be held
            self._strays = True
            self._wake.set()
        else:
            lane.behind = True
            self._pump(lane)

    def _look_everywhere(self) -> None:
        for lane in self._lanes.values():
            lane.behind = True
            self._pump(lane)

    @property
    def in_flight(self) -> int:
        """Attempts being made at this moment."""
        return sum(len(lane.sending) for lane in self._lanes.values())

    async def stop(self) -> None:
        """Begin nothing new; let attempts in flight finish for the drain time, then cut them off. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        if self._scheduler is not None:
            self._scheduler.cancel()
        for lane in self._lanes.values():
            self._forget(lane)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain)
        self.interrupted = self.in_flight
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_RECORDING)

    # -- sending -----------------------------------------------------------------------------------------------------

    def _pump(self, lane: _Lane) -> None:
        """Start what the lane has room for."""
        route = lane.route
        if self._stopping or route is None:
            return
        while lane.workers < lane.slots and lane.workers < len(lane.ready) + len(lane.sending):
            lane.workers += 1
            self._start(self._work(route.name, lane))
        if lane.behind and not lane.claiming and len(lane.ready) < lane.slots:
            lane.claiming = True
            self._start(self._claim(route, lane))

    def _start(self, coroutine: Coroutine[object, object, None]) -> None:
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, name: str, lane: _Lane) -> None:
        """Send one delivery after another until the lane has no more for this slot."""
        try:
            while lane.ready and lane.route is not None and lane.workers <= lane.slots and not self._stopping:
                route = lane.route
                delivery = lane.ready.popleft()
                self._bytes -= len(delivery.event.body)
                lane.sending[delivery.id] = delivery
                try:
                    await self._send(route, lane, delivery)
                finally:
                    del lane.sending[delivery.id]
        finally:
            lane.workers -= 1
            self._pump(lane)
            self._let_go(name, lane)

    async def _send(self, route: Route, lane: _Lane, delivery: Delivery) -> None:
        result = await self._attempt(route, delivery)
        # The slot is free only when the result is on disk: after a crash no more is repeated than was in flight, and
        # while the store cannot write nothing new is sent that could not be recorded.
        while True:
            try:
                await self._store.record(result)
                break
            except Unavailable:
                await self._clock.sleep(_RECORD_AGAIN)
            except Exception:  # noqa: BLE001 - a bug: better a delivery that waits for a restart than one sent for ever
                journal.crashed("record")
                lane.stuck.add(delivery.id)
                return
        self.progress_at = self._clock.monotonic()
        if result.state is State.PENDING and result.due is not None:
            self._expect(result.due, delivery.route)

    async def _claim(self, route: Route, lane: _Lane) -> None:
        """Read what is due from the store, as far as there is room for it.

        While this runs `offer` hands nothing over, so that what is read is either known here or not in memory at all.
        """
        name, now = route.name, self._clock.now()
        try:
            lane.behind = False
            known = {delivery.id for delivery in lane.ready} | lane.sending.keys() | lane.stuck
            found = await self._store.claim(name, now, max(1, lane.room), known)
            if lane.route is None or self._stopping:
                return
            lane.ready.extend(found)
            self._bytes += sum(len(delivery.event.body) for delivery in found)
            if found:
                lane.behind = True  # until a claim finds nothing
            else:
                later = await self._store.next_due(name, now)
                if later is not None:
                    self._expect(later, name)
        except Unavailable as error:
            journal.store_trouble(str(error))
            self._expect(now + timedelta(seconds=1), name)
        finally:
            lane.claiming = False
            self._pump(lane)
            self._let_go(name, lane)

    def _forget(self, lane: _Lane) -> None:
        """Leave what has not begun to the store."""
        self._bytes -= sum(len(delivery.event.body) for delivery in lane.ready)
        lane.ready.clear()

    def _let_go(self, name: str, lane: _Lane) -> None:
        """A lane whose route is gone ends with its last attempt. What is stuck stays known."""
        idle = not (lane.workers or lane.claiming or lane.stuck)
        if lane.route is None and idle and self._lanes.get(name) is lane:
            del self._lanes[name]

    # -- time --------------------------------------------------------------------------------------------------------

    def _expect(self, due: datetime, route: str) -> None:
        """Look at a route again when something of it becomes due."""
        known = self._next.get(route)
        if known is not None and known <= due:
            return  # it is looked at before that, and then told what comes next
        self._next[route] = due
        heapq.heappush(self._due, (due, route))
        if self._due[0] == (due, route):
            self._wake.set()

    async def _schedule(self) -> None:
        """Wake routes when something of theirs becomes due, and settle what belongs to no route."""
        look_at = self._clock.monotonic() + _LOOK_EVERYWHERE
        while True:
            self._wake.clear()
            now = self._clock.now()
            due: set[str] = set()
            while self._due and self._due[0][0] <= now:
                moment, name = heapq.heappop(self._due)
                if self._next.get(name) == moment:
                    del self._next[name]
                    due.add(name)
            for name in due:
                self.look(name)
            if self._clock.monotonic() >= look_at:
                self._look_everywhere()
                look_at = self._clock.monotonic() + _LOOK_EVERYWHERE
            if self._strays:
                await self._settle()
            self.progress_at = self._clock.monotonic()
            wait = (self._due[0][0] - now).total_seconds() if self._due else _POLL
            try:
                async with asyncio.timeout(min(max(wait, 0.001), _POLL)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _settle(self) -> None:
        self._strays = False
        try:
            active = {name for name, lane in self._lanes.items() if lane.route is not None}
            settled = await self._store.settle(active, self._disabled)
        except Unavailable as error:
            self._strays = True
            journal.store_trouble(str(error))
            return
        journal.held(settled.held)
        journal.released(settled.released)
        for name in settled.released:
            self.look(name)
