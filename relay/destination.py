"""Where a route sends, and how: one event becomes one HTTP request, one answer becomes an outcome. Pure."""

from __future__ import annotations

import itertools
import re
import ssl
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from yarl import URL

from relay import __version__
from relay.delivery import Code, Delivered, Delivery, Failure, Outcome, Refused, Request, Response, Retryable, Unready
from relay.delivery import Unsendable as Unsendable
from relay.event import TESTED, Change, Event
from relay.immutable import immutable
from relay.jsontext import Malformed
from relay.masking import is_harmless, may_echo, without_proofs, without_secrets
from relay.payload import Content, Payload
from relay.query import headers_object
from relay.retry import parse_retry_after
from relay.secret import MASK, Redactor
from relay.signing import Message, Signer

if TYPE_CHECKING:
    from relay.client import Reply, Transport
    from relay.clock import Clock

_NOTHING = Content(b"", None)
_DELIVERED = Delivered()
_USER_AGENT = ("User-Agent", f"relay/{__version__}")

MOST_HOPS = 5
_HOPS = "x-relay-hops"
_HOPS_LENGTH = len(_HOPS)
OWN_HEADERS = frozenset(
    {"webhook-id", "webhook-timestamp", "x-relay-hops", "host", "content-length", "transfer-encoding"}
)
"""What relay alone writes: naming one of these in a route is a config error."""
SIGNATURE_HEADER = "webhook-signature"
"""What signs two of them, by Standard Webhooks: one that a route sets, or passes on, fits neither."""
TELLING_HEADERS = frozenset({"content-type", "user-agent", "x-relay-source", "x-relay-event", "x-relay-attempt"})
"""What relay writes besides, and a route may write otherwise: no place for a signature."""
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""RFC 9110 section 7.6.1: these belong to one connection and are never carried."""

_TELLING = 16  # characters of a signature's header: what is shorter may stand in an answer by chance
_DIGEST = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{27,}")  # without scheme and prefix: SHA-1 has 27 in base64
_numbers = itertools.count()
_MOST_HEADINGS = 1024  # of all routes of a config
_SHORT = 128  # characters of what is remembered of it
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@immutable
class Limits:
    """How long an attempt may take, in seconds, and how many bytes of the answer's body are kept."""

    total: float
    connect: float
    response_body: int
    of: float | None = None
    """Where `total` is only what is left of it: the whole time, which is the one to be told."""

    @property
    def whole(self) -> float:
        """How long it may take from its beginning."""
        return self.total if self.of is None else self.of


@immutable
class Wire:
    """How connections to a destination are made."""

    tls: ssl.SSLContext | None = None
    """Whom to trust, and as whom to come; None for what the system trusts."""
    proxy: URL | None = None


PLAIN = Wire()


@dataclass(slots=True, eq=False)
class Heading:
    """The headers that many requests of a route have in common: those before `webhook-id` and `webhook-timestamp`,
    which are each request's own, and those after, which the signatures follow. And both as anyone may see them."""

    before: tuple[tuple[str, str], ...]
    after: tuple[tuple[str, str], ...]
    shown_before: tuple[tuple[str, str], ...]
    shown_after: tuple[tuple[str, str], ...]
    length: int
    """How many they are, with a request's own: what follows are the signatures."""
    lines: tuple[str, str] | None = None
    """Those before and those after as `relay.direct` writes them, once it has."""


@immutable
class Outbound:
    """A request ready for the wire."""

    method: str
    url: URL
    headers: list[tuple[str, str]]
    body: bytes
    wire: Wire = PLAIN
    heading: Heading | None = field(default=None, compare=False)
    """What its headers are made of; None where they were not rendered, or were changed since."""


class Exchanging(Protocol):
    """How a request is exchanged for its answer. Raises Unreachable."""

    def __call__(self, request: Outbound, limits: Limits, transport: Transport, clock: Clock) -> Awaitable[Reply]: ...


def at_once(request: Outbound, limits: Limits, transport: Transport, clock: Clock) -> Awaitable[Reply]:
    """All that the request needs is in it."""
    return transport.send(request, limits)


class About(NamedTuple):
    """What the headers of a request tell of its event, and how often it was sent before."""

    type: str | None
    source: str
    event: str | None
    attempts: int
    hops: int


class Target(NamedTuple):
    """What one event is to come to, where a destination has several requests for different events."""

    method: str
    url: URL
    bodiless: bool
    """There is nothing to say but the URL: the payload is left out."""


@immutable
class Destination:
    """Everything about a receiver that can be known when the config is loaded."""

    url: URL
    shown_url: str
    method: str
    headers: Mapping[str, str]
    """The route's own, over the defaults."""
    default_headers: Mapping[str, str]
    pass_headers: tuple[str, ...]
    authorization: str | None
    payload: Payload
    signers: Sequence[Signer]
    limits: Limits
    success: Container[int]
    give_up_on: Container[int]
    redact: Redactor
    """Masks the config's secrets in text that is to be shown."""
    wire: Wire = PLAIN
    exchange: Exchanging = at_once
    """Puts in what is not known before a request is made, such as a token: `authorization` is *** until then."""
    aim: Callable[[Event], Target] | None = None
    """For a destination whose method and URL depend on the event; raises Unsendable."""
    show: Callable[[URL], str] | None = None
    """How a URL that `aim` gives is shown."""
    tested: Change = TESTED
    """What a test event says of itself."""
    long: bool = False
    """Rendering may take long enough to hold up others: it is not to be done on the event loop."""
    _hidden: frozenset[str] = field(init=False, repr=False, compare=False)
    """The headers that are signatures, in lower case."""
    _fills: bool = field(init=False, repr=False, compare=False)
    """Something is put into the body."""
    _mixed: bool = field(init=False, repr=False, compare=False)
    """Some headers are the event's own, or are written twice, or not beside each other: there is no Heading."""
    _number: int = field(init=False, repr=False, compare=False)
    """Which destination it is, among all that there ever were."""

    def __post_init__(self) -> None:
        signed = [name for signer in self.signers for name in signer.headers]
        written = {name.lower() for name in (*self.headers, *self.default_headers)} | {"authorization"}
        hidden = frozenset(signed)
        mixed = self.pass_headers or len(hidden) < len(signed) or hidden & (written | TELLING_HEADERS | OWN_HEADERS)
        object.__setattr__(self, "_hidden", hidden)
        object.__setattr__(self, "_fills", any(signer.fills for signer in self.signers))
        object.__setattr__(self, "_mixed", bool(mixed or written & OWN_HEADERS))
        object.__setattr__(self, "_number", next(_numbers))

    def render(self, delivery: Delivery, delivery_id: str, event_id: str, now: datetime) -> Outbound:
        """The request for the next attempt of a delivery. Raises Unsendable."""
        event = delivery.event
        hops = _hops(event) + 1
        if hops > MOST_HOPS:
            raise Unsendable(
                Failure(Code.REFUSED, f"the event has passed {MOST_HOPS} relays: their routes form a loop")
            )
        method, url, bodiless = self.method, self.url, False
        if self.aim is not None:
            method, url, bodiless = self.aim(event)
        try:
            content = self.payload(event, event_id, delivery.collected) if not bodiless else _NOTHING
        except Unready as error:
            raise Unready(self.told(error.failure), begun=error.begun) from None
        except Unsendable as error:
            raise Unsendable(self.told(error.failure)) from None
        what = event.description
        seconds = int(now.timestamp())
        body = filled(content.body, self.signers) if self._fills else content.body
        own = [("webhook-id", delivery_id), ("webhook-timestamp", str(seconds))]
        signatures: list[tuple[str, str]] = []
        if self.signers:
            environment = _sendable(what.environment) if what.environment is not None else None
            message = Message(delivery_id, now, seconds, environment)
            for signer in self.signers:
                signatures += signer.sign(message, body)
        if self._mixed:
            about = About(content.type, event.source, what.event, delivery.attempts, hops)
            return Outbound(method, url, self._merged(about, event, own, signatures), body, self.wire)
        known = self._number, content.type, event.source, what.event, delivery.attempts, hops
        heading: Heading | None = self.redact.headings.get(known)
        if heading is None:
            heading = self._heading(About(*known[1:]), event)
        headers = [*heading.before, *own, *heading.after, *signatures]
        return Outbound(method, url, headers, body, self.wire, heading)

    def _heading(self, about: About, event: Event) -> Heading:
        """The headers of one request that others will have too; remembered, within bounds: strangers choose them."""
        headers = self._merged(about, event, [("webhook-id", ""), ("webhook-timestamp", "")], [])
        shown = self._shown(headers)
        at = headers.index(("webhook-id", ""))
        made = Heading(tuple(headers[:at]), tuple(headers[at + 2 :]), shown[:at], shown[at + 2 :], len(headers))
        if len(about.type or "") + len(about.event or "") <= _SHORT:
            headings = self.redact.headings
            if len(headings) >= _MOST_HEADINGS:
                headings.clear()
            headings[self._number, *about] = made
        return made

    def _merged(
        self, about: About, event: Event, own: Iterable[tuple[str, str]], signatures: Iterable[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """All headers of a request, each once: of those with one name the later one counts, in the place of the
        first."""
        named: dict[str, tuple[str, str]] = {}  # by their names in lower case
        if about.type is not None:
            named["content-type"] = ("Content-Type", _sendable(about.type))
        named["user-agent"] = _USER_AGENT
        for name, value in own:
            named[name] = (name, value)
        named["x-relay-source"] = ("X-Relay-Source", about.source)
        if about.event is not None:
            named["x-relay-event"] = ("X-Relay-Event", _sendable(about.event))
        named["x-relay-attempt"] = ("X-Relay-Attempt", str(about.attempts + 1))
        named["x-relay-hops"] = ("X-Relay-Hops", str(about.hops))
        for name, value in self.default_headers.items():
            named[name.lower()] = (name, value)
        if self.pass_headers:
            inbound = headers_object(header for header in event.headers if header[1] != MASK)
            for name in self.pass_headers:
                passed = inbound.get(name.lower())
                if passed is not None:
                    named[name.lower()] = (name, _sendable(passed))
        for name, value in self.headers.items():
            named[name.lower()] = (name, value)
        if self.authorization is not None:
            named["authorization"] = ("Authorization", self.authorization)
        for name, value in signatures:
            named[name.lower()] = (name, value)
        return list(named.values())

    def shown(self, outbound: Outbound) -> Request:
        """The request as anyone may see it: credentials, signatures and secret values as ***."""
        heading = outbound.heading
        if heading is None:
            headers = self._shown(outbound.headers)
        else:
            at = len(heading.before)
            own = outbound.headers[at : at + 2]
            if self.redact.in_ids and self.redact.finds(f"{own[0][1]}\n{own[1][1]}"):
                own = [(name, self.redact(value)) for name, value in own]
            signatures = [(name, MASK) for name, _ in outbound.headers[heading.length :]]
            headers = (*heading.shown_before, *own, *heading.shown_after, *signatures)
        url = self.shown_url
        if self.show is not None and outbound.url is not self.url:
            url = self.redact(self.show(outbound.url))
        return Request(outbound.method, url, headers)

    def _shown(self, headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        shown = without_proofs(headers, self._hidden)
        if self.redact.finds("\n".join([value for _, value in shown])):
            return tuple((name, self.redact(value)) for name, value in shown)
        return shown

    def shown_body(self, outbound: Outbound) -> bytes:
        """Its body as anyone may see it: secrets that were put into it as ***."""
        body = outbound.body
        for signer in self.signers:
            body = signer.hide(body)
        return body

    def masked(self, response: Response, outbound: Outbound) -> Response:
        """Its answer as it may be kept: receivers echo what they were sent, secrets and signatures too."""
        headers, heading = outbound.headers, outbound.heading
        if heading is not None:
            signatures = headers[heading.length :]
        else:
            signatures = [header for header in headers if header[0].lower() in self._hidden]
        if is_harmless(response, signatures, self.redact, self._hidden):
            return response
        sent = [value for _, value in signatures if len(value) >= _TELLING]
        if sent and may_echo(response, sent):
            parts = [part for value in sent for part in _DIGEST.findall(value)]
            response = without_secrets(response, Redactor([*sent, *parts]))
        return without_secrets(response, self.redact, self._hidden)

    def told(self, failure: Failure) -> Failure:
        """Why no answer came, as it may be kept: what is not HTTP is quoted in it, and may be an echo."""
        return Failure(failure.code, self.redact(failure.message))

    def judge(self, response: Response, retry_after: str | None, now: datetime) -> Outcome:
        """What an answer means. The status decides."""
        status = response.status
        if status in self.success:
            return _DELIVERED
        if status == 410:
            return Refused(Failure(Code.GONE, "HTTP 410: the destination is gone for good"))
        if status in self.give_up_on:
            return Refused(Failure(Code.REFUSED, f"HTTP {status}: the destination refuses this event"))
        asked = parse_retry_after(retry_after, now) if status in (429, 503) else None
        return Retryable(Failure(Code.HTTP_STATUS, f"HTTP {status}"), asked)


def filled(body: bytes, signers: Iterable[Signer]) -> bytes:
    """A body with the secrets that travel in it. Raises Unsendable."""
    try:
        for signer in signers:
            body = signer.fill(body)
    except Malformed as error:
        message = f"no secret can be put into the payload: {error}"
        raise Unsendable(Failure(Code.TEMPLATE_ERROR, message)) from None
    return body


def expired(delivery: Delivery, max_age: timedelta | None, now: datetime) -> Failure | None:
    """Why a delivery is too old to be sent, or None."""
    if max_age is None or now - delivery.first_due <= max_age:
        return None
    return Failure(Code.EXPIRED, f"it has been due since {delivery.first_due:%Y-%m-%d %H:%M:%S} UTC, past max_age")


def _hops(event: Event) -> int:
    """How many relays an event has passed, by its X-Relay-Hops."""
    for name, value in event.headers:
        if len(name) == _HOPS_LENGTH and name.lower() == _HOPS:
            digits = value.strip()
            return int(digits[:4]) if digits.isascii() and digits.isdigit() else 0
    return 0


def _sendable(value: str) -> str:
    """A sender's text as a header value: what no header can hold becomes a question mark."""
    return _UNSENDABLE.sub("?", value)
