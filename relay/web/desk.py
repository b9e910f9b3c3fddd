"""What the handlers of the admin side work with, and the steps that several of them take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from relay.clock import Clock
from relay.delivery import HeldReason, State
from relay.dispatcher import Dispatcher
from relay.following import Followers
from relay.health import RouteState
from relay.ids import DELIVERY, EVENT, DeliveryId, EventId, UnknownId
from relay.immutable import immutable
from relay.listening import Listening
from relay.metrics import Metrics
from relay.oversight import Oversight
from relay.pipeline import Pipeline
from relay.problems import did_you_mean
from relay.reload import Reloader
from relay.retention import Retention
from relay.routing import Route
from relay.store import DeliveryDetail, Store
from relay.waiting import Waits
from relay.web import shape
from relay.web.health import Health
from relay.web.read import NotFound


@immutable
class Desk:
    """The parts of a running relay that people act upon."""

    store: Store
    dispatcher: Dispatcher
    pipeline: Pipeline
    oversight: Oversight
    listening: Listening
    reloader: Reloader
    health: Health
    clock: Clock
    metrics: Metrics
    followers: Followers
    retention: Retention

    # -- what a request names: each raises NotFound ------------------------------------------------------------------

    def delivery_id(self, text: str) -> DeliveryId:
        """The id behind `dlv_…`."""
        try:
            return DeliveryId(self.store.ids.number(text, DELIVERY)[1])
        except UnknownId:
            raise no_delivery(text) from None

    def event_id(self, text: str) -> EventId:
        """The id behind `evt_…`."""
        try:
            return EventId(self.store.ids.number(text, EVENT)[1])
        except UnknownId:
            raise no_event(text) from None

    def route(self, name: str) -> Route:
        """A route of today's config."""
        routes = self.reloader.runtime.routing.routes
        found = routes.get(name)
        if found is None:
            raise NotFound(f"there is no route '{name[:100]}' in the config{did_you_mean(name, routes)}")
        return found

    # -- what is done ------------------------------------------------------------------------------------------------

    async def cancel(self, delivery: DeliveryId) -> str:
        """Give up a delivery; its route. Raises WrongState, KeyError, Unavailable."""
        self.dispatcher.recall([delivery])
        route = await self.store.cancel(delivery, self.clock.now())
        self.dispatcher.recall([delivery])  # what was read from the store before it was cancelled there
        self.metrics.deliveries.labels(route, State.CANCELLED.value).inc()
        await self.look([route])  # the next one of its lane
        return route

    async def look(self, routes: Iterable[str]) -> None:
        """Something of these routes became due: it is sent, or, where a route may not send, held."""
        routes = sorted(routes)
        if any(self.kept(route) is not None or self.holds(route) for route in routes):
            await self.dispatcher.obey()
        for route in routes:
            self.dispatcher.look(route)

    async def hurry(self, routes: Iterable[str]) -> None:
        """Somebody wants something of these routes to be sent now, also where one is unhealthy."""
        routes = list(routes)
        for route in routes:
            self.dispatcher.hurry(route)
        await self.look(routes)

    def kept(self, route: str) -> HeldReason | None:
        """Why a route may not send, if it may not."""
        if route not in self.reloader.runtime.routing.routes:
            return HeldReason.REMOVED
        match self.oversight.state(route):
            case RouteState.DISABLED:
                return HeldReason.DISABLED
            case RouteState.PAUSED:
                return HeldReason.PAUSED
            case _:
                return None

    def holds(self, route: str) -> bool:
        """Whether what waits of a route is held. One that is not in this config another relay may send for, and one
        that this relay sends for may be disabled at another."""
        why, shared = self.kept(route), self.store.shared
        others = [each for each in shared.members() if not each.me] if shared is not None else []
        if any(route in each.disabled for each in others):
            return True
        if why is not HeldReason.REMOVED:
            return why is not None
        return not any(route in each.routes for each in others)

    # -- what is answered --------------------------------------------------------------------------------------------

    async def item(self, delivery: DeliveryId) -> dict[str, Any] | None:
        """A delivery as it is now."""
        found = await self.store.delivery(delivery)
        return shape.item(found.item) if found is not None else None

    def waits_here(self, found: DeliveryDetail) -> Waits | None:
        """What this relay knows a delivery that is due to wait for."""
        item = found.item
        return self.dispatcher.waits(item.route, self.delivery_id(item.id)) if item.route is not None else None


def no_delivery(text: str) -> NotFound:
    """A delivery that is not there."""
    return NotFound(f"there is no delivery {text[:100]}")


def no_event(text: str) -> NotFound:
    """An event that is not there."""
    return NotFound(f"there is no event {text[:100]}")
