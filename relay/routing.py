"""Which routes want an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from relay.destination import Destination
from relay.fields import Rate
from relay.lane import Order
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
