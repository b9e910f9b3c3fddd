"""Where a route sends, and how: one event becomes one HTTP request, one answer becomes an outcome. Pure."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from yarl import URL

from relay import __version__
from relay.delivery import Code, Delivered, Delivery, Failure, Outcome, Refused, Request, Response, Retryable
from relay.delivery import Unsendable as Unsendable
from relay.event import Event
from relay.headernames import Chosen
from relay.immutable import immutable
from relay.jsontext import Malformed
from relay.payload import Content, Payload
from relay.retry import parse_retry_after
from relay.secret import MASK, Redactor
from relay.signing import Message, Signer

if TYPE_CHECKING:
    from relay.client import Reply, Transport
    from relay.clock import Clock

_RUN = re.compile("[A-Za-z0-9]+")

_USER_AGENT = ("User-Agent", f"relay/{__version__}")

MOST_HOPS = 5
_HOPS = "x-relay-hops"
_HOPS_LENGTH = len(_HOPS)
OWN_HEADERS = frozenset(
    {"webhook-id", "webhook-timestamp", "x-relay-hops", "host", "content-length", "transfer-encoding"}
)
"""What relay alone writes: naming one of these in a route is a config error."""
TELLING_HEADERS = frozenset({"content-type", "user-agent", "x-relay-source", "x-relay-event", "x-relay-attempt"})
"""What relay writes besides, and a route may write otherwise: no place for a signature."""
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""RFC 9110 section 7.6.1: these belong to one connection and are never carried."""
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})

_TELLING = 16  # characters of a signature's header: what is shorter may stand in an answer by chance
_DIGEST = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{27,}")  # without scheme and prefix: SHA-1 has 27 in base64
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Wire:
    """How connections to a destination are made."""

    tls: ssl.SSLContext | None = None
    """Whom to trust, and as whom to come; None for what the system trusts."""
    proxy: URL | None = None


PLAIN = Wire()


@immutable
class Outbound:
    """A request ready for the wire."""

    method: str
    url: URL
    headers: list[tuple[str, str]]
    body: bytes
    wire: Wire = PLAIN


class Exchanging(Protocol):
    """How a request is exchanged for its answer. Raises Unreachable."""

    def __call__(self, request: Outbound, limits: Limits, transport: Transport, clock: Clock) -> Awaitable[Reply]: ...


def at_once(request: Outbound, limits: Limits, transport: Transport, clock: Clock) -> Awaitable[Reply]:
    """All that the request needs is in it."""
    return transport.send(request, limits)


class Target(NamedTuple):
    """What one event is to come to, where a destination has several requests for different events."""

    method: str
    url: URL
    bodiless: bool
    """There is nothing to say but the URL: the payload is left out."""


@dataclass(frozen=True, slots=True)
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
    long: bool = False
    """Rendering may take long enough to hold up others: it is not to be done on the event loop."""

    def render(self, delivery: Delivery, delivery_id: str, event_id: str, now: datetime) -> Outbound:
        """The request for the next attempt of a delivery. Raises Unsendable."""
        event = delivery.event
        hops = _hops(event) + 1
        if hops > MOST_HOPS:
            raise Unsendable(
                Failure(Code.REFUSED, f"the event has passed {MOST_HOPS} relays: their routes form a loop")
            )
        target = self.aim(event) if self.aim is not None else Target(self.method, self.url, bodiless=False)
        content = self._content(delivery, event_id) if not target.bodiless else Content(b"", None)
        environment = event.description.environment
        message = Message(delivery_id, now, _sendable(environment) if environment is not None else None)
        body = filled(content.body, self.signers)
        named: dict[str, tuple[str, str]] = {}  # by their names in lower case, each of which is there once
        if content.type is not None:
            named["content-type"] = ("Content-Type", _sendable(content.type))
        named["user-agent"] = _USER_AGENT
        named["webhook-id"] = ("webhook-id", delivery_id)
        named["webhook-timestamp"] = ("webhook-timestamp", str(message.timestamp))
        named["x-relay-source"] = ("X-Relay-Source", event.source)
        if event.description.event is not None:
            named["x-relay-event"] = ("X-Relay-Event", _sendable(event.description.event))
        named["x-relay-attempt"] = ("X-Relay-Attempt", str(delivery.attempts + 1))
        named["x-relay-hops"] = ("X-Relay-Hops", str(hops))
        for name, value in self.default_headers.items():
            named[name.lower()] = (name, value)
        if self.pass_headers:
            inbound = {name.lower(): value for name, value in event.headers}
            for name in self.pass_headers:
                passed = inbound.get(name.lower())
                if passed is not None and passed != MASK:
                    named[name.lower()] = (name, _sendable(passed))
        for name, value in self.headers.items():
            named[name.lower()] = (name, value)
        if self.authorization is not None:
            named["authorization"] = ("Authorization", self.authorization)
        for signer in self.signers:
            for name, value in signer.sign(message, body):
                named[name.lower()] = (name, value)
        return Outbound(target.method, target.url, list(named.values()), body, self.wire)

    def _content(self, delivery: Delivery, event_id: str) -> Content:
        try:
            return self.payload(delivery.event, event_id, delivery.collected)
        except Unsendable as error:
            raise Unsendable(self.told(error.failure)) from None

    def shown(self, outbound: Outbound) -> Request:
        """The request as anyone may see it: credentials, signatures and secret values as ***."""
        headers = _without_proofs(outbound.headers, self._hidden)
        if self.redact.finds("\n".join([value for _, value in headers])):
            headers = tuple((name, self.redact(value)) for name, value in headers)
        url = self.shown_url
        if self.show is not None and outbound.url is not self.url:
            url = self.redact(self.show(outbound.url))
        return Request(outbound.method, url, headers)

    def shown_body(self, outbound: Outbound) -> bytes:
        """Its body as anyone may see it: secrets that were put into it as ***."""
        body = outbound.body
        for signer in self.signers:
            body = signer.hide(body)
        return body

    def masked(self, response: Response) -> Response:
        """An answer as it may be kept: receivers echo what they were sent, secrets too."""
        return without_secrets(response, self.redact, self._hidden)

    def told(self, failure: Failure) -> Failure:
        """Why no answer came, as it may be kept: what is not HTTP is quoted in it, and may be an echo."""
        return Failure(failure.code, self.redact(failure.message))

    @property
    def _hidden(self) -> frozenset[str]:
        if len(self.signers) == 1:
            return self.signers[0].headers
        return frozenset().union(*(signer.headers for signer in self.signers))

    def judge(self, response: Response, retry_after: str | None, now: datetime) -> Outcome:
        """What an answer means. The status decides."""
        status = response.status
        if status in self.success:
            return Delivered()
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


def unechoed(exchange: Exchanging, signers: Sequence[Signer]) -> Exchanging:
    """The exchange, after which an answer has nothing left of the signatures that were sent: receivers echo them."""
    signed = frozenset().union(*(signer.headers for signer in signers))
    if not signed:
        return exchange

    async def exchanged(request: Outbound, limits: Limits, transport: Transport, clock: Clock) -> Reply:
        reply = await exchange(request, limits, transport, clock)
        sent = [value for name, value in request.headers if name.lower() in signed and len(value) >= _TELLING]
        if not _may_echo(reply.response, sent):
            return reply
        parts = [part for value in sent for part in _DIGEST.findall(value)]
        return reply._replace(response=without_secrets(reply.response, Redactor([*sent, *parts])))

    return exchanged


def _may_echo(response: Response, sent: Iterable[str]) -> bool:
    """Whether an answer can hold one of these values at all: a quick look, since nearly none does.

    However a value is written, the longest run of letters and digits in it stays as it is; in base64 the letters in the
    middle depend on where it begins.
    """
    if response.truncated:
        return True  # half of one may stand at the end
    body = response.body
    for value in sent:
        run = max(_RUN.findall(value), key=len, default="")
        if any(run in told for _, told in response.headers):
            return True
        if len(body) < len(run):
            continue
        raw = value.encode()
        coded = (base64.b64encode(raw[start:])[8:20] for start in range(3))
        if run.encode() in body or any(one in body for one in coded):
            return True
    return False


def without_secrets(response: Response, redact: Redactor, hidden: frozenset[str] = frozenset()) -> Response:
    """An answer with the secrets that a redactor knows, and all values of proofs and of the headers in `hidden`, as
    ***."""
    headers = _without_proofs(response.headers, hidden)
    text = response.body.decode("utf-8", "surrogateescape")
    # Nearly always there is none: all values are looked at in one go.
    if redact.finds("\n".join([*[value for _, value in headers], text])):
        headers = tuple((name, redact(value)) for name, value in headers)
        text = redact(text)
    if response.truncated:
        text = redact.cut(text)
    return Response(response.status, headers, text.encode("utf-8", "surrogateescape"), response.truncated)


def _without_proofs(headers: Iterable[tuple[str, str]], hidden: frozenset[str]) -> tuple[tuple[str, str], ...]:
    headers = tuple(headers)
    proofs = _proofs(hidden).of([name for name, _ in headers])
    if not proofs:
        return headers
    return tuple([(name, MASK) if name in proofs else (name, value) for name, value in headers])


@lru_cache(256)
def _proofs(hidden: frozenset[str]) -> Chosen:
    """The headers that are not for showing, some routes' own among them."""
    return Chosen(lambda name: is_proof(name) or name.lower() in hidden)


def is_proof(name: str) -> bool:
    """Whether a header is one of credentials or a signature, whoever's: its value is not for showing."""
    name = name.lower()
    return name in SECRET_HEADERS or "signature" in name


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
