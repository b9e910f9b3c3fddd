"""A route's keys: which events it wants, where it sends them, and how it tries again."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator
from yarl import URL

from relay import fields, query, signing
from relay.fields import (
    HeaderName,
    HeaderValue,
    PositiveDuration,
    SecretText,
    SecretTexts,
    Section,
    Texts,
    Unresolved,
    any_of,
    got,
    quote_hint,
    shown,
)
from relay.pattern import CHANGE_KEYS, EVENT_KEYS, Filter, Patterns
from relay.problems import did_you_mean
from relay.retryschema import Exponential, Retry, Success, statuses
from relay.secret import MASK, Secret

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


class Basic(Section):
    """User name and password."""

    type: Literal["basic"]
    username: str
    password: SecretText

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password.reveal()}".encode()).decode()


class Bearer(Section):
    """A token."""

    type: Literal["bearer"]
    token: SecretText

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return f"Bearer {self.token.reveal()}"


_AUTHS: dict[str, type[Section]] = {"basic": Basic, "bearer": Bearer}


def _auth(value: object) -> object:
    if isinstance(value, (Basic, Bearer)):
        return value
    if not isinstance(value, dict):
        raise ValueError("expected a mapping such as {type: bearer, token: …}")
    if "type" not in value:
        raise fields.missing("type")
    return fields.chosen(value, "type", _AUTHS, ("oauth2",))


Auth = Annotated[Basic | Bearer, BeforeValidator(_auth)]


def _keyed(value: object) -> object:
    for secret in value if isinstance(value, (list, tuple)) else (value,):
        text = secret.reveal() if isinstance(secret, Secret) else secret
        if isinstance(text, str) and text and not isinstance(text, Unresolved):
            signing.standard_key(text)
    return value


class StandardSign(Section):
    """Standard Webhooks v1."""

    scheme: Literal["standard"]
    secret: Annotated[SecretTexts, BeforeValidator(_keyed)]

    def build(self) -> signing.Signer:
        """The signer itself."""
        return signing.StandardSigner([secret.reveal() for secret in self.secret])


SIGNS: dict[str, type[StandardSign]] = {"standard": StandardSign}
_LATER_SIGNS = ("standard-asymmetric", "hygraph", "storyblok", "prismic", "github", "hmac")


def _sign(value: object) -> object:
    if isinstance(value, StandardSign):
        return value
    if not isinstance(value, dict):
        raise ValueError("expected a mapping such as {scheme: standard, secret: whsec_…}")
    if "scheme" not in value:
        raise fields.missing("scheme")
    return fields.chosen(value, "scheme", SIGNS, _LATER_SIGNS)


Sign = Annotated[StandardSign, BeforeValidator(_sign)]

_NOWHERE = URL("https://unresolved.invalid/")


def _url(value: object) -> object:
    if isinstance(value, URL):
        return value
    if isinstance(value, Unresolved):
        return _NOWHERE
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {shown(value)}{quote_hint(value)}")
    # The URL itself is not shown: it may hold secrets.
    try:
        url = URL(value)
    except ValueError:
        raise ValueError("expected an http:// or https:// URL") from None
    if url.scheme not in ("http", "https"):
        raise ValueError("expected an http:// or https:// URL")
    if not url.host or any(ord(c) <= 32 or ord(c) == 127 for c in value):
        raise ValueError("expected an http:// or https:// URL with a host and without white space")
    if url.user is not None or url.password is not None:
        raise ValueError("a user name or password does not go into the URL: use to.auth")
    if "#" in value:
        raise ValueError("a URL to send to has no fragment (#…)")
    return url


Url = Annotated[URL, BeforeValidator(_url)]


def shown_url(url: URL) -> str:
    """A URL as anyone may see it: without user and password, its query values as ***."""
    text = f"{url.scheme}://{url.host_port_subcomponent}{url.raw_path}"
    if url.query_string:
        text += "?" + "&".join(f"{name}={MASK}" for name in url.query)
    return text


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

    later: ClassVar[frozenset[str]] = frozenset({"tls", "proxy", "preset", "hook", "repo", "token", "event_type"})

    url: Url
    method: Annotated[str, BeforeValidator(_method)] = "POST"
    headers: Headers = Field(default_factory=dict)
    pass_headers: tuple[HeaderName, ...] = ()
    query: Mapping[str, str] = Field(default_factory=dict)
    auth: Auth | None = None
    timeout: PositiveDuration = timedelta(seconds=30)
    connect_timeout: PositiveDuration = timedelta(seconds=5)
    success: Success = statuses(["200-299"])

    @property
    def request_url(self) -> URL:
        """The URL with `query` added."""
        return self.url.extend_query(self.query) if self.query else self.url


_PAYLOADS = ("full", "normalized", "empty")


def _payload(value: object) -> object:
    if isinstance(value, Unresolved):
        return "full"
    kind = next(iter(value), None) if isinstance(value, dict) and len(value) == 1 else value
    if (isinstance(value, dict) and kind in ("template", "jmespath")) or value == "concise":
        raise ValueError(f"'{kind}' is not supported yet")
    if not isinstance(value, str) or value not in _PAYLOADS:
        raise ValueError(f"expected {any_of(_PAYLOADS)}, got {got(value)}{did_you_mean(value, _PAYLOADS)}")
    return value


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
    elsewhere: ClassVar[Mapping[str, str]] = {key: f"to.{key}" for key in To.model_fields}

    name: Annotated[str, BeforeValidator(_name)]
    description: str = ""
    enabled: bool = True
    sources: Texts = ("*",)
    match: Match | None = None
    to: To
    payload: Annotated[Literal["full", "normalized", "empty"], BeforeValidator(_payload)] = "full"
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

    def signers(self) -> list[signing.Signer]:
        """The signers of `sign`, in order."""
        return [entry.build() for entry in self.sign]


class Defaults(Section):
    """For routes that do not say. `headers` are sent under the route's own; the others are taken whole."""

    later: ClassVar[frozenset[str]] = _LATER_ROUTE | {"tls", "proxy"}

    headers: Headers = Field(default_factory=dict)
    timeout: PositiveDuration | None = None
    connect_timeout: PositiveDuration | None = None
    success: Success | None = None
    retry: Retry | None = None
    concurrency: Concurrency | None = None

    def applied(self, route: Route) -> Route:
        """The route with what it leaves to the defaults."""
        to = self._given(("timeout", "connect_timeout", "success"), route.to)
        own = self._given(("retry", "concurrency"), route)
        if to:
            own["to"] = route.to.model_copy(update=to)
        return route.model_copy(update=own) if own else route

    def _given(self, keys: tuple[str, ...], section: Section) -> dict[str, Any]:
        mine = {key: getattr(self, key) for key in keys if key not in section.model_fields_set}
        return {key: value for key, value in mine.items() if value is not None}
