"""The kinds of value that a config holds: durations, sizes, rates, secrets, and the base of its sections.

Every check says what it expected and what it got; `config.py` adds file, line and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

from relay import jsontext
from relay.secret import Secret


class Unresolved(str):
    """A value that `check --no-secrets` did not look up. Checks of a value's content let it pass."""


class Section(BaseModel):
    """A mapping of the config: closed, immutable, and strict about types.

    `later` names the keys of the contract whose behaviour does not exist yet: they are refused as 'not supported yet',
    never ignored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)
    later: ClassVar[frozenset[str]] = frozenset()


def got(value: object) -> str:
    """A value as an error message shows it: never a secret one."""
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 40 else f"'{value[:37]}...'"
    if isinstance(value, (dict, list)) or value is None:
        return jsontext.kind(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=3650)


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, Unresolved):
        return timedelta(0)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a duration such as 500ms, 30s, 10m, 12h or 30d, got {got(value)}")
    duration = timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    if duration > _LONGEST:
        raise ValueError(f"expected at most 3650d, got {got(value)}")
    return duration


Duration = Annotated[timedelta, BeforeValidator(_duration)]


def _positive(value: object) -> timedelta:
    duration = _duration(value)
    if not duration and not isinstance(value, Unresolved):
        raise ValueError(f"expected a duration above zero, got {got(value)}")
    return duration


PositiveDuration = Annotated[timedelta, BeforeValidator(_positive)]

_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _size(value: object) -> int:
    if isinstance(value, Unresolved):
        return 0
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a size such as 64KiB or 1MiB, got {got(value)}")
    return int(match[1]) * _BYTES[match[2]]


Size = Annotated[int, BeforeValidator(_size)]


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds."""

    count: int
    seconds: int

    @property
    def per_second(self) -> float:
        """The same in events a second."""
        return self.count / self.seconds


_RATE = re.compile(r"(\d+)/(s|m|h)")


def _rate(value: object) -> Rate:
    if isinstance(value, Rate):
        return value
    if isinstance(value, Unresolved):
        return Rate(1, 1)
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f"expected a rate such as 10/s, 100/m or 1000/h, got {got(value)}")
    return Rate(int(match[1]), int(_SECONDS[match[2]]))


PerTime = Annotated[Rate, BeforeValidator(_rate)]


def _secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {jsontext.kind(value)}")
    if not value:
        raise ValueError("the secret is empty")
    return Secret(value)


SecretText = Annotated[Secret, BeforeValidator(_secret)]


def _listed(value: object) -> object:
    if value == [] or value == ():
        raise ValueError("expected at least one value, got an empty list")
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


SecretTexts = Annotated[tuple[SecretText, ...], BeforeValidator(_listed)]
"""One secret or a list of them, all valid: old and new during a rotation."""

Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""One string or a list of strings."""


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, Unresolved):
        return ip_network("0.0.0.0/0")
    try:
        if isinstance(value, str):
            return ip_network(value)
    except ValueError as error:
        raise ValueError(f"expected a network such as 10.0.0.0/8, got {got(value)}: {error}") from None
    raise ValueError(f"expected a network such as 10.0.0.0/8, got {got(value)}")


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\r\n\0]")


def _header_name(value: object) -> str:
    if not isinstance(value, str) or (_TOKEN.fullmatch(value) is None and not isinstance(value, Unresolved)):
        raise ValueError(f"expected a header name, got {got(value)}")
    return value


def _header_value(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {jsontext.kind(value)} (quote it)")
    if _CONTROL.search(value):
        raise ValueError("a header value cannot hold CR, LF or NUL")
    return value


HeaderName = Annotated[str, BeforeValidator(_header_name)]
HeaderValue = Annotated[str, BeforeValidator(_header_value)]


def any_of(words: Iterable[Any]) -> str:
    """`a, b or c`."""
    *most, last = [str(word) for word in words]
    return f"{', '.join(most)} or {last}" if most else last
