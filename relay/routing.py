"""Which routes want an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from relay.delivery import Delivery, Owed
from relay.destination import Destination
from relay.event import Event
from relay.fields import Rate
from relay.health import Tolerance
from relay.ids import DeliveryId
from relay.lane import Order, lane, supersedes
from relay.pattern import Filter, Subject
from relay.retry import RetryPolicy
from relay.window import Grouping


@dataclass(frozen=True, slots=True)
class Route:
    """A filter, a destination and a delivery policy, with a name."""

    name: str
    sources: frozenset[str]
    filter: Filter
    destination: Destination
    retry: RetryPolicy
    max_age: timedelta | None
    concurrency: int
    enabled: bool
    order: Order = Order.NONE
    grouping: Grouping | None = None
    delay: timedelta = timedelta()
    rate: Rate | None = None
    max_pending: int = 1_000_000
    unhealthy_after: int = 5
    disable_after: int | None = None
    notify: tuple[str, ...] = ()
    """Names of notifiers."""
    fingerprint: str = ""
    """What of it, when changed, makes its health worth another try: URL, method and auth, as a hash that tells nothing
    of them."""

    def owe(self, event: Event, number: DeliveryId, paused: bool) -> Owed:
        """The delivery of an event that this route wants, and how it is to join the queue."""
        now = event.received_at
        due = now + self.delay if self.grouping is None else self.grouping.due(now, now)
        return Owed(
            delivery=Delivery(
                number,
                self.name,
                event,
                due=due,
                first_due=due,
                lane=lane(self.order, event),
                reserved=self.grouping is None and self.order is not Order.LATEST,
            ),
            most=self.max_pending,
            paused=paused,
            supersedes=supersedes(self.order, event),
            grouping=self.grouping,
            window=None if self.grouping is None else self.grouping.key(event),
        )

    @property
    def tolerance(self) -> Tolerance:
        """How many failures in a row it bears."""
        return Tolerance(self.unhealthy_after, self.disable_after)


class Routing:
    """The routes of one config, in its order, and for each source the enabled ones that may want its events."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = {route.name: route for route in routes}
        names = {source for route in routes for source in route.sources}
        self._by_source = {
            name: tuple(route for route in routes if route.enabled and name in route.sources) for name in names
        }

    def match(self, subject: Subject) -> list[Route]:
        """The enabled routes whose filter takes the event."""
        return [route for route in self._by_source.get(subject.source, ()) if route.filter.matches(subject)]
