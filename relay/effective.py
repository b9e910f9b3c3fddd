"""The config as data that anyone may see, and the values in it that nobody may."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any
from urllib.parse import quote_plus

from pydantic import BaseModel
from yarl import URL

from relay import fields
from relay.authschema import OAuth2
from relay.fields import Rate, Unresolved
from relay.masking import SECRET_HEADERS
from relay.notifier import NotifierConfig
from relay.problems import Path
from relay.proof import raw
from relay.schema import Config, Route, Statuses, Store, TcpAddress, To, shown_url
from relay.secret import MASK, Redactor, Secret

_NONE = {"max_age": "none", "rate": "none", "disable_after": "never"}  # as a route says it
_TELLING = re.compile(r"auth|cookie|credential|key|passw|secret|signature|token", re.IGNORECASE)

_NAMED = frozenset({"headers", "params", "variables"})
"""Keys with values whose names may tell that they are nobody's business."""


def is_secret_header(name: str) -> bool:
    """Whether a header's name says that its value is nobody's business."""
    return name.lower() in SECRET_HEADERS or _TELLING.search(name) is not None


def effective(config: Config) -> dict[str, Any]:
    """The config as JSON data with the defaults filled in and everything secret as ***."""
    redact = Redactor(config._secrets)
    shown = _shown(config, (), config._secret_paths, redact)
    assert isinstance(shown, dict)
    return shown


def shown_store(config: Config) -> str:
    """`store.url` as anyone may see it."""
    hidden = ("store", "url") in config._secret_paths
    return MASK if hidden else Redactor(config._secrets)(config.store.shown_url)


def _shown(value: object, path: Path, hidden: frozenset[Path], redact: Redactor) -> Any:
    if path in hidden:
        return MASK
    match value:
        case BaseModel():
            shown = {
                key: _shown_field(value, key, child, (*path, key), hidden, redact)
                for key in type(value).model_fields
                if (child := getattr(value, key)) is not None
            }
            if isinstance(value, Route):
                shown |= {key: word for key, word in _NONE.items() if getattr(value, key) is None}
            if isinstance(value, To) and (requests := value.requests()):
                shown["requests"] = {actions: redact(text) for actions, text in requests.items()}
            return shown
        case Mapping():
            return {key: _shown(child, (*path, key), hidden, redact) for key, child in value.items()}
        case tuple() | list():
            return [_shown(child, (*path, place), hidden, redact) for place, child in enumerate(value)]
        case Statuses():
            return list(value.texts)
        case Rate():
            return f"{value.count}/{ {1: 's', 60: 'm', 3600: 'h'}[value.seconds] }"
        case timedelta():
            return duration_text(value)
        case Secret() | TcpAddress() | IPv4Network() | IPv6Network():
            return str(value)
        case URL():
            return redact(shown_url(value))
        case str():
            return redact(value)
    return value


def _shown_field(
    section: BaseModel, key: str, value: object, path: Path, hidden: frozenset[Path], redact: Redactor
) -> Any:
    """A field whose kind depends on more than its value's type."""
    if isinstance(section, To) and key == "url":
        return MASK if path in hidden else redact(section.show(section.url))
    if isinstance(section, Store) and key == "url":
        return MASK if path in hidden else redact(section.shown_url)
    if isinstance(value, Mapping) and key == "query":
        return dict.fromkeys(value, MASK)
    if isinstance(value, Mapping) and key in _NAMED:
        return {
            name: MASK if is_secret_header(name) else _shown(text, (*path, name), hidden, redact)
            for name, text in value.items()
        }
    if isinstance(value, int) and any(
        getattr(check, "func", None) is fields._size for check in type(section).model_fields[key].metadata
    ):
        return size_text(value)
    return _shown(value, path, hidden, redact)


def duration_text(value: timedelta) -> str:
    """A duration as the config writes it."""
    ms = round(value.total_seconds() * 1000)
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms and ms % length == 0:
            return f"{ms // length}{unit}"
    return f"{ms}ms" if ms else "0s"


def size_text(value: int) -> str:
    """A size as the config writes it."""
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % length == 0:
            return f"{value // length}{unit}"
    return f"{value}B"


# What has nothing in it. Asked whether it is a Mapping, each of these would have all classes of mappings in the process
# say that it is none of theirs, and keep every answer: a quarter of a megabyte.
_PLAIN = frozenset({type(None), bool, int, float, str, timedelta, IPv4Network, IPv6Network, Rate, Statuses, TcpAddress})


def secrets_in(value: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every Secret of a section, with where it stands; what was not looked up is left out."""
    match value:
        case _ if type(value) in _PLAIN:
            return
        case Secret():
            if not isinstance(value.reveal(), Unresolved):
                yield path, value.reveal()
        case BaseModel():
            for key in type(value).model_fields:
                yield from secrets_in(getattr(value, key), (*path, key))
        case Mapping():
            for key, child in value.items():
                yield from secrets_in(child, (*path, key))
        case tuple():
            for place, child in enumerate(value):
                yield from secrets_in(child, (*path, place))


def hidden_texts(value: object) -> Iterator[tuple[str, bool]]:
    """What else must not be shown: values of URL queries and telling headers, which may be ordinary words, and user
    names joined to passwords. Each with whether it may."""
    match value:
        case _ if type(value) in _PLAIN:
            return
        case To():
            url = value.request_url
            yield from _words(url.query.values())
            yield from _words(pair.partition("=")[2] for pair in url.raw_query_string.split("&"))
            for named in (value.headers, getattr(value, "variables", {})):
                yield from _words(text for name, text in named.items() if is_secret_header(name))
            yield from hidden_texts(value.auth)
            yield from ((text, False) for text in value.hidden)
            yield from hidden_texts(value.proxy)
        case URL():
            # The user name of a proxy is a secret where it stands alone: it is a token then.
            yield from ((text, False) for text in (value.password or value.user, value.raw_password) if text)
            if value.password:
                yield f"{value.user or ''}:{value.password}", False
        case OAuth2():
            secret = value.client_secret.reveal()
            yield f"{value.client_id}:{secret}", False
            yield f"{quote_plus(raw(value.client_id))}:{quote_plus(raw(secret))}", False
            yield from _words(value.token_url.query.values())
            yield from _words(value.query.values())
            yield from _words(text for name, text in value.params.items() if is_secret_header(name))
        case BaseModel():
            if isinstance(value, (NotifierConfig, Store)):
                yield from ((text, False) for text in value.hidden)
            user, password = getattr(value, "username", None), getattr(value, "password", None)
            for secret in password if isinstance(password, tuple) else (password,):
                if isinstance(secret, Secret) and isinstance(user, str):
                    yield f"{user}:{secret.reveal()}", False
            for key in type(value).model_fields:
                child = getattr(value, key)
                if key == "headers" and isinstance(child, Mapping):
                    yield from _words(
                        text for name, text in child.items() if isinstance(text, str) and is_secret_header(name)
                    )
                else:
                    yield from hidden_texts(child)
        case Mapping():
            for child in value.values():
                yield from hidden_texts(child)
        case tuple():
            for child in value:
                yield from hidden_texts(child)


def _words(texts: Iterable[str]) -> Iterator[tuple[str, bool]]:
    return ((text, True) for text in texts)
