"""Probes: single attempts of routes whose destination was not well, to see whether it is again."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from relay.attempts import Attempts
from relay.clock import Clock
from relay.courier import Courier, size_of
from relay.delivery import Delivery, Trigger
from relay.health import RouteState
from relay.oversight import Oversight
from relay.schedule import Schedule
from relay.settling import Settling
from relay.stock import Stock
from relay.store import Store, Unavailable

if TYPE_CHECKING:
    from relay.dispatcher import Dispatcher

_PROBED_FROM = 8  # deliveries among which the one for a probe is chosen
_PROBED_BYTES = 64 << 10  # that they have together, unless one has more
_ROOM_AGAIN = timedelta(seconds=1)  # until a probe that found no room in memory is tried again

_PROBE_FOR = timedelta(minutes=5)  # longer than any attempt: a relay that dies meanwhile is taken for dead before
_PROBED_ELSEWHERE = timedelta(seconds=5)  # until it is seen whether another relay's probe has turned the route


class Probes:
    """Makes them for the dispatcher, one of each route at a time."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: Store,
        clock: Clock,
        attempts: Attempts,
        oversight: Oversight,
        schedule: Schedule,
        settling: Settling,
        stock: Stock,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._shared = store.shared
        self._clock = clock
        self._attempts = attempts
        self._oversight = oversight
        self._schedule = schedule
        self._settling = settling
        self._stock = stock

    def in_time(self, courier: Courier) -> None:
        """Have one attempt made for an unhealthy route when it is time for it."""
        health = courier.health
        if courier.waiting:
            self._stock.forget(courier)
        if health.state is not RouteState.UNHEALTHY or courier.probing or courier.claiming or courier.resting:
            return  # whoever reads, and who rests, comes by here again at its end
        now = self._clock.now()
        due = health.probe_due(now)
        if due is not None and now < due:
            self._schedule.expect(due, courier.name)
            return
        courier.probing = True
        self._dispatcher.begin(self._probe(courier))

    async def _probe(self, courier: Courier) -> None:
        """One probe; another one at once where it ended its delivery, for that says nothing of the destination."""
        health = courier.health
        try:
            while courier.route is not None and health.state is RouteState.UNHEALTHY and not self._dispatcher.stopping:
                now = self._clock.now()
                due = health.probe_due(now)
                if due is not None and now < due:
                    self._schedule.expect(due, courier.name)
                    return
                if self._dispatcher.must_rest(courier):
                    return
                if self._shared is not None and not await self._shared.errand(_probing(courier), _PROBE_FOR):
                    self._schedule.expect(now + _PROBED_ELSEWHERE, courier.name)
                    return
                if self._shared is not None and await self._changed_elsewhere(courier, due):
                    continue
                courier.first.behind = courier.again.behind = False
                async with self._stock.room(courier) as most:
                    if not most:
                        self._schedule.expect(now + _ROOM_AGAIN, courier.name)
                        return
                    delivery = await self._to_probe(courier, now)
                    size = size_of(delivery) if delivery is not None else 0
                    self._stock.hold(courier, size)
                route = courier.route
                try:
                    if (
                        route is None
                        or self._dispatcher.stopping
                        or courier.relaning
                        or health.state is not RouteState.UNHEALTHY
                    ):
                        return  # it changed meanwhile
                    if delivery is None:
                        later = await self._store.next_due(courier.name, now)
                        if later is not None:
                            self._schedule.expect(later, courier.name)
                        return
                    courier.sending[delivery.id] = delivery
                    courier.probed.append(delivery.id)
                    try:
                        await self._attempts.send(route, courier, delivery, probe=True)
                    finally:
                        del courier.sending[delivery.id]
                finally:
                    self._stock.drop(courier, size)
        except Unavailable as error:
            self._dispatcher.trouble.failed(str(error))
            self._schedule.expect(self._clock.now() + timedelta(seconds=1), courier.name)
        finally:
            if self._shared is not None:
                with contextlib.suppress(Unavailable):
                    await self._shared.done(_probing(courier))
            courier.probing = False
            if not courier.claiming:
                courier.recalled.clear()
            if health.state is not RouteState.UNHEALTHY:
                courier.probed.clear()
                courier.look()
            if courier.first.behind or courier.again.behind:  # also what came while this one was reading
                self._dispatcher.pump(courier)
            self._dispatcher.let_go(courier)

    async def _changed_elsewhere(self, courier: Courier, due: datetime | None) -> bool:
        """Whether another relay has just probed a route, and knows more of it than has been heard here."""
        if await self._oversight.refresh([courier.name]):
            self._settling.soon()  # it may have been paused
            return True
        return courier.health.probe_due(self._clock.now()) != due

    async def _to_probe(self, courier: Courier, now: datetime) -> Delivery | None:
        """What is sent to see whether a destination is well again: what a person asked for, else the oldest that was
        not tried yet since it was well. So what it never takes, whoever else would have it, keeps nobody waiting for
        ever. When all were tried, the oldest but for the last one. Of large ones no more than one is read."""
        claim, name, last = self._store.claim, courier.name, courier.health.last_probe
        tried = {*courier.probed, last}
        found = courier.fresh(await claim(name, None, now, _PROBED_FROM, courier.known, _PROBED_BYTES))
        for one in found:
            if one.trigger is Trigger.MANUAL:
                return one
        if found and tried.issuperset(one.id for one in found):
            known = courier.known | {number for number in tried if number is not None}
            further = courier.fresh(await claim(name, None, now, 1, known, _PROBED_BYTES))
            if further:
                return further[0]
            courier.probed.clear()
            tried = {last}
        return next((one for one in found if one.id not in tried), found[0] if found else None)


def _probing(courier: Courier) -> str:
    return f"probe:{courier.name}"
