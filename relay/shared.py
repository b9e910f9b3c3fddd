"""A store that several processes share: what each knows of the others, and is told by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from relay.ids import DeliveryId
from relay.immutable import immutable


@immutable
class Member:
    """A process that shares the store."""

    name: str
    """Its machine and its process id."""
    version: str
    started_at: int
    """Milliseconds since 1970."""
    me: bool
    stale: int
    """How many results of its attempts came too late: another process had taken over."""
    routes: Sequence[str]
    """Those in its config."""
    disabled: Sequence[str] = ()
    """Of these."""


class Told(Protocol):
    """Who hears what other processes do to a shared store. Called on the event loop."""

    def lost(self) -> None:
        """This process was taken for dead: what it had in hand and has not begun may be others' by now."""
        ...

    def due(self, routes: Collection[str]) -> None:
        """Something of these routes is due that nobody has in hand."""
        ...

    def states(self, kind: str, changed: Mapping[str, Mapping[str, Any]]) -> None:
        """Others saved states of this kind, by name. See Store.save_states."""
        ...

    def recall(self, deliveries: Collection[DeliveryId]) -> None:
        """Somebody cancelled or held these at another process: they are not to be sent."""
        ...

    def again(self, delivery: DeliveryId) -> None:
        """Somebody retried this at another process: where it is being sent, it is due again when that has failed."""
        ...

    def ended(self, name: str) -> None:
        """A process has ended, or was found dead: what it had in hand is taken over."""
        ...

    def missed(self) -> None:
        """Processes have come and gone that were never seen here: what they held may be to be released."""
        ...


class Shared(Protocol):
    """What a store has beside its verbs that several processes share."""

    def lapsed(self) -> bool:
        """Whether others may have taken over what this process has in hand: nothing of it may be begun."""
        ...

    def follow(self, told: Told) -> None:
        """Whom to tell."""
        ...

    def members(self) -> Sequence[Member]:
        """The processes that live, this one included."""
        ...

    def ahead(self) -> timedelta:
        """By how much the clock here is ahead of the one that all can ask, as of a few seconds ago."""
        ...

    async def leave(self, routes: Collection[str], keeping: Collection[DeliveryId]) -> None:
        """This process does not send for these routes any more: what it has in hand of them is anybody's, but for what
        it is `keeping`. Raises Unavailable."""
        ...

    async def errand(self, name: str, within: timedelta) -> bool:
        """Whether this process is to do what one of them does for all, and nobody else until then, or until `done`.
        Raises Unavailable."""
        ...

    async def done(self, name: str) -> None:
        """An errand has ended before its time. Raises Unavailable."""
        ...


@immutable
class Server:
    """What the server of a shared store says of itself."""

    location: str
    version: str
    """In its own words: `15.18`."""
    too_old: str | None
    """The oldest version that relay works with, where this one is older."""
    schema: int
    """Of relay's tables; 0 where there are none."""
    newest_schema: int
    """To which this relay brings them when it starts."""
    risks: Sequence[str]
    """What of its settings breaks relay's promises."""
    round_trip: float
    """Seconds from a question to its answer."""
    ahead: float
    """Seconds by which its clock is ahead of this machine's."""
    alive: Sequence[str]
    """The processes that share the store, by name and version."""
