"""Every route's health: asked before each attempt, told after it, kept in the store, and told to who wants to know.

The state belongs to no config: it is keyed by a route's name, outlives reloads and restarts, and also the absence of
its route.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from relay import journal
from relay.clock import Clock
from relay.delivery import Delivered, Outcome, Result
from relay.health import PausedBy, RouteHealth, RouteState, Turn, restored
from relay.notify import Kind, Notices
from relay.routing import Route
from relay.store import Store, Unavailable

_KIND = "route"
_PAUSED = RouteState.PAUSED  # see health: for the hot path
_BY_HAND = {"paused_by": PausedBy.HAND.value}
_OPEN = {RouteState.UNHEALTHY: Kind.UNHEALTHY, RouteState.PAUSED: Kind.PAUSED}
_TOLD = {Turn.UNHEALTHY: Kind.UNHEALTHY, Turn.RECOVERED: Kind.RECOVERED, Turn.PAUSED: Kind.PAUSED}


class Oversight:
    """The health of all routes."""

    def __init__(self, store: Store, clock: Clock, notices: Notices) -> None:
        self._store = store
        self._clock = clock
        self._notices = notices
        self._states: dict[str, RouteHealth] = {}
        self._stored: dict[str, Mapping[str, Any]] = {}
        """What was last saved here or heard of from others."""
        self._routes: Mapping[str, Route] = {}
        self._changed: set[str] = set()
        self._turned: set[str] = set()
        """Of those, the ones that are to be saved whatever another relay says of them."""
        self._decided: set[str] = set()
        """Of those, the ones that a person has turned: what relay sees by itself does not undo what a person did."""
        self._saving: Counter[str] = Counter()
        """Those that are just being saved so."""
        self._passed_over: set[str] = set()
        """What was heard of meanwhile, and may have been saved before or after."""
        self._told_of_turns: Callable[[Collection[str]], None] = lambda names: None
        self.urgent = False
        """Whether something is to be saved before anything else is sent."""

    async def restore(self) -> None:
        """Go on where the relay before this one ended."""
        for name, saved in (await self._store.states(_KIND)).items():
            health = self._states[name] = restored(saved)
            kind = _OPEN.get(health.state)
            if kind is not None:
                self._notices.remember(kind, name, health.since)

    def adopt(self, saved: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Another relay on the same store saved how routes are doing; those that turned by that."""
        turned = set()
        for name, data in saved.items():
            if name in self._turned or self._saving[name]:
                self._passed_over.add(name)
                continue
            own, theirs = self.of(name), restored(data)
            if theirs.state is not own.state:
                turned.add(name)
                journal.route_turned(name, theirs.state, theirs.reason)
                self._notices.heard(_OPEN.get(theirs.state, Kind.RECOVERED), name, theirs.since)
            own.adopt(theirs)
            self._stored[name] = data
            if own.last_success_at == theirs.last_success_at:
                self._changed.discard(name)
            else:  # they do not know of it, be it that it could not be saved over theirs
                self._changed.add(name)
        return turned

    def share(self, turned: Callable[[Collection[str]], None]) -> None:
        """Several relays keep the health of routes. `turned` is told of those that another has turned, where this one
        hears of it by itself: what waits of them is to be held or sent."""
        self._told_of_turns = turned

    async def refresh(self, names: Collection[str]) -> set[str]:
        """Ask the store what other relays know of routes by now, before they tell; those that turned by that. What was
        saved or heard here while the store answered may be newer than that answer, and is asked for again later. Raises
        Unavailable."""
        if self._store.shared is None:
            return set()
        before = {name: self._stored.get(name) for name in names}
        found = await self._store.states(_KIND)
        overtaken = {
            name
            for name, known in before.items()
            if self._stored.get(name) is not known or name in self._turned or self._saving[name]
        }
        self._passed_over -= before.keys()
        self._passed_over |= overtaken
        news = {name: found[name] for name in before.keys() - overtaken if name in found}
        return self.adopt({name: data for name, data in news.items() if data != before[name]})

    def follow(self, routes: Mapping[str, Route]) -> None:
        """The routes there are now. One that got another destination gets another try."""
        self._routes = routes
        now = self._clock.now()
        for name, route in routes.items():
            health = self.of(name)
            known, since = health.fingerprint, health.since
            if health.aimed(route.fingerprint, now):
                journal.route_turned(name, health.state, "its destination was changed")
                self._tell(name, Kind.RECOVERED, "its destination was changed", since)
            if health.fingerprint != known:
                self._mark(name)

    def of(self, name: str) -> RouteHealth:
        """How a route is doing."""
        health = self._states.get(name)
        if health is None:
            health = self._states[name] = RouteHealth()
        return health

    def state(self, name: str) -> RouteState:
        """In one word, what the config says included."""
        route = self._routes.get(name)
        return RouteState.DISABLED if route is None or not route.enabled else self.of(name).state

    def paused(self, name: str) -> bool:
        """Whether its deliveries are held."""
        return (self._states.get(name) or self.of(name)).state is _PAUSED

    def kept_by_people(self, name: str) -> str | None:
        """How a route is paused, in words, where a person is to say when that ends; also one that is not there."""
        health = self._states.get(name)
        return None if health is None else health.kept_by_people

    def removed(self, names: Iterable[str]) -> list[str]:
        """What people should know of routes that have left the config: a pause is known by the name of its route."""
        return [
            f"route {name}, which is no longer in the config, was {paused}:"
            " one that takes its place is not ('relay pause')"
            for name in names
            if (paused := self.kept_by_people(name)) is not None
        ]

    def slots(self, route: Route) -> int:
        """How many ordinary attempts may be under way at once."""
        return self.of(route.name).slots(route.concurrency)

    def saw(self, route: Route, result: Result, outcome: Outcome) -> None:
        """An attempt has ended."""
        name, attempt = route.name, result.attempt
        health = self._states.get(name) or self.of(name)
        assert attempt is not None
        if isinstance(outcome, Delivered) and health.was_well(attempt.trigger, result.at):
            self._changed.add(name)
            return
        status = attempt.response.status if attempt.response is not None else None
        since = health.since
        turn = health.saw(outcome, status, attempt.trigger, result.delivery.id, result.at, route.tolerance)
        if turn is not None or health.state is not RouteState.HEALTHY:
            self._mark(name)
        else:
            self._changed.add(name)
        if turn is not None:
            journal.route_turned(name, health.state, health.reason)
            recovered = turn is Turn.RECOVERED
            self._tell(name, _TOLD[turn], health.reason or "", since if recovered else health.since)

    def failed(self, route: Route, kind: Kind, reason: str, *ids: str) -> None:
        """A delivery of a route failed, or found the queue full."""
        self._notices.tell(route.notify, kind, route.name, reason=reason, at=self._clock.now(), ids=ids)

    def _tell(self, name: str, kind: Kind, reason: str, since: datetime | None) -> None:
        route = self._routes.get(name)
        whom = route.notify if route is not None else ()
        self._notices.tell(whom, kind, name, reason=reason, at=self._clock.now(), since=since)

    def hurry(self, name: str) -> None:
        """A person believes that it works again: the next probe is due now."""
        health = self.of(name)
        if health.state is RouteState.UNHEALTHY:
            health.probe_at = self._clock.now()  # earlier than it would have been

    def pause(self, name: str, reason: str, by: PausedBy = PausedBy.HAND) -> bool:
        """By hand, or because a person is to look first; whether that changed anything."""
        changed = self.of(name).pause(reason, self._clock.now(), by)
        return self._by_hand(name, changed, Kind.PAUSED, reason, None)

    def resume(self, name: str) -> bool:
        """By hand; whether that changed anything."""
        since = self.of(name).since
        changed = self.of(name).resume(self._clock.now())
        return self._by_hand(name, changed, Kind.RECOVERED, "it was resumed by hand", since)

    def _by_hand(self, name: str, changed: bool, kind: Kind, reason: str, since: datetime | None) -> bool:
        if changed:
            self._mark(name)
            self._decided.add(name)
            health = self.of(name)
            journal.route_turned(name, health.state, reason)
            self._tell(name, kind, reason, since or health.since)
        return changed

    def _mark(self, name: str) -> None:
        self._changed.add(name)
        self._turned.add(name)
        self.urgent = True

    async def save(self) -> bool:
        """Keep what has changed; whether it is on disk. Where the store cannot, it is tried again the next time."""
        self.urgent = False
        changed, self._changed = self._changed, set()
        turned, self._turned = self._turned & changed, set()
        by_hand, self._decided = self._decided & turned, set()
        self._saving.update(turned)
        try:
            await self._save(by_hand)
            await self._save(turned - by_hand, unless=_BY_HAND)
            await self._save(changed - turned, over=False)
        except Unavailable:
            self._changed |= changed
            self._turned |= turned
            self._decided |= by_hand
            return False
        finally:
            self._saving.subtract(turned)
        await self._hear_again()
        return True

    async def said(self) -> bool:
        """Whether the store knows how every route has turned; what it may not know yet is saved first."""
        under_way = {name for name, number in self._saving.items() if number}
        self._changed |= under_way
        self._turned |= under_way
        return not self._turned or await self.save()

    async def _hear_again(self) -> None:
        """Ask for what was passed over while this relay was saving its own. Where the store cannot say, it is asked
        again the next time: nobody tells it twice."""
        missed = {name for name in self._passed_over - self._turned if not self._saving[name]}
        if missed:
            with suppress(Unavailable):
                if turned := await self.refresh(missed):
                    self._told_of_turns(turned)

    async def _save(self, names: Collection[str], over: bool = True, unless: Mapping[str, str] | None = None) -> None:
        if names:
            states = {name: self.of(name).saved() for name in names}
            await self._store.save_states(_KIND, states, over=over, unless=unless)
            self._stored.update(states)
