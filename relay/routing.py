"""Which routes want an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from relay.destination import Destination
from relay.pattern import Filter, Subject
from relay.retry import RetryPolicy


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
