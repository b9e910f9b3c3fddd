"""A route's keys: which events it wants, where it sends them, and how it tries again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, cast

from pydantic import BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator
from yarl import URL

from relay import fields, query, signing
from relay.authschema import Auth
from relay.destination import Target
from relay.event import Event
from relay.fields import (
    HeaderName,
    HeaderValue,
    PositiveDuration,
    Section,
    Texts,
    Unresolved,
    got,
    quote_hint,
    shown,
)
from relay.pattern import CHANGE_KEYS, EVENT_KEYS, Filter, Patterns
from relay.payload import Payload
from relay.payloadschema import Kind, Made, build
from relay.retryschema import Exponential, Retry, Success, statuses
from relay.signschema import Sign
from relay.wireschema import ClientTls, Proxy, Url, shown_url

# --- match ------------------------------------------------------------------------------------------------------------


def _pattern(value: object) -> str:
    if value is None:
        raise ValueError("expected a pattern, got null (write '!?*' for \"has none\")")
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {shown(value)}{quote_hint(value)}")
    if value in ("", "!"):
        raise ValueError(f"expected a pattern, got {got(value)}")
    return value


Globs = Annotated[tuple[Annotated[str, BeforeValidator(_pattern)], ...], BeforeValidator(fields._listed)]


def _where(value: object, handler: ValidatorFunctionWrapHandler) -> str:
    if isinstance(value, Unresolved):
        return value
    text = cast(str, handler(value))
    query.compile(text)
    return text


class Alternative(Section):
    """One entry of `any`."""

    elsewhere: ClassVar[Mapping[str, str]] = {"where": "match.where"}

    model: Globs | None = None
    stage: Globs | None = None
    action: Globs | None = None
    entry_id: Globs | None = None
    event: Globs | None = None
    environment: Globs | None = None
    branch: Globs | None = None
    locale: Globs | None = None
    type: Globs | None = None

    def keys(self) -> dict[str, tuple[str, ...]]:
        """The patterns by key."""
        named = {key: getattr(self, key) for key in (*CHANGE_KEYS, *EVENT_KEYS)}
        return {key: patterns for key, patterns in named.items() if patterns is not None}


class Match(Alternative):
    """Which events a route wants."""

    any: Annotated[tuple[Alternative, ...], BeforeValidator(fields.filled)] | None = None
    where: Annotated[str, WrapValidator(_where)] | None = None

    def filter(self) -> Filter:
        """The compiled filter."""
        where = None if isinstance(self.where, Unresolved) else self.where
        return Filter(self.keys(), [entry.keys() for entry in self.any or ()], where)


# --- routes -----------------------------------------------------------------------------------------------------------


def _method(value: object) -> object:
    if isinstance(value, Unresolved):
        return "POST"
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z][A-Z-]*", value) or value in ("CONNECT", "TRACE"):
        raise ValueError(f"expected a method in upper case such as POST, got {got(value)}")
    return value


def _headers(value: object) -> object:
    seen: dict[str, str] = {}
    for name in value if isinstance(value, dict) else ():
        first = seen.setdefault(str(name).lower(), name)
        if first != name:
            raise ValueError(f"the header '{name}' is given twice, also as '{first}'")
    return value


Headers = Annotated[Mapping[HeaderName, HeaderValue], BeforeValidator(_headers)]


class To(Section):
    """Where a route sends."""

    url: Url
    method: Annotated[str, BeforeValidator(_method)] = "POST"
    headers: Headers = Field(default_factory=dict)
    pass_headers: tuple[HeaderName, ...] = ()
    query: Mapping[str, str] = Field(default_factory=dict)
    auth: Auth | None = None
    tls: ClientTls = ClientTls()
    proxy: Proxy = None
    timeout: PositiveDuration = timedelta(seconds=30)
    connect_timeout: PositiveDuration = timedelta(seconds=5)
    success: Success = statuses(["200-299"])

    @property
    def request_url(self) -> URL:
        """The URL with `query` added."""
        return self.url.extend_query(self.query) if self.query else self.url

    # What a preset knows better.

    @property
    def shown_url(self) -> str:
        """The URL as anyone may see it."""
        return self.show(self.request_url)

    def show(self, url: URL) -> str:
        """Any URL of this destination as anyone may see it."""
        return shown_url(url)

    @property
    def hidden(self) -> tuple[str, ...]:
        """What else of it nobody may see."""
        return ()

    @property
    def payload(self) -> str | Made | None:
        """What is sent where the route does not say."""
        return None

    def requests(self) -> Mapping[str, str]:
        """For people: which actions come to which request, where they differ."""
        return {}

    def aim(self) -> Callable[[Event], Target] | None:
        """The request that each event is to come to, where they differ."""
        return None

    def checked(self, payload: Payload) -> Payload:
        """The payload, refused where the destination is known to refuse it."""
        return payload


def _to(value: object) -> object:
    if not isinstance(value, dict) or "preset" not in value:
        return value
    from relay import preset  # a preset is a To itself

    return preset.of(value)


def _age(value: object) -> object:
    return None if value is None or value == "none" else fields._positive(value)


def _name(value: object) -> object:
    if isinstance(value, str) and (isinstance(value, Unresolved) or re.fullmatch(r"[a-z0-9-]+", value)):
        return value
    raise ValueError(f"expected a name of lower-case letters, digits and '-', got {got(value)}")


Concurrency = Annotated[int, Field(ge=1, le=1000)]

_LATER_ROUTE = frozenset({"rate", "max_pending", "unhealthy_after", "disable_after", "notify"})


class Route(Section):
    """A filter, a destination and a delivery policy, with a name. What it does not say, `defaults` does."""

    later: ClassVar[frozenset[str]] = _LATER_ROUTE | {"debounce", "batch", "delay", "order"}
    elsewhere: ClassVar[Mapping[str, str]] = {key: f"to.{key}" for key in (*To.model_fields, "preset", "hook")}

    name: Annotated[str, BeforeValidator(_name)]
    description: str = ""
    enabled: bool = True
    sources: Texts = ("*",)
    match: Match | None = None
    to: Annotated[To, BeforeValidator(_to)]
    payload: Kind = "full"
    sign: tuple[Sign, ...] = ()
    retry: Retry = Exponential()
    max_age: Annotated[timedelta | None, BeforeValidator(_age)] = None
    concurrency: Concurrency = 8

    def selected(self, sources: Iterable[str]) -> frozenset[str]:
        """Those of the sources that the route listens to."""
        patterns = Patterns(self.sources)
        return frozenset(name for name in sources if patterns.takes(name))

    def filter(self) -> Filter:
        """The compiled filter."""
        return self.match.filter() if self.match is not None else Filter()

    @property
    def sent(self) -> str | Made:
        """What is sent: as the route says, else as its preset does."""
        return self.payload if "payload" in self.model_fields_set else self.to.payload or self.payload

    @property
    def apart(self) -> bool:
        """Whether the payload is made by what an operator wrote, which may be anything; presets' own is known."""
        return isinstance(self.sent, Made) and self.sent != self.to.payload

    def content(self) -> Payload:
        """The payload, compiled."""
        return self.to.checked(build(self.sent, self.name, self.apart))

    def signers(self) -> list[signing.Signer]:
        """The signers of `sign`, in order."""
        return [entry.build() for entry in self.sign]


class Defaults(Section):
    """For routes that do not say. `headers` are sent under the route's own; the others are taken whole."""

    later: ClassVar[frozenset[str]] = _LATER_ROUTE

    headers: Headers = Field(default_factory=dict)
    timeout: PositiveDuration | None = None
    connect_timeout: PositiveDuration | None = None
    tls: ClientTls | None = None
    proxy: Proxy = None
    success: Success | None = None
    retry: Retry | None = None
    concurrency: Concurrency | None = None

    def applied(self, route: Route) -> Route:
        """The route with what it leaves to the defaults."""
        to = self._given(("timeout", "connect_timeout", "tls", "proxy", "success"), route.to)
        own = self._given(("retry", "concurrency"), route)
        judged = own.get("retry", route.retry).success
        if judged is not None and "success" not in route.to.model_fields_set:
            # A route's own preset of `retry` says more about it than what the defaults say of success.
            to = {"success": judged} | to if "retry" in own else to | {"success": judged}
        if route.sent is not route.payload:
            own["payload"] = route.sent
        if to:
            own["to"] = route.to.model_copy(update=to)
        return route.model_copy(update=own) if own else route

    def _given(self, keys: tuple[str, ...], section: Section) -> dict[str, Any]:
        mine = {key: getattr(self, key) for key in keys if key not in section.model_fields_set}
        return {key: value for key, value in mine.items() if value is not None}
