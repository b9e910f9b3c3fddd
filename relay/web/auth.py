"""Who may use the admin side: tokens with scopes, and the guards against web pages that reach for it.

A browser on the operator's machine can be made to send requests to a loopback address (DNS rebinding, cross-site
forms). So without a token the `Host` must be one of ours, and what changes something must come from our own pages.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

from aiohttp import web

from relay.address import parse_address
from relay.immutable import immutable
from relay.proof import raw
from relay.secret import Secret

READ, OPERATE = "read", "operate"
SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""


@immutable
class Token:
    """A named key to the admin side."""

    name: str
    secret: Secret
    scope: str


@immutable
class Gate:
    """What the config says about access to the admin side."""

    tokens: tuple[Token, ...]
    hosts: frozenset[str]
    """Lower-case names and addresses by which the admin side may be called without a token."""


class Denied(Exception):
    """The request may not be made."""

    def __init__(
        self,
        status: int,
        word: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        who: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.who = who
        """Whose token it was, where one was given."""
        self.status = status
        self.word = word
        self.detail = detail
        self.headers = headers or {}


def admit(request: web.Request, gate: Gate) -> str:
    """The name under which a request acts: a token's, or `anonymous`. Raises Denied."""
    if request.method not in SAFE:
        _same_origin(request)
    elif _from_elsewhere(request):
        raise Denied(403, "forbidden", "cross-origin requests are refused")
    token = _token(request, gate)
    if token is None:
        if not _by_unix(request) and _host(request) not in gate.hosts and not _is_loopback(_host(request)):
            raise Denied(421, "misdirected_request", "this Host is not in admin.hosts, and no valid token was given")
        if gate.tokens:
            challenge = {"WWW-Authenticate": 'Basic realm="relay", charset="UTF-8"'}
            raise Denied(401, "unauthenticated", "a token is needed", challenge)
        return "anonymous"
    if token.scope == READ and request.method not in SAFE:
        raise Denied(403, "forbidden", f"the token '{token.name}' may only read", who=token.name)
    return token.name


def operates(request: web.Request, gate: Gate) -> bool:
    """Whether who was admitted may also change things."""
    token = _token(request, gate)
    return not gate.tokens if token is None else token.scope == OPERATE


def _token(request: web.Request, gate: Gate) -> Token | None:
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    given: bytes
    if scheme.lower() == "bearer":
        given = rest.strip().encode("utf-8", "surrogateescape")
    elif scheme.lower() == "basic":
        try:
            given = base64.b64decode(rest.strip().encode("utf-8", "surrogateescape"), validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    else:
        return None
    found = None
    for token in gate.tokens:  # all are compared, so that the time says nothing about which one fits
        if hmac.compare_digest(given, raw(token.secret.reveal())):
            found = token
    return found


def _from_elsewhere(request: web.Request) -> bool:
    """Whether another site's page asks, other than by sending its reader here: it may not read the answer, but could
    have relay work on many."""
    site, mode = request.headers.get("Sec-Fetch-Site"), request.headers.get("Sec-Fetch-Mode")
    return site in ("cross-site", "same-site") and mode != "navigate"


def _same_origin(request: web.Request) -> None:
    """Refuse what another site's page sends, whatever credentials the browser adds to it."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        raise Denied(403, "forbidden", "cross-origin requests are refused")
    origin = request.headers.get("Origin")
    if origin is not None and _authority(origin) != request.headers.get("Host", "").lower():
        raise Denied(403, "forbidden", "cross-origin requests are refused")


def _authority(origin: str) -> str | None:
    """What an `Origin` says of the host; None for one that says nothing, as `null` does."""
    return origin.partition("://")[2].lower() or None


def _by_unix(request: web.Request) -> bool:
    """Whether the request came by a unix socket: the connection says so, not the config, which may be newer."""
    return isinstance(request.get_extra_info("sockname"), str | bytes)


def _host(request: web.Request) -> str:
    host = request.headers.get("Host", "").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    address = parse_address(host)
    return address is not None and address.is_loopback
