"""Which routes want an event. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from relay.delivery import Delivery, Owed
from relay.destination import Destination
from relay.event import Description, Event
from relay.fields import Rate
from relay.health import Tolerance
from relay.ids import DeliveryId
from relay.immutable import immutable
from relay.lane import Order, lane, supersedes
from relay.pattern import Filter, Subject
from relay.retry import RetryPolicy
from relay.window import Grouping

_UNORDERED = Order.NONE
_MOST_LISTED = 100_000  # routes of no model in the lists of all models
_MOST_KNOWN = 128  # combinations of words, of each source
_LONGEST_KNOWN = 512  # letters

_Words = tuple[str | None, ...]


@immutable
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
    any_answer: bool = False
    """See Tolerance."""
    notify: tuple[str, ...] = ()
    """Names of notifiers."""
    fingerprint: str = ""
    """What of it, when changed, makes its health worth another try: URL, method and auth, as a hash that tells nothing
    of them."""

    def owe(self, event: Event, number: DeliveryId, paused: bool) -> Owed:
        """The delivery of an event that this route wants, and how it is to join the queue."""
        now = event.received_at
        if self.grouping is None and self.order is _UNORDERED:  # nearly all: nothing to be asked of what it is about
            due = now + self.delay if self.delay else now
            return Owed(Delivery(number, self.name, event, due, due), self.max_pending, paused)
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
        return Tolerance(self.unhealthy_after, self.disable_after, self.any_answer)


class Routing:
    """The routes of one config, in its order, and for each source the enabled ones that may want its events."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = {route.name: route for route in routes}
        names = {source for route in routes for source in route.sources}
        self._by_source = {
            name: _Candidates([route for route in routes if route.enabled and name in route.sources]) for name in names
        }

    def wanting(self, event: Event, event_id: str, document: Callable[[], Any]) -> Sequence[Route]:
        """The same as `match` for an event that has just come in; its body is asked for where a filter looks at it."""
        candidates = self._by_source.get(event.source)
        if candidates is None:
            return ()
        what = event.description
        changes = what.changes
        if not candidates.by_words or len(changes) != 1:
            return self.match(Subject.of(event, event_id, document()))
        change = changes[0]
        words = (
            what.event,
            change.model,
            change.action,
            change.stage,
            what.locale,
            what.environment,
            what.branch,
            event.type,
        )
        found = candidates.known.get(words)
        if found is None:
            found = tuple(self.match(Subject.of(event, event_id, document())))
            candidates.remember(words, found)
        return found

    def match(self, subject: Subject) -> list[Route]:
        """The enabled routes whose filter takes the event."""
        candidates = self._by_source.get(subject.source)
        if candidates is None:
            return []
        return [route for route in candidates.of(subject.description) if route.filter.matches(subject)]


class _Candidates:
    """The routes of one source, by the model that their filters name: a thousand routes cost no more than a few."""

    __slots__ = ("_all", "_by_model", "_others", "by_words", "known")

    def __init__(self, routes: Sequence[Route]) -> None:
        self._all = tuple(routes)
        self.by_words = all(route.filter.by_words for route in routes)
        """Whether their filters look at nothing but a few words, of which an event has the same as many before it."""
        self.known: dict[_Words, tuple[Route, ...]] = {}
        """Those that wanted an event of these words."""
        models = [(route, route.filter.models) for route in routes]
        self._others = tuple(route for route, named in models if named is None)
        words = {word for _, named in models if named is not None for word in named}
        self._by_model: dict[str, tuple[Route, ...]] | None = None
        if len(words) * len(self._others) <= _MOST_LISTED:
            places: dict[str, list[Route]] = {word: [] for word in words}
            for route, named in models:  # in the order of the config, those of no model among the others
                for word in words if named is None else named:
                    places[word].append(route)
            self._by_model = {word: tuple(found) for word, found in places.items()}

    def remember(self, words: _Words, found: tuple[Route, ...]) -> None:
        """Of what senders make up, as of what is long, no more is kept than there is room for."""
        if sum(len(word) for word in words if word is not None) <= _LONGEST_KNOWN:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[words] = found

    def of(self, description: Description) -> tuple[Route, ...]:
        """Those that may want what is described."""
        if self._by_model is None or len(description.changes) != 1:
            return self._all
        model = description.changes[0].model
        return self._others if model is None else self._by_model.get(model.casefold(), self._others)
