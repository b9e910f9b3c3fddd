"""The ways in which requests prove themselves, shared by the source types.

An adapter holds a list of checks, one for each proof that its config names; all of them must hold. Every check
compares bytes in constant time, tries all secrets of its key, and can also make the proof, so that a genuine request
can be sent. A header that proves something is never accepted twice in one request, and never empty.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from multidict import CIMultiDict, istr

from relay.clock import to_ms
from relay.event import Headers, Inbound
from relay.keyed import Algorithm, Keyed
from relay.secret import Secret
from relay.source import Proof, Rejected

if TYPE_CHECKING:
    from relay.proofschema import BasicAuth

_DIGITS = re.compile(r"[0-9]{1,16}")
_MILLISECOND = timedelta(milliseconds=1)
_AUTHORIZATION = istr("Authorization")

Encoding = Literal["hex", "base64"]
JsonPath = tuple[str, ...]


# --- bytes ------------------------------------------------------------------------------------------------------------


def raw(text: str) -> bytes:
    """The bytes of the wire of a header's value, and the UTF-8 bytes of a secret."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def reveal(secrets: Iterable[Secret]) -> list[bytes]:
    """The bytes of secrets."""
    return [raw(secret.reveal()) for secret in secrets]


def sole(headers: Headers, name: str) -> str:
    """The value of a header that must be there once, and not empty. Raises Rejected."""
    values = headers.getall(name, ())
    if len(values) == 1 and values[0]:
        return values[0]
    if not values:
        raise Rejected(f"no {name} header")
    raise Rejected(f"the {name} header is {'repeated' if len(values) > 1 else 'empty'}")


def hint(headers: Headers, name: str) -> str | None:
    """The value of an unsigned header, if there is exactly one that says something."""
    values = headers.getall(name, ())
    return (values[0] or None) if len(values) == 1 else None


def number(text: str) -> int | None:
    """A count of seconds or milliseconds: ASCII digits, and not too many of them."""
    return int(text) if _DIGITS.fullmatch(text) is not None else None


def parts(value: str) -> list[tuple[str, str]]:
    """`t=1, v1=a,v1=b` as pairs, in order."""
    pairs = []
    for part in value.split(","):
        name, _, text = part.strip().partition("=")
        pairs.append((name, text))
    return pairs


def unbase64(text: str) -> bytes | None:
    """The bytes of base64 text, whose padding may be missing; None for what is not base64."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None


def whole_ms(tolerance: timedelta) -> int:
    """A tolerance as `check_time` wants it."""
    return tolerance // _MILLISECOND


def check_time(at_ms: int, now: datetime, tolerance: int) -> None:
    """Raises Rejected for a time further from now than the tolerance, in milliseconds, which is off at zero."""
    if tolerance:
        late = to_ms(now) - at_ms
        if abs(late) > tolerance:
            raise Rejected("the timestamp is too old" if late > 0 else "the timestamp lies in the future")


# --- checks -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Draft:
    """A request that is being signed."""

    headers: CIMultiDict[str]
    body: bytes


class Check(Protocol):
    """One configured proof."""

    def hold(self, inbound: Inbound, now: datetime) -> str:
        """The key of the config that held, such as `secret[1]`. Raises Rejected, or Malformed."""
        ...

    def sign(self, draft: Draft, now: datetime) -> None:
        """Give the request this proof, by the first secret. Raises ValueError where relay cannot."""
        ...


def verify(checks: Sequence[Check], inbound: Inbound, now: datetime) -> Proof:
    """All checks must hold. Raises Rejected, or Malformed."""
    if len(checks) == 1:  # nearly all sources
        return _proved(checks[0].hold(inbound, now))
    if not checks:
        raise Rejected("the source has no proof configured")
    return Proof(tuple([check.hold(inbound, now) for check in checks]))


@lru_cache(128)
def _proved(held: str) -> Proof:
    return Proof((held,))


def sign(checks: Iterable[Check], inbound: Inbound, now: datetime) -> Inbound:
    """The request with all proofs. Checks that write into the body come before those that sign it."""
    draft = Draft(CIMultiDict(inbound.headers), inbound.body)
    for check in checks:
        check.sign(draft, now)
    return Inbound(draft.headers, draft.body)


class Candidates:
    """The secrets of one key of the config, and which of them a given value is."""

    __slots__ = ("_named", "first")

    def __init__(self, name: str, values: Sequence[bytes]) -> None:
        self._named = list(zip(labels(name, len(values)), values, strict=True))
        self.first = values[0]

    def held(self, given: bytes) -> str | None:
        """The name of the secret that this is."""
        found = None
        for name, value in self._named:
            if hmac.compare_digest(value, given) and found is None:
                found = name
        return found


def labels(name: str, count: int) -> list[str]:
    """`secret`, or `secret[0]`, `secret[1]` … where there are several."""
    return [name] if count == 1 else [f"{name}[{index}]" for index in range(count)]


class Hmac:
    """HMACs by each of several keys."""

    __slots__ = ("_encoding", "_keys")

    def __init__(
        self, name: str, keys: Sequence[bytes], algorithm: Algorithm = "sha256", encoding: Encoding = "hex"
    ) -> None:
        primed = [Keyed(key, algorithm) for key in keys]
        self._keys = list(zip(labels(name, len(keys)), primed, strict=True))
        self._encoding = encoding

    def _code(self, key: Keyed, message: bytes) -> bytes:
        digest = key.digest(message)
        return digest.hex().encode() if self._encoding == "hex" else base64.b64encode(digest)

    def held(self, message: bytes, given: Sequence[bytes]) -> str | None:
        """The name of the key by which one of the given codes is the message's."""
        found = None
        for name, key in self._keys:
            code = self._code(key, message)
            for one in given:
                if hmac.compare_digest(code, one) and found is None:
                    found = name
        return found

    def sign(self, message: bytes) -> str:
        """The message's code by the first key."""
        return self._code(self._keys[0][1], message).decode()


class SignedBody:
    """A header with an HMAC of the body. `any_case` also takes hex in capitals."""

    __slots__ = ("_any_case", "_header", "_hmac", "_prefix")

    def __init__(self, header: str, code: Hmac, prefix: str = "", *, any_case: bool = False) -> None:
        self._header = istr(header)  # looked up without being folded each time
        self._hmac = code
        self._prefix = prefix
        self._any_case = any_case

    def hold(self, inbound: Inbound, now: datetime) -> str:
        value = sole(inbound.headers, self._header)
        if not value.startswith(self._prefix):
            raise Rejected(f"the {self._header} header does not begin with {self._prefix}")
        given = raw(value[len(self._prefix) :])
        held = self._hmac.held(inbound.body, (given.lower() if self._any_case else given,))
        if held is None:
            raise Rejected(f"the signature in {self._header} does not fit")
        return held

    def sign(self, draft: Draft, now: datetime) -> None:
        draft.headers[self._header] = self._prefix + self._hmac.sign(draft.body)


class StampedBody:
    """A header `t=<seconds>,v1=<hex>[,v1=<hex>]` with the HMAC of `<t>.<body>`; any `v1` may be the one."""

    __slots__ = ("_header", "_hmac", "_tolerance")

    def __init__(self, header: str, code: Hmac, tolerance: timedelta) -> None:
        self._header = istr(header)
        self._hmac = code
        self._tolerance = whole_ms(tolerance)

    def hold(self, inbound: Inbound, now: datetime) -> str:
        pairs = parts(sole(inbound.headers, self._header))
        times = [text for name, text in pairs if name == "t"]
        given = [raw(text) for name, text in pairs if name == "v1" and text]
        seconds = number(times[0]) if len(times) == 1 else None
        if seconds is None:
            raise Rejected(f"the {self._header} header has no timestamp")
        if not given:
            raise Rejected(f"the {self._header} header has no v1 signature")
        held = self._hmac.held(b"%s.%s" % (times[0].encode(), inbound.body), given)
        if held is None:
            raise Rejected(f"the signature in {self._header} does not fit")
        check_time(seconds * 1000, now, self._tolerance)
        return held

    def sign(self, draft: Draft, now: datetime) -> None:
        seconds = str(to_ms(now) // 1000)
        code = self._hmac.sign(b"%s.%s" % (seconds.encode(), draft.body))
        draft.headers[self._header] = f"t={seconds},v1={code}"


class Bearer:
    """`Authorization: Bearer <token>`."""

    __slots__ = ("_tokens",)

    def __init__(self, secrets: Sequence[Secret], name: str = "token") -> None:
        self._tokens = Candidates(name, reveal(secrets))

    def hold(self, inbound: Inbound, now: datetime) -> str:
        scheme, _, token = sole(inbound.headers, _AUTHORIZATION).partition(" ")
        if scheme.lower() != "bearer":
            raise Rejected("the Authorization header is not a bearer token")
        held = self._tokens.held(raw(token.lstrip(" ")))
        if held is None:
            raise Rejected("the bearer token is wrong")
        return held

    def sign(self, draft: Draft, now: datetime) -> None:
        draft.headers["Authorization"] = f"Bearer {_text(self._tokens.first)}"


class BasicCredentials:
    """`Authorization: Basic <base64 of user:password in UTF-8>`."""

    __slots__ = ("_pairs",)

    def __init__(self, basic: BasicAuth) -> None:
        user = raw(basic.username) + b":"
        self._pairs = Candidates("basic.password", [user + password for password in reveal(basic.password)])

    def hold(self, inbound: Inbound, now: datetime) -> str:
        scheme, _, code = sole(inbound.headers, _AUTHORIZATION).partition(" ")
        if scheme.lower() != "basic":
            raise Rejected("the Authorization header is not basic auth")
        pair = unbase64(code.strip(" "))
        if pair is None:
            raise Rejected("the basic auth is not base64")
        held = self._pairs.held(pair)
        if held is None:
            raise Rejected("the user name or password is wrong")
        return held

    def sign(self, draft: Draft, now: datetime) -> None:
        draft.headers["Authorization"] = f"Basic {base64.b64encode(self._pairs.first).decode()}"


class StaticHeader:
    """A header whose whole value is the secret."""

    __slots__ = ("_header", "_values")

    def __init__(self, header: str, secrets: Sequence[Secret]) -> None:
        self._header = istr(header)
        self._values = Candidates(f"headers.{header}", reveal(secrets))

    def hold(self, inbound: Inbound, now: datetime) -> str:
        held = self._values.held(raw(sole(inbound.headers, self._header)))
        if held is None:
            raise Rejected(f"the {self._header} header is wrong")
        return held

    def sign(self, draft: Draft, now: datetime) -> None:
        draft.headers[self._header] = _text(self._values.first)


class BodySecret:
    """A string in the JSON body that is the secret. What is not JSON cannot prove itself: Malformed."""

    __slots__ = ("_path", "_values", "_where")

    def __init__(self, name: str, path: JsonPath, secrets: Sequence[Secret]) -> None:
        self._path = path
        self._where = "/" + "/".join(path)
        self._values = Candidates(name, reveal(secrets))

    def hold(self, inbound: Inbound, now: datetime) -> str:
        value: Any = inbound.document()
        for key in self._path:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, str) or not value or not self._path:
            raise Rejected(f"no secret at {self._where} in the body")
        held = self._values.held(value.encode("utf-8", "surrogatepass"))
        if held is None:
            raise Rejected(f"the secret at {self._where} in the body is wrong")
        return held

    def sign(self, draft: Draft, now: datetime) -> None:
        draft.body = with_value(draft.body, self._path, _text(self._values.first))


def with_value(body: bytes, path: JsonPath, value: str) -> bytes:
    """A JSON object as text again, with a string at a path of keys. Raises ValueError for what is no object."""
    document = Inbound(CIMultiDict(), body).object()
    place = document
    for key in path[:-1]:
        below = place.get(key)
        if not isinstance(below, dict):
            below = place[key] = {}
        place = below
    place[path[-1]] = value
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair can only be written as an escape
        return json.dumps(document, separators=(",", ":")).encode()


def _text(secret: bytes) -> str:
    return secret.decode("utf-8", "surrogateescape")
