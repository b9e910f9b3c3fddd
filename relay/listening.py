"""Every source's state: told of what arrives, kept in the store, and told to who wants to know.

Like `relay.oversight` for routes: it belongs to no config, and outlives reloads and restarts.
"""

from __future__ import annotations

from collections.abc import Mapping

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

    async def restore(self) -> None:
        """Go on where the relay before this one ended."""
        for name, saved in (await self._store.states(_KIND)).items():
            state = self._states[name] = restored(saved)
            if state.silent_since is not None:
                self._notices.remember(Kind.SOURCE_SILENT, name, state.silent_since)

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

    def heard(self, source: Source) -> None:
        """A request proved itself."""
        self._changed.add(source.name)
        self._tell(source, self.of(source.name).saw_event(self._clock.now()))

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
            self._tell(source, state.silent(now, source.expect_every))
            if state.silent_since != before:
                self._changed.add(name)

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
            await self._store.save_states(_KIND, {name: self.of(name).saved() for name in changed})
        except Unavailable:
            self._changed |= changed
