"""What relay asks of its store: a few verbs, each one transaction. No SQL anywhere else than in `relay/stores/`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from relay.delivery import (
    Added,
    Attempt,
    Delivery,
    HeldReason,
    LogItem,
    Mark,
    Owed,
    Rejection,
    Result,
    State,
    StoredEvent,
    Window,
)
from relay.event import Event
from relay.ids import DeliveryId, EventId, Ids
from relay.immutable import immutable
from relay.lane import Order
from relay.memory import CLAIMED
from relay.pace import Minute
from relay.shared import Shared
from relay.space import Space

STALLED = 30.0
"""Seconds in which a commit ends on any disk that works."""


class Unavailable(Exception):
    """The store could not take it: nothing was promised. The message says why."""


class Unusable(Exception):
    """The store cannot be opened, nor will a restart help: foreign, newer or corrupt. The message says what to do."""


class Locked(Exception):
    """Another process holds the store. The message names it."""


class WrongState(Exception):
    """The delivery is not in a state that allows this. The message says what to do instead."""

    def __init__(self, state: State, message: str) -> None:
        super().__init__(message)
        self.state = state


@dataclass(slots=True)
class Counts:
    """How many deliveries of a route wait."""

    pending: int = 0
    held: int = 0


@immutable
class Settled:
    """What `settle` changed, by route."""

    held: Mapping[str, int]
    released: Mapping[str, int]


@immutable
class LogQuery:
    """The filters of `/logs`; within a filter any value matches, and every filter must. `limit` is 1 to 1000."""

    route: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    stage: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    event: tuple[str, ...] = ()
    entry_id: tuple[str, ...] = ()
    """Also events of several changes, one of which is about such an entry."""
    event_id: tuple[EventId, ...] = ()
    status: tuple[str, ...] = ()
    """Delivery states; `unmatched` and `rejected` add items of their own kind."""
    code: tuple[tuple[int, int], ...] = ()
    """Ranges of HTTP statuses, both ends included: the last attempt's, or what a rejected request was answered."""
    q: str | None = None
    """The beginning of an id, of an entry's id or of an event's name, or a part of an error's text, which is looked for
    in the newest 50,000 deliveries of the range."""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    before: int | None = None
    """Only ids below this one (above it when `ascending`): the cursor."""
    ascending: bool = False


@immutable
class Page:
    """Items of `/logs` and the id to go on from; None at the end."""

    items: list[LogItem]
    next: int | None


@immutable
class DeliveryDetail:
    """A delivery with all its attempts, and the events of the deliveries that are merged into it."""

    item: LogItem
    attempts: list[Attempt] = field(default_factory=list)
    merged: list[EventId] = field(default_factory=list)
    behind: str | None = None
    """The delivery that goes before it in its lane, while it waits for that; looked up for `delivery` alone."""


@immutable
class StoreStatus:
    """What `/health` says of the store."""

    backend: str
    version: str
    pending: int
    held: int
    oldest_pending: datetime | None
    """When the longest waiting pending delivery was created; None while none is pending."""
    oldest_due: datetime | None
    """The earliest `due` of all pending deliveries."""
    size_bytes: int
    space: Space | None
    """On its disk; None where that is another machine's."""
    oldest_by_route: Mapping[str, datetime] = field(default_factory=dict)
    """When the longest waiting pending delivery of each route became due, or will."""
    location: str = ""
    """Where it is kept, as a person would look for it."""


@immutable
class Retried:
    """What `retry_all` did, or would do."""

    routes: Mapping[str, int]
    """How many are due now, by where they go."""
    passed_over: int = 0
    """Those that an order forbids to send again."""

    @property
    def count(self) -> int:
        """How many are due now."""
        return sum(self.routes.values())


@immutable
class Moved:
    """What `move` did, or would do."""

    count: int
    windows_left: int = 0
    """Those that are held by hand, and stay where they are."""


class Haste(Enum):
    """How what is past its time is to be removed."""

    GENTLY = "gently"
    """As fast as events come, and no faster while they do: hardly one of them is to wait for it."""
    QUICKLY = "quickly"
    """Somebody waits for it: requests may meet it."""
    NO_MORE = "no more"
    """What is left has time."""


def quickly() -> Haste:
    """Always in haste."""
    return Haste.QUICKLY


@immutable
class Pruned:
    """What was removed because it was past its time."""

    events: int = 0
    deliveries: int = 0
    bodies: int = 0
    """Of events that stay."""
    pages: int = 0
    """Given back to the disk."""

    def plus(self, other: Pruned) -> Pruned:
        """Both together."""
        return Pruned(
            self.events + other.events,
            self.deliveries + other.deliveries,
            self.bodies + other.bodies,
            self.pages + other.pages,
        )


class LogReader(Protocol):
    """What can be read of a store, also while no daemon runs on it."""

    ids: Ids

    async def search(self, query: LogQuery) -> Page:
        """Deliveries (and, where asked for by status, unmatched events and rejected requests), newest first."""
        ...

    async def delivery(self, delivery: DeliveryId) -> DeliveryDetail | None:
        """A delivery with its attempts."""
        ...

    async def deliveries_of(self, event: EventId) -> list[DeliveryDetail]:
        """All deliveries of an event, oldest first."""
        ...

    async def event(self, event: EventId) -> StoredEvent | None:
        """An event as it was stored."""
        ...

    async def rejection(self, rejection: int) -> Rejection | None:
        """A rejected request."""
        ...

    async def prunable(
        self,
        now: datetime,
        retention: timedelta,
        bodies: timedelta,
        told: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        """What Store.prune would remove now, counted; `told` hears how much it is so far. It reads in short steps,
        between which others write: what they change meanwhile may be counted as it was. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Let go of the store. Idempotent."""
        ...


class Store(LogReader, Protocol):
    """One queue, on one disk or shared. Every promise that callers rely on is written here."""

    @property
    def shared(self) -> Shared | None:
        """What other processes have to do with it; None where there are none."""
        ...

    def add(self, event: Event, owed: Sequence[Owed], mark: Mark | None = None) -> Awaitable[Added]:
        """Store an event and everything owed for it, each delivery as its route wants it to join the queue.

        When it returns, all of it is on disk (fsynced): the sender may be answered. Raises Unavailable otherwise; then
        nothing was promised, though it may still be found stored after a failed commit.

        Where `mark` shows that the event repeats an earlier one, nothing is stored: the answer is the first one's id
        and routes. Unless none of the first one's deliveries is pending, held, merged or delivered: then `owed` become
        new deliveries of the first one.
        """
        ...

    async def owe(self, event: EventId, owed: Sequence[Owed]) -> Added:
        """New deliveries of a stored event, held or pending as their routes were settled last, and in the orders that
        these keep by now. Raises KeyError for an unknown one, Unavailable."""
        ...

    def reject(self, rejection: Rejection) -> None:
        """Keep a rejected request: written along with the next commit, never fsynced for, the last 1,000 per source
        are kept. Never fails and never waits; under pressure the oldest waiting ones are dropped."""
        ...

    def record(self, result: Result) -> Awaitable[None]:
        """Record an attempt and what it changes.

        A delivery that was held while its attempt was in flight stays held unless the attempt ended it. Returns when
        the result is on disk; raises Unavailable when it could not be written (call again: it is idempotent).
        """
        ...

    async def claim(
        self,
        route: str,
        retried: bool | None,
        now: datetime,
        limit: int,
        exclude: Collection[DeliveryId],
        most_bytes: int = CLAIMED,
    ) -> list[Delivery]:
        """Up to `limit` pending deliveries of a route that are due, oldest due first, but for those in `exclude` (what
        the caller already has in hand): those that wait for another try, those that do not, or (None) both.

        Of each lane only the first unfinished one is found. Bodies come with them, at most `most_bytes` in sum but
        always one. A body whose checksum no longer fits is returned with `event.sha256` empty: it must never be sent.
        One that is not `reserved` may still change: `take` it before it is sent.
        """
        ...

    async def take(self, delivery: Delivery, now: datetime) -> Delivery | None:
        """Begin with a delivery: from now on nothing is merged into it, or it into anything else, until its attempt is
        recorded. None where it is not pending and due any more. A window comes with all its events."""
        ...

    async def next_due(self, route: str, after: datetime) -> datetime | None:
        """The earliest due time later than `after` of a route's pending deliveries that are first in their lanes."""
        ...

    async def settle(self, active: Collection[str], kept: Mapping[str, HeldReason]) -> Settled:
        """Bring the queue in line with what routes there are: pending deliveries of routes that are not active become
        held, for the reason in `kept`, else `removed`; those held for such a reason whose route is active again become
        pending, due as before. What is held by hand stays so.

        It ends, whatever comes or others do meanwhile. Where it is called again with something else, that call does it
        all, and both end with it. Where several processes share the store, what all of them want of a route decides,
        and who has saved its pause last (docs/scaling.md)."""
        ...

    async def held(self, routes: Collection[str]) -> Mapping[str, int]:
        """How many deliveries of each of these routes are held for its sake, asked of the store. Raises Unavailable."""
        ...

    async def set_back(self, by: timedelta = timedelta()) -> int:
        """The clock was set back, now or before this process began: what was set when it said more than it says now is
        taken to have been set now, so that nothing waits for longer than it was to wait in the first place; or as much
        earlier as it is known to have gone back (`by`), where no other process's clock has a say. Repeats are moved
        likewise, once. Windows opened then take no more events: how long they have been open shows no longer.

        It may be called again and again, and by all of several processes: what was moved is left as it is. Returns how
        many deliveries are due earlier. Raises Unavailable; called again then it goes on."""
        ...

    async def follow(self, orders: Mapping[str, Order], sending: Collection[DeliveryId] = ()) -> None:
        """The orders that routes keep now, by name. What waits of a route that had another one is put into its new
        lanes; what of it is being sent (`sending`) counts as taken, and nothing else of it may be begun meanwhile. Of a
        lane the oldest goes first, also where newer ones have joined it before, unless they are being sent or were."""
        ...

    async def move(self, old: str, new: str, sending: Collection[DeliveryId] = (), *, dry_run: bool = False) -> Moved:
        """Give what is held for a removed route to another one, which sends it, with what was merged into it. Windows
        that are held by hand stay. In a lane it goes before what came later and is held, but for what is being sent
        (`sending`)."""
        ...

    async def retry(
        self, delivery: DeliveryId, now: datetime, after: int | None = None, sending: Collection[DeliveryId] = ()
    ) -> str:
        """A failed or cancelled delivery becomes pending, due now: same id, attempt numbers go on, the policy's count
        and age start anew, the trigger of its next attempt is `manual`. A pending one becomes due now. Returns its
        route. Raises WrongState for the others (held, merged, delivered) and for one whose lane under `order: latest`
        has been told something newer, KeyError for an unknown id. `after`: only where it waits as this attempt has
        left it, and nothing was done by hand since; else WrongState. In a lane it goes after what goes on already, but
        before what came later and is held, unless that is being sent (`sending`)."""
        ...

    async def retry_all(
        self, query: LogQuery, now: datetime, dry_run: bool = False, sending: Collection[DeliveryId] = ()
    ) -> Retried:
        """`retry` for every failed delivery that a query finds, in steps; what may not be retried is passed over."""
        ...

    async def cancel(self, delivery: DeliveryId, now: datetime) -> str:
        """A pending or held delivery is given up. Returns its route. Raises WrongState for the others, KeyError."""
        ...

    async def forget(self, event: EventId) -> None:
        """Remove the body and the headers of an event for good. Raises WrongState while something of it is still to be
        sent, KeyError."""
        ...

    async def windows(self) -> list[Window]:
        """The windows that still take events, or are full and held by hand, oldest first, with those they have: at most
        1,000 windows."""
        ...

    async def flush(self, window: DeliveryId, now: datetime, kept: HeldReason | None) -> str:
        """A window becomes due now, also one that `hold` held; `kept` says that its route may not send, and why.
        Returns its route. Raises WrongState for what is no open window, KeyError."""
        ...

    async def hold(self, window: DeliveryId, now: datetime) -> str:
        """A window is kept, and takes events, until `flush`. Returns its route. Raises WrongState, KeyError."""
        ...

    async def prune(
        self,
        now: datetime,
        retention: timedelta,
        bodies: timedelta,
        told: Callable[[Pruned], None] | None = None,
        haste: Callable[[], Haste] = quickly,
    ) -> Pruned:
        """Remove events whose deliveries all ended longer than `retention` ago, with these; and of those that ended
        longer than `bodies` ago the bodies. What is unfinished stays, however old. It goes on in small steps, between
        which others write; `told` hears after each how much it is so far, and `haste` is asked. Raises Unavailable."""
        ...

    async def pace(self, since: datetime) -> Sequence[Minute]:
        """What happened in each minute since then, as far as the newest 50,000 events and deliveries tell."""
        ...

    async def states(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """What `save_states` saved of a kind of things (`route`, `source`), by name."""
        ...

    async def save_states(
        self,
        kind: str,
        states: Mapping[str, Mapping[str, Any]],
        *,
        over: bool = True,
        unless: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what is known of things, by name, as JSON data; names that are not given stay as they were.

        Without `over`, what another process has saved and this one was not told of yet stays too; with it, that of it
        which has this one value `unless`."""
        ...

    async def restored(self) -> datetime | None:
        """When the backup was made that this store is a copy of; None for any other, and once `accepted`."""
        ...

    async def accepted(self) -> None:
        """What a restored store holds has been put on hold: it is a store like any other from now on."""
        ...

    def counts(self) -> Mapping[str, Counts]:
        """Pending and held deliveries by route, kept in memory: costs nothing."""
        ...

    async def status(self) -> StoreStatus:
        """Sizes, counts and ages for `/health`."""
        ...

    async def watch(self, told: Callable[[Sequence[LogItem], bool], None] | None) -> None:
        """Tell this of everything that `/logs` shows as it changes, in order: each state that was committed, once it
        is. It is also told whether there was more of it than can be told. None ends it. Raises Unavailable."""
        ...

    def on_commit(self, told: Callable[[float], None]) -> None:
        """Tell this how many seconds each commit took."""
        ...

    def notes(self) -> Sequence[str]:
        """What an operator should know of this store and would not guess: said once, at start-up."""
        ...

    def stalled(self, within: float = STALLED) -> str | None:
        """Since when a commit, or a checkpoint after it, has not ended, if that is longer ago than so many seconds, or
        None. Ask each second or so: what stands still is told by looking twice. A restart may help against this, unlike
        against a full disk."""
        ...

    def trouble(self) -> str | None:
        """Why the store cannot write at present, or None: the last commit failed, or one does not end. Ask each
        second or so: what stands still is told by looking twice."""
        ...

    async def close(self) -> None:
        """Write what waits, checkpoint, release the lock. Idempotent."""
        ...
