"""Every source's state: told of what arrives, kept in the store, and told to who wants to know.

Like `relay.oversight` for routes: it belongs to no config, and outlives reloads and restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from relay.clock import Clock
from relay.notifier import Kind
from relay.notify import Notices
from relay.source import Source
from relay.sourcehealth import SourceHealth, Turn, restored
from relay.store import Store, Unavailable

_KIND = "source"


class Listening:
    """How all sources are doing."""

    def __init__(self, store: Store, clock: Clock, notices: Notices) -> None:
        self._store = store
        self._clock = clock
        self._notices = notices
        self._states: dict[str, SourceHealth] = {}
        self._sources: Mapping[str, Source] = {}
        self._changed: set[str] = set()
        self._late = timedelta()

    async def restore(self) -> None:
        """Go on where the relay before this one ended."""
        for name, saved in (await self._store.states(_KIND)).items():
            state = self._states[name] = restored(saved)
            if state.silent_since is not None:
                self._notices.remember(Kind.SOURCE_SILENT, name, state.silent_since)

    def adopt(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Another relay on the same store saved what it heard of sources."""
        for name, data in saved.items():
            own, theirs = self.of(name), restored(data)
            if own.silent_since is not None and theirs.silent_since is None:
                self._notices.heard(Kind.SOURCE_HEARD, name, None)
            elif own.silent_since is None and theirs.silent_since is not None:
                self._notices.heard(Kind.SOURCE_SILENT, name, theirs.silent_since)
            own.adopt(theirs)
            if own.last_event_at != theirs.last_event_at:
                self._changed.add(name)  # they do not know of it, be it that it could not be saved over theirs

    def share(self, late: timedelta) -> None:
        """Other relays hear of the same sources, and what they heard is known so much later."""
        self._late = late

    def follow(self, sources: Mapping[str, Source]) -> None:
        """The sources there are now."""
        self._sources = sources
        for name in sources:
            self.of(name)

    def of(self, name: str) -> SourceHealth:
        """How a source is doing."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = SourceHealth(self._clock.now())
            self._changed.add(name)
        return state

    def heard(self, source: Source, now: datetime) -> None:
        """A request proved itself."""
        name = source.name
        self._changed.add(name)
        turn = (self._states.get(name) or self.of(name)).saw_event(now)
        if turn is not None:
            self._tell(source, turn)

    def refused(self, source: Source, reason: str) -> None:
        """A request was refused; the reason is for the operator."""
        self._changed.add(source.name)
        self._tell(source, self.of(source.name).saw_rejection(reason, self._clock.now()))

    def look(self) -> None:
        """Whether something has been silent for too long; to be asked from time to time."""
        now = self._clock.now()
        for name, source in self._sources.items():
            state = self.of(name)
            before = state.silent_since
            self._tell(source, state.silent(now, self._patience(source)))
            if state.silent_since != before:
                self._changed.add(name)

    def _patience(self, source: Source) -> timedelta | None:
        return None if source.expect_every is None else source.expect_every + self._late

    @property
    def silent(self) -> list[str]:
        """The sources that should have been heard from."""
        return [name for name in self._sources if self._states[name].silent_since is not None]

    def _tell(self, source: Source, turn: Turn | None) -> None:
        if turn is not None:
            now = self._clock.now()
            self._notices.tell(source.notify, turn.kind, source.name, reason=turn.reason, at=now, since=turn.since)

    async def save(self) -> None:
        """Keep what has changed. Where the store cannot, it is tried again the next time."""
        changed, self._changed = self._changed, set()
        if not changed:
            return
        try:
            await self._store.save_states(_KIND, {name: self.of(name).saved() for name in changed}, over=False)
        except Unavailable:
            self._changed |= changed
