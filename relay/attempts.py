"""One delivery: taken from the store where it may still change, sent, recorded, and what follows from its result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from relay import journal
from relay.clock import Clock
from relay.courier import Courier, size_of
from relay.delivery import Delivery, Result, State, Trigger
from relay.health import RouteState
from relay.ids import DeliveryId
from relay.lane import Order
from relay.oversight import Oversight
from relay.routing import Route
from relay.schedule import Schedule
from relay.settling import Settling
from relay.stock import Stock
from relay.store import Store, Unavailable, WrongState
from relay.trouble import Trouble

_RECORD_AGAIN = 0.5  # seconds between tries to record a result that the store could not take
_LATE = 10.0  # seconds after a failure within which it may be heard that somebody had asked for another try before
_MOST_FAILED = 1000

# See health: names of a module, for the hot path.
_HEALTHY, _PENDING, _NO_ORDER = RouteState.HEALTHY, State.PENDING, Order.NONE

Attempt = Callable[[Route, Delivery], Awaitable[Result]]


class Attempts:
    """What the dispatcher has done for one delivery after another."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        attempt: Attempt,
        oversight: Oversight,
        schedule: Schedule,
        settling: Settling,
        stock: Stock,
        trouble: Trouble,
    ) -> None:
        self.progress_at = clock.monotonic()
        """When a result was recorded, or the dispatcher looked at its schedule."""
        self._store = store
        self._shared = store.shared
        self._clock = clock
        self._attempt = attempt
        self._oversight = oversight
        self._schedule = schedule
        self._settling = settling
        self._stock = stock
        self._trouble = trouble
        self._failed: dict[DeliveryId, tuple[Courier, int, float]] = {}  # which attempt, and when; the oldest first

    async def send(self, route: Route, courier: Courier, delivery: Delivery, probe: bool = False) -> Result | None:
        """Make an attempt and record it. None where there was nothing to be sent after all. Raises Unavailable where it
        could not be taken."""
        if not delivery.reserved:
            if route.grouping is not None:
                return await self._send_window(route, courier, delivery, probe)
            taken = await self._store.take(delivery, self._clock.now())
            if taken is None:
                courier.look()  # it may be due later now
                return None
            delivery = taken
        return await self.attempted(route, courier, delivery, probe)

    async def _send_window(self, route: Route, courier: Courier, delivery: Delivery, probe: bool) -> Result | None:
        """The same for a window, of which only one event is in memory before it is taken: where there is little room,
        one at a time."""
        before = size_of(delivery)
        async with self._stock.alone_if_crowded():
            taken = await self._store.take(delivery, self._clock.now())
            if taken is None:
                courier.look()
                return None
            more = size_of(taken) - before
            self._stock.hold(courier, more)
            try:
                return await self.attempted(route, courier, taken, probe)
            finally:
                self._stock.drop(courier, more)

    async def attempted(self, route: Route, courier: Courier, delivery: Delivery, probe: bool = False) -> Result:
        """Make the attempt of what need not be taken any more, and see to it that its result is recorded."""
        if self._shared is not None and self._shared.lapsed():
            raise Unavailable("this relay's lease on what it has in hand has ended: it cannot reach the database")
        if probe and delivery.trigger is not Trigger.MANUAL:
            delivery.trigger = Trigger.PROBE
        if self._failed:
            self._failed.pop(delivery.id, None)
        result = await self._attempt(route, delivery)
        if courier.route is not None and courier.route.order is not _NO_ORDER and not result.ordered:
            result = replace(result, ordered=True)
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
                courier.stuck.add(delivery.id)
                return result
        self.progress_at = self._clock.monotonic()
        if (
            result.state is _PENDING
            or delivery.lane is not None
            or result.ordered
            or courier.rerun
            or self._oversight.urgent
            or courier.health.state is not _HEALTHY
        ):
            await self._recorded(courier, delivery, result)
        return result

    async def _recorded(self, courier: Courier, delivery: Delivery, result: Result) -> None:
        """What follows from a result that is on disk."""
        if delivery.lane is not None or result.ordered:
            courier.look()  # the next one of its lane, or what it has given way to
        if delivery.id in courier.rerun:
            courier.rerun.discard(delivery.id)
            if result.state is State.PENDING:
                await self.rerun(courier, delivery.id)
        elif result.state is State.PENDING and self._shared is not None and result.attempt is not None:
            self._failed.pop(delivery.id, None)
            self._failed[delivery.id] = courier, result.attempt.n, self.progress_at
            if len(self._failed) > _MOST_FAILED:
                del self._failed[next(iter(self._failed))]
        if self._oversight.urgent:
            await self._oversight.save()
        if self._oversight.paused(courier.name):
            self._stock.forget(courier)
            self._settling.soon()
        if result.state is State.PENDING and result.due is not None:
            # Last: as long as it counts as being sent, whoever looks does not find it, and would not come again soon.
            self._schedule.expect(result.due, delivery.route)

    def just_failed(self, delivery: DeliveryId) -> tuple[Courier, int] | None:
        """Whose it is and which attempt has failed, if that was recorded only now: it may have put off what somebody
        had asked for at another relay, which is in the store at once, but heard of here a moment later. Told once."""
        failed = self._failed.pop(delivery, None)
        return failed[:2] if failed is not None and self._clock.monotonic() - failed[2] <= _LATE else None

    async def rerun(self, courier: Courier, delivery: DeliveryId, after: int | None = None) -> None:
        """It was retried by hand while it was being sent, and that has failed: it is due now. `after`: only where
        nothing has become of it since this attempt, for it may have been retried after that as well."""
        now = self._clock.now()
        try:
            await self._store.retry(delivery, now, after)
            courier.look()
            self._schedule.expect(now, courier.name)
        except (WrongState, KeyError):
            return  # something else was done by hand since
        except Unavailable as error:
            self._trouble.failed(str(error))
