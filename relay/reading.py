"""What is due, read from the store as far as there is room for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.clock import Clock
from relay.courier import Courier, Queue
from relay.routing import Route
from relay.schedule import Schedule
from relay.stock import Stock
from relay.store import Store, Unavailable

if TYPE_CHECKING:
    from relay.dispatcher import Dispatcher

_AT_ONCE = 128
"""Deliveries of a route, each some 5 KiB besides its body while it is read: four times as many are sent no faster."""


class Reading:
    """Fills couriers' queues for the dispatcher."""

    def __init__(self, dispatcher: Dispatcher, store: Store, clock: Clock, schedule: Schedule, stock: Stock) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._clock = clock
        self._schedule = schedule
        self._stock = stock

    async def claim(self, courier: Courier) -> None:
        """Read what is due from the store, as far as there is room for it.

        While this runs `offer` hands nothing over, so that what is read is either known here or not in memory at all.
        """
        try:
            for queue in courier.queues:
                if queue.behind and courier.route is not None:
                    await self._fill(courier, courier.route, queue)
        except Unavailable as error:
            self._dispatcher.trouble.failed(str(error))
            courier.look()
            self._dispatcher.pause(courier, 1.0)
        finally:
            courier.claiming = False
            if not courier.probing:
                courier.recalled.clear()
            self._dispatcher.pump(courier)
            self._dispatcher.let_go(courier)

    async def _fill(self, courier: Courier, route: Route, queue: Queue) -> None:
        now, slots = self._clock.now(), courier.health.slots(route.concurrency)
        queue.behind = False
        room = min(max(1, courier.room(queue, slots)), _AT_ONCE)
        async with self._stock.room(courier) as most:
            if not most:
                queue.behind = True  # whoever pumps at the end has it wait
                return
            found = await self._store.claim(route.name, queue.retried, now, room, courier.known, most)
            if courier.route is None or self._dispatcher.stopping:
                return
            if not courier.slots or courier.relaning or courier.route.order is not route.order:
                queue.behind = True
                return
            found = courier.fresh(found)
            queue.ready.extend(found)
            self._stock.keep(courier, found)
        if found:
            queue.behind = True  # until a claim finds nothing
            return
        later = await self._store.next_due(route.name, now)
        if later is not None:
            self._schedule.expect(later, route.name)
