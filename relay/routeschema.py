"""A route's keys: which events it wants, where it sends them, and how it tries again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    model_validator,
)
from yarl import URL

from relay import fields, query, signing, window
from relay.authschema import Auth
from relay.destination import Target
from relay.event import TESTED, Change, Event
from relay.fields import (
    Duration,
    HeaderName,
    HeaderValue,
    Names,
    PositiveDuration,
    Rate,
    Section,
    Texts,
    Unresolved,
    all_misplaced,
    got,
    misplaced,
    quote_hint,
    shown,
    word,
)
from relay.pattern import CHANGE_KEYS, EVENT_KEYS, Filter, Patterns
from relay.payload import Payload
from relay.payloadschema import Kind, Made, build
from relay.retryschema import Exponential, Retry, RetrySection, Success, statuses
from relay.signschema import Sign
from relay.window import Grouping
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
    where: Annotated[str, fields.compiled_by(query.compile)] | None = None

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
    twice = []
    for name in value if isinstance(value, dict) else ():
        first = seen.setdefault(str(name).lower(), name)
        if first != name:
            twice.append(((), f"the header '{name}' is given twice, also as '{first}'"))
    if twice:
        raise all_misplaced(twice)
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

    @property
    def tested(self) -> Change:
        """What a test event says of itself: what does no harm here."""
        return TESTED

    def checked(self, payload: Payload) -> Payload:
        """The payload, refused where the destination is known to refuse it."""
        return payload

    @property
    def order(self) -> str | None:
        """What is kept in order where the route does not say."""
        return None


def _to(value: object) -> object:
    if not isinstance(value, dict) or "preset" not in value:
        return value
    from relay import preset  # a preset is a To itself

    return preset.of(value)


# --- delivery policy --------------------------------------------------------------------------------------------------


def _by(value: object) -> object:
    names = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(dict.fromkeys(names)) if all(isinstance(name, str) for name in names) else names


class Debounce(Section):
    """Events are collected until it has been quiet for a while."""

    wait: PositiveDuration
    max_wait: PositiveDuration = timedelta()  # until ten times `wait` takes its place
    by: Annotated[tuple[Annotated[str, word(*window.BY)], ...], BeforeValidator(_by)] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _bounded(cls, data: object, handler: ModelWrapValidatorHandler[Debounce]) -> Debounce:
        section = handler(data)
        if not section.max_wait:
            return section.model_copy(update={"max_wait": section.wait * 10})
        if section.max_wait < section.wait and isinstance(data, dict):
            raise misplaced(("max_wait",), f"expected at least wait ({data['wait']}), got {got(data['max_wait'])}")
        return section

    def build(self, delay: timedelta) -> Grouping:
        """How the route collects."""
        return window.debounce(self.wait, self.max_wait, self.by, delay)


class Batch(Section):
    """Events are sent as one list."""

    max: Annotated[int, Field(ge=1, le=1000)] = 100
    wait: PositiveDuration

    def build(self, delay: timedelta) -> Grouping:
        """How the route collects."""
        return window.batch(self.max, self.wait, delay)


def _age(value: object) -> object:
    return None if value is None or value == "none" else fields._positive(value)


def _pace(value: object) -> object:
    return None if value is None or value == "none" else fields._rate(value)


def _failures(value: object) -> object:
    if value is None or value == "never" or isinstance(value, Unresolved):
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected never, or a number of failures such as 5, got {got(value)}")
    return value


Concurrency = Annotated[int, Field(ge=1, le=1000)]
Pace = Annotated[Rate | None, BeforeValidator(_pace)]
"""So many in a time; None for no limit, also where `defaults` name one."""
MaxPending = Annotated[int, Field(ge=1, le=1_000_000_000)]
UnhealthyAfter = Annotated[int, Field(ge=1, le=1_000_000)]
DisableAfter = Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, BeforeValidator(_failures)]
"""None for never."""

# --- the route --------------------------------------------------------------------------------------------------------


def _name(value: object) -> object:
    if isinstance(value, str) and (isinstance(value, Unresolved) or re.fullmatch(r"[a-z0-9-]+", value)):
        return value
    raise ValueError(f"expected a name of lower-case letters, digits and '-', got {got(value)}")


class Route(Section):
    """A filter, a destination and a delivery policy, with a name. What it does not say, `defaults` does."""

    elsewhere: ClassVar[Mapping[str, str]] = {key: f"to.{key}" for key in (*To.model_fields, "preset", "hook")}

    name: Annotated[str, BeforeValidator(_name)]
    description: str = ""
    enabled: bool = True
    sources: Texts = ("*",)
    match: Match | None = None
    to: Annotated[To, BeforeValidator(_to)]
    payload: Kind = "full"
    sign: tuple[Sign, ...] = ()
    debounce: Debounce | None = None
    batch: Batch | None = None
    delay: Duration = timedelta()
    retry: Retry = Exponential()
    max_age: Annotated[timedelta | None, BeforeValidator(_age)] = None
    order: Annotated[Literal["none", "entry", "latest", "route"], word("none", "entry", "latest", "route")] = "none"
    concurrency: Concurrency = 8
    rate: Pace = None
    max_pending: MaxPending = 1_000_000
    unhealthy_after: UnhealthyAfter = 5
    disable_after: DisableAfter = None
    notify: Names = ()

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

    def grouping(self) -> Grouping | None:
        """How the route collects, if it does. It takes the delay: that starts when a window closes."""
        section = self.debounce or self.batch
        return section.build(self.delay) if section is not None else None

    def signers(self) -> list[signing.Signer]:
        """The signers of `sign`, in order."""
        return [entry.build() for entry in self.sign]


_SHARED = ("retry", "concurrency", "rate", "max_pending", "unhealthy_after", "disable_after", "notify")


class Defaults(Section):
    """For routes that do not say. `headers` are sent under the route's own; the others are taken whole."""

    headers: Headers = Field(default_factory=dict)
    timeout: PositiveDuration | None = None
    connect_timeout: PositiveDuration | None = None
    tls: ClientTls | None = None
    proxy: Proxy = None
    success: Success | None = None
    retry: Retry | None = None
    concurrency: Concurrency | None = None
    rate: Pace = None
    max_pending: MaxPending | None = None
    unhealthy_after: UnhealthyAfter | None = None
    disable_after: DisableAfter = None
    notify: Names | None = None

    def applied(self, route: Route) -> Route:
        """The route with what it leaves to the defaults."""
        to = self._given(("timeout", "connect_timeout", "tls", "proxy", "success"), route.to)
        own = self._given(_SHARED, route)
        # A route's own preset of `retry` says more about it than what the defaults say beside theirs.
        preset: RetrySection = own.get("retry", route.retry)
        brought = frozenset() if "retry" not in own else self.model_fields_set
        if preset.success is not None and not {"success"} & (route.to.model_fields_set | brought):
            to["success"] = preset.success
        if preset.disable_after is not None and not {"disable_after"} & (route.model_fields_set | brought):
            own["disable_after"] = preset.disable_after
        if route.sent is not route.payload:
            own["payload"] = route.sent
        if route.to.order is not None and "order" not in route.model_fields_set:
            own["order"] = route.to.order
        if to:
            own["to"] = route.to.model_copy(update=to)
        return route.model_copy(update=own) if own else route

    def _given(self, keys: tuple[str, ...], section: Section) -> dict[str, Any]:
        mine = {key: getattr(self, key) for key in keys if key not in section.model_fields_set}
        return {key: value for key, value in mine.items() if value is not None}
