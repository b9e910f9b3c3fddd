"""Who is sent when: what is due, in order, within each route's concurrency, rate and health.

Each route has a courier: what was just committed is handed over to it in memory while there is room; what does not fit
is read back from the store later, oldest due first. So memory stays bounded with any backlog, a dead destination holds
up nobody else, and the store, not this module, is the guarantee: whatever is forgotten here is found there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import Self

from relay import journal, waiting
from relay.attempts import Attempt, Attempts
from relay.clock import Clock
from relay.courier import Courier, size_of
from relay.delivery import Added
from relay.health import RouteState
from relay.ids import DeliveryId
from relay.oversight import Oversight
from relay.probes import Probes
from relay.reading import Reading
from relay.routing import Route
from relay.schedule import Schedule
from relay.settling import Settling
from relay.stepping import Stepping
from relay.steps import Steps
from relay.stock import Stock
from relay.store import Store, Unavailable
from relay.trouble import Trouble
from relay.waiting import Waits

_LOOK_EVERYWHERE = 60.0  # seconds between looks into the store that nothing asked for: the guarantee
_RECORDING = 5.0  # seconds for the results of attempts that were cut off
_SETTLE_AGAIN = 5.0  # seconds between tries to settle what the store could not
_MOST_SPARE = 64  # tasks that are kept for what is to be sent next

# See health: a name of a module, for the hot path.
_HEALTHY = RouteState.HEALTHY


class Dispatcher:
    """Owns the tasks that send. Use as an async context manager; leaving it drains."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        attempt: Attempt,
        oversight: Oversight,
        drain: timedelta = timedelta(seconds=20),
        most_bytes: int = 64 << 20,
        steps: Steps | None = None,
    ) -> None:
        self._stock = Stock(most_bytes, self.pump)
        self._store = store
        self._clock = clock
        self._oversight = oversight
        self._drain = drain.total_seconds()
        self._couriers: dict[str, Courier] = {}
        self._schedule = Schedule(clock)
        self.trouble = Trouble(clock)
        self._stepping = Stepping(store, clock, Steps(clock) if steps is None else steps, self.trouble)
        self._settling = Settling(store, clock, oversight, self._couriers, self.trouble)
        self._attempts = Attempts(
            store, clock, attempt, oversight, self._schedule, self._settling, self._stock, self.trouble
        )
        self._reading = Reading(self, store, clock, self._schedule, self._stock)
        self._probes = Probes(
            self, store, clock, self._attempts, oversight, self._schedule, self._settling, self._stock
        )
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._spare: list[asyncio.Future[Courier | None]] = []  # of those that wait for somebody to work for
        self._rests: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._keepers: tuple[asyncio.Task[None], ...] = ()  # of time, and of order in the store
        self.interrupted = 0

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._loop = asyncio.get_running_loop()  # to ask which one runs is a call of the system each time
        self._keepers = (
            self._group.create_task(self._keep_time(), name="scheduler"),
            self._group.create_task(self._keep_settled(), name="settler"),
            self._group.create_task(self._stepping.keep(self._moved), name="clock"),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        await self._group.__aexit__(None, None, None)
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- what may be sent --------------------------------------------------------------------------------------------

    async def follow(self, routes: Mapping[str, Route]) -> None:
        """Send by these routes from now on; the rest of the queue is held, or released, to fit them.

        Attempts in flight finish under the route they began with.
        """
        enabled = {name: route for name, route in routes.items() if route.enabled}
        self._settling.disabled = frozenset(routes.keys() - enabled.keys())
        for name in self._couriers.keys() - enabled.keys():
            courier = self._couriers[name]
            courier.route = None
            self._settling.left(name)
            self._stock.forget(courier)
            self.let_go(courier)
        self.stand_by(enabled)
        await self._settling.keep_orders(enabled)
        for name, route in enabled.items():
            known = self._couriers.get(name)
            if known is None:
                self._couriers[name] = Courier(route, self._oversight.of(name), self._clock)
            else:
                known.follow(route, self._clock)
                known.relaning = False
        await self._settle()
        self._look_everywhere()

    def stand_by(self, routes: Mapping[str, Route]) -> None:
        """Begin nothing of those that keep another order from now on, until `follow` has put what waits into its lanes:
        it may have to wait, or to be taken."""
        for name, route in routes.items():
            known = self._couriers.get(name)
            if known is not None and known.route is not None and known.route.order is not route.order:
                known.relaning = True
                self._stock.forget(known)  # and nothing is handed over: nobody reads what it is behind with

    async def obey(self) -> None:
        """Routes were paused or resumed: what waits of them is held or released. When it returns, nothing of a paused
        route will be sent but what is in flight."""
        for courier in self._couriers.values():
            if self._oversight.paused(courier.name):
                self._stock.forget(courier)
        await self._settle()
        self._look_everywhere()

    def offer(self, added: Added) -> None:
        """Hand over what was just committed. What does not fit now is found in the store later."""
        for delivery in added.ready:
            courier = self._couriers.get(delivery.route)
            if courier is None or (route := courier.route) is None:  # it went away between match and commit
                self._settling.left(delivery.route)
                self._settling.soon()
                continue
            queue, slots = courier.first, courier.health.slots(route.concurrency)
            if (
                not slots
                or queue.behind
                # What may have been read from the store before it is told of here must not be sent twice.
                or courier.claiming
                or courier.probing
                or delivery.id <= courier.claimed
                or (queue.ready and courier.room(queue, slots) <= 0)
                or not self._stock.take(courier, size_of(delivery))
            ):
                queue.behind = True
            else:
                queue.ready.append(delivery)
            self.pump(courier, slots)
        for name, due in added.later:
            self._schedule.expect(due, name)
        for name in added.looks:
            self.look(name)

    def lost(self) -> None:
        """Others may have what is ready here: all of it is left to the store. What is being sent goes on."""
        for courier in self._couriers.values():
            self._stock.forget(courier)
        self.settle()  # and what is disabled here nobody has held meanwhile

    def settle(self) -> None:
        """What waits may be of routes that nobody sends for any more: to be looked at soon."""
        self._settling.soon()
        self._look_everywhere()

    def look(self, route: str) -> None:
        """Something of this route became due by other means than `offer`: a retry by hand, a release."""
        courier = self._couriers.get(route)
        if courier is None or courier.route is None:  # nobody sends it now: it is to be held
            self._settling.soon()
        else:
            courier.look()
            self.pump(courier)

    def recall(self, deliveries: Iterable[DeliveryId]) -> None:
        """These are not to be sent: they are about to be cancelled or held. One that is being sent already is sent."""
        gone = set(deliveries)
        for courier in self._couriers.values():
            if courier.claiming or courier.probing:
                courier.recalled |= gone
            for queue in courier.queues:
                for delivery in [one for one in queue.ready if one.id in gone]:
                    queue.ready.remove(delivery)
                    self._stock.drop(courier, size_of(delivery))

    def again(self, delivery: DeliveryId, route: str) -> None:
        """A delivery was retried by hand: it is due now. One that is being sent is due again when that has failed."""
        courier = self._couriers.get(route)
        if courier is not None and delivery in courier.sending:
            courier.rerun.add(delivery)
        self.hurry(route)

    def rerun(self, delivery: DeliveryId) -> None:
        """The same at another relay, which is heard a moment later: by then it may have failed already."""
        if (failed := self._attempts.just_failed(delivery)) is not None:
            self.begin(self._attempts.rerun(failed[0], delivery, after=failed[1]))
            return
        for courier in self._couriers.values():
            if delivery in courier.sending:
                courier.rerun.add(delivery)

    def hurry(self, route: str) -> None:
        """A person wants something of this route to be sent now: an unhealthy one is probed without waiting."""
        self._oversight.hurry(route)
        self.look(route)

    def _look_everywhere(self) -> None:
        for courier in self._couriers.values():
            courier.look()
            self.pump(courier)

    def waits(self, route: str, delivery: DeliveryId | None = None) -> Waits | None:
        """What keeps what is due of a route, if anything is known to; nothing keeps what is being sent."""
        courier = self._couriers.get(route)
        if courier is None or delivery in courier.sending:
            return None
        return waiting.at(courier, self._clock.now())

    @property
    def progress_at(self) -> float:
        """When something was last done here, by the clock that nobody sets."""
        return self._attempts.progress_at

    @progress_at.setter
    def progress_at(self, moment: float) -> None:
        self._attempts.progress_at = moment

    @property
    def sending(self) -> list[DeliveryId]:
        """What is being sent at this moment, or was and cannot be recorded."""
        return [number for courier in self._couriers.values() for number in (*courier.sending, *courier.stuck)]

    @property
    def in_flight(self) -> int:
        """Attempts being made at this moment."""
        return sum(len(courier.sending) for courier in self._couriers.values())

    async def stop(self) -> None:
        """Begin nothing new; let attempts in flight finish for the drain time, then cut them off. Idempotent."""
        if self.stopping:
            return
        self.stopping = True
        for task in (*self._keepers, *self._rests):
            task.cancel()
        while self._spare:
            self._spare.pop().set_result(None)
        for courier in self._couriers.values():
            self._stock.forget(courier)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain)
        self.interrupted = self.in_flight
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_RECORDING)

    # -- sending -----------------------------------------------------------------------------------------------------

    def pump(self, courier: Courier, slots: int | None = None) -> None:
        """Start what the courier has room for; who has just asked for its slots says them."""
        route = courier.route
        if self.stopping or route is None or courier.relaning:
            return
        if slots is None:
            slots = courier.health.slots(route.concurrency)
        if not slots:
            self._probes.in_time(courier)
            return
        if courier.resting:
            return
        first, again = courier.first, courier.again
        wanted = min(slots, len(first.ready) + len(again.ready) + len(courier.sending))
        while courier.workers < wanted:
            courier.workers += 1
            if self._spare:
                self._spare.pop().set_result(courier)
            else:
                self._start(self._serve(courier))
        behind = (first.behind and len(first.ready) < slots) or (again.behind and len(again.ready) < slots)
        # One reads at a time: what a probe is just sending must not be found here, nor the other way about.
        if behind and not (courier.claiming or courier.probing) and not self._stock.starve(courier):
            courier.claiming = True
            self.begin(self._reading.claim(courier))

    def _start(self, coroutine: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def begin(self, coroutine: Coroutine[object, object, None]) -> None:
        """Have this done beside all else."""
        self._start(self._contained(coroutine))

    @staticmethod
    async def _contained(coroutine: Coroutine[object, object, None]) -> None:
        try:
            await coroutine
        except Exception:  # noqa: BLE001 - a bug of ours in one route must not end the sending of all others
            journal.crashed("dispatcher")

    async def _serve(self, courier: Courier | None) -> None:
        """Work for one courier, then for whichever needs somebody next: a task for each delivery would cost some ten
        thousand instructions more."""
        while courier is not None:
            try:
                await self._work(courier)
            except Exception:  # noqa: BLE001 - see _contained
                journal.crashed("dispatcher")
            if self.stopping or len(self._spare) >= _MOST_SPARE:
                return
            called: asyncio.Future[Courier | None] = self._loop.create_future()
            self._spare.append(called)
            courier = await called

    async def _work(self, courier: Courier) -> None:
        """Send one delivery after another until the courier has no more for this slot."""
        first, again = courier.first, courier.again
        try:
            while (route := courier.route) is not None and (first.ready or again.ready):
                if self.stopping or courier.relaning:
                    break
                slots = courier.health.slots(route.concurrency)
                wanted = len(first.ready) + len(again.ready) + len(courier.sending)
                if (courier.workers < wanted and courier.workers < slots) or first.behind or again.behind:
                    self.pump(courier)
                if courier.workers > slots or (courier.bucket is not None and self.must_rest(courier)):
                    break
                queue = courier.pick(slots) if again.ready else first
                delivery = queue.ready.popleft()
                courier.sending[delivery.id] = delivery
                queue.sending += 1
                held = size_of(delivery)
                try:
                    await (self._attempts.attempted if delivery.reserved else self._attempts.send)(
                        route, courier, delivery
                    )
                finally:
                    queue.sending -= 1
                    del courier.sending[delivery.id]
                    self._stock.drop(courier, held)
        except Unavailable as error:  # it could not be taken: the store is asked for it again
            self.trouble.failed(str(error))
            courier.look()
            self.pause(courier, 1.0)
        finally:
            courier.workers -= 1
            if first.ready or again.ready or first.behind or again.behind or courier.health.state is not _HEALTHY:
                self.pump(courier)
            if courier.route is None:
                self.let_go(courier)

    def must_rest(self, courier: Courier) -> bool:
        """Whether the route's rate is used up; then it goes on by itself when there is some again."""
        wait = courier.bucket.take() if courier.bucket is not None else 0.0
        if wait:
            self.pause(courier, wait)
        return wait > 0

    def pause(self, courier: Courier, seconds: float) -> None:
        """Begin nothing for so long."""
        if courier.resting or self.stopping:
            return
        courier.resting = True
        task = self._group.create_task(self._rest(courier, seconds))
        self._rests.add(task)
        task.add_done_callback(self._rests.discard)

    async def _rest(self, courier: Courier, seconds: float) -> None:
        await self._clock.sleep(seconds)
        courier.resting = False
        self.pump(courier)

    def let_go(self, courier: Courier) -> None:
        """A courier whose route is gone ends with its last attempt. What is stuck stays known."""
        if courier.route is not None:
            return
        if not courier.sending:
            courier.over.set()
        idle = not (courier.workers or courier.claiming or courier.probing or courier.stuck)
        if idle and self._couriers.get(courier.name) is courier:
            del self._couriers[courier.name]
            self._stock.starved.pop(courier, None)

    async def ended(self, route: str) -> None:
        """Wait until nothing is being sent any more by a route, where that is gone; or it has come back."""
        courier = self._couriers.get(route)
        if courier is not None and courier.route is None and courier.sending:
            courier.over.clear()
            await courier.over.wait()

    # -- time --------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """Wake routes when something of theirs becomes due."""
        look_at = self._clock.monotonic() + _LOOK_EVERYWHERE
        while True:
            now = self._schedule.begin()
            self._stepping.look()
            for name in self._schedule.due(now):
                self.look(name)
            if self._clock.monotonic() >= look_at:
                self._look_everywhere()
                look_at = self._clock.monotonic() + _LOOK_EVERYWHERE
            self._attempts.progress_at = self._clock.monotonic()
            await self._schedule.wait(now)

    async def _keep_settled(self) -> None:
        """Settle what belongs to no route, beside the schedule: of a million deliveries that takes minutes, and what is
        due of other routes does not wait for it."""
        while True:
            await self._settling.needed.wait()
            if not await self._settle():
                await self._clock.sleep(_SETTLE_AGAIN)

    async def _settle(self) -> bool:
        """Whether the store could do it."""
        released = await self._settling.settle()
        for name in released or ():
            self.look(name)
        return released is not None

    def _moved(self) -> None:
        """What waits is due at other times than before."""
        self._schedule.clear()
        self._look_everywhere()
