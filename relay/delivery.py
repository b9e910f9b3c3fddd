"""What goes out: deliveries, their states, the attempts made for them, and how an attempt can end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.event import Event
from relay.ids import DeliveryId, EventId
from relay.immutable import immutable
from relay.lane import Supersedes
from relay.window import Collected, Grouping


class Word(StrEnum):
    """A word of a closed list. Its `value` is found by C: that of enum calls two functions of Python, which several
    times for each event is one part in a hundred of all that it costs."""

    if not TYPE_CHECKING:  # which would take it for a member
        value = property(attrgetter("_value_"))


class State(Word):
    """What a person would say about a delivery. Everything ever owed is in one of these, or pruned."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    HELD = "held"
    MERGED = "merged"
    CANCELLED = "cancelled"


class Trigger(Word):
    """Why an attempt was made."""

    INITIAL = "initial"
    RETRY = "retry"
    PROBE = "probe"
    MANUAL = "manual"
    RESUME = "resume"


class Code(Word):
    """The closed list of reasons why an attempt or a delivery did not succeed."""

    TIMEOUT = "timeout"
    CONNECT_ERROR = "connect_error"
    DNS_ERROR = "dns_error"
    TLS_ERROR = "tls_error"
    CONNECTION_RESET = "connection_reset"
    PROTOCOL_ERROR = "protocol_error"
    BLOCKED_ADDRESS = "blocked_address"
    HTTP_STATUS = "http_status"
    REFUSED = "refused"
    GONE = "gone"
    AUTH_ERROR = "auth_error"
    TEMPLATE_ERROR = "template_error"
    CORRUPT_BODY = "corrupt_body"
    EXPIRED = "expired"
    QUEUE_FULL = "queue_full"
    INTERRUPTED = "interrupted"


@immutable
class Failure:
    """Why something did not succeed: a code for machines, a message for the person who must act. No secrets."""

    code: Code
    message: str


class Unsendable(Exception):
    """The request cannot be made, now or later."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Unready(Unsendable):
    """The request cannot be made now, through no fault of the destination's; `begun` where it may be its own."""

    def __init__(self, failure: Failure, *, begun: bool) -> None:
        super().__init__(failure)
        self.begun = begun


@dataclass(slots=True)
class Delivery:
    """One event owed to one route. Lives in memory only while it is being sent or about to be."""

    id: DeliveryId
    route: str
    event: Event
    due: datetime
    first_due: datetime
    """When it first became due: `max_age` counts from here."""
    attempts: int = 0
    """Attempts ever made; the number of the last one."""
    tries: int = 0
    """Attempts that count for the retry policy: a retry by hand starts anew, an interrupted one is not counted."""
    trigger: Trigger = Trigger.INITIAL
    lane: str | None = None
    """What it must keep its order in, see `relay.lane`; None for nothing."""
    reserved: bool = True
    """False where it may still change before its first attempt, by merging: it is to be taken from the store before it
    is sent."""
    collected: Collected | None = None
    """Of the carrier of a window: all its events, `event` being the last."""


@immutable
class Owed:
    """A delivery that is about to be born, and how its route wants it to join the queue."""

    delivery: Delivery
    most: int
    """Deliveries of the route that may wait; past it this one is born failed (`queue_full`)."""
    paused: bool = False
    """Its route is paused: it is born held."""
    supersedes: Supersedes = Supersedes.NOTHING
    grouping: Grouping | None = None
    window: str | None = None
    """The window it joins, or opens."""

    @property
    def plain(self) -> bool:
        """Whether it is simply one more."""
        return self.delivery.lane is None and self.window is None and not self.paused


@immutable
class Mark:
    """By what a repeated request is known: `key` names what it is about, `value` what it says of it, both hashed.

    A request repeats an earlier one when both are the same and the earlier one, within `window`, was the last one
    accepted for its key.
    """

    key: bytes
    value: bytes
    window: timedelta


@immutable
class Added:
    """What became of an event that was taken in."""

    event: EventId
    """The first one's where it is a repeat."""
    routes: tuple[str, ...]
    duplicate: bool = False
    ready: tuple[Delivery, ...] = ()
    """What may be sent at once."""
    looks: frozenset[str] = frozenset()
    """Routes in which something else may be due now."""
    later: tuple[tuple[str, datetime], ...] = ()
    """Routes in which something will be due, and when."""
    full: tuple[str, ...] = ()
    """Routes whose queue took no more."""


class HeldReason(Word):
    """Why a delivery is kept and not sent. What is held for its route's sake is released with it, `hand` by hand."""

    REMOVED = "removed"
    DISABLED = "disabled"
    PAUSED = "paused"
    HAND = "hand"


@immutable
class Window:
    """A debounce or batch group that is being collected, as `GET /windows` shows it."""

    id: DeliveryId
    route: str
    opened_at: datetime
    due_at: datetime
    held: bool
    events: tuple[EventId, ...]


@immutable
class Request:
    """What an attempt sent, as it may be shown: secrets are ***."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]


@immutable
class Response:
    """What came back: headers masked, the body's first `store.response_body` bytes."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool


class Reply(NamedTuple):
    """An answer and what it says of when to come back."""

    response: Response
    retry_after: str | None


@immutable
class Attempt:
    """One HTTP request made for a delivery, or the reason why none could be made."""

    n: int
    trigger: Trigger
    started_at: datetime
    duration_ms: int
    request: Request | None
    response: Response | None
    error: Failure | None


@immutable
class Delivered:
    """The destination took it."""


@immutable
class Retryable:
    """It may work later; `retry_after` is what the destination asked for."""

    failure: Failure
    retry_after: datetime | None = None
    counts: bool = True
    """False for an attempt that relay itself cut off, or lacked something for: it does not use up one of the policy's
    attempts."""


@immutable
class Refused:
    """It will never work: no further attempt is made."""

    failure: Failure


Outcome = Delivered | Retryable | Refused


@immutable
class Result:
    """What an attempt changes: recorded together with the attempt, in one transaction."""

    delivery: Delivery
    attempt: Attempt | None
    """None where the delivery ended without an attempt (`expired`, `corrupt_body`)."""
    state: State
    due: datetime | None
    """When the next attempt is due; None unless the state is pending."""
    tries: int
    failure: Failure | None
    at: datetime
    ordered: bool = False
    """Whether the route keeps an order now, whatever the delivery was born under."""
    latest: bool = False
    """Whether it sends only the latest state of an entry: what failed gives way to what is newer."""


@immutable
class Rejection:
    """A request that was refused, kept for the operator: without body, headers masked, and those of `kept`, never
    fsynced for."""

    id: int
    source: str
    at: datetime
    status: int
    reason: str
    client: str
    headers: tuple[tuple[str, str], ...]


MOST_KEPT = 16 << 10
"""Characters of headers that are kept of a stranger's message."""


def kept(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """As many of these headers as are kept, and how many others there were. Each whole or not at all: of half a value
    nobody could say whether it is a secret's."""
    found, left_out, room = [], 0, MOST_KEPT
    for name, value in headers:
        size = len(name) + len(value)
        if size <= room:
            found.append((name, value))
            room -= size
        else:
            left_out += 1
    if left_out:
        found.append(("…", f"and {left_out} more, which would have made more than {MOST_KEPT >> 10} KiB"))
    return tuple(found)


@immutable
class LogItem:
    """A row of `/logs`: a delivery, an event that matched no route, or a rejected request."""

    id: str
    event_id: str | None
    route: str | None
    source: str
    type: str | None
    event: str | None
    model: str | None
    stage: str | None
    action: str | None
    entry_id: str | None
    status: str
    attempts: int
    code: int | None
    error: Failure | None
    merged_into: str | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    duration_ms: int | None
    reason: str | None = None
    """Why a request was rejected; deliveries say it in `error`."""
    entries: tuple[str, ...] = ()
    """What an event of several changes is about, where that was asked for."""
    environment: str | None = None
    branch: str | None = None
    locale: str | None = None
    held_reason: HeldReason | None = None
    """Why it is held: pages say it, `/logs` does not."""


@immutable
class StoredEvent:
    """An event read back, with its body (None once that was removed)."""

    id: EventId
    description: dict[str, Any]
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
