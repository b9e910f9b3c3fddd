"""OAuth2 client credentials: a token for many deliveries, got when it is needed, once for all who wait for it.

Basic and bearer need none of this: they are a header that is known when the config is loaded. What stands here belongs
to the auth section, not to a Runtime: a reload that leaves the section as it is takes the token over.
"""

from __future__ import annotations

import asyncio
import base64
import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote_plus, urlencode

from yarl import URL

from relay import __version__, jsontext
from relay.authschema import OAuth2
from relay.client import Reply, Transport, Unreachable
from relay.clock import Clock
from relay.delivery import Code, Response
from relay.destination import Limits, Outbound, Wire
from relay.immutable import immutable
from relay.masking import without_secrets
from relay.proof import raw
from relay.secret import Redactor
from relay.tlsfault import printable

_LONG_ENOUGH = 30.0  # seconds that a token request may take at least: it is not for its first asker alone
_CONNECT = 5.0  # and until it is connected
_MARGIN = 30.0  # seconds before its end in which a token is not used any more, or a tenth of its life, if that is less
_UNSAID = 3600.0  # how long a token is used whose life the endpoint does not tell
_LONGEST = 86400.0
_LARGEST_ANSWER = 256 << 10
_REMEMBERED = 4  # tokens that are masked in answers: receivers also echo what they were sent before
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_ERROR = re.compile(r"[\x20-\x7e]{1,64}")


@immutable
class Token:
    """A token and when it is used no more, on the clock that never jumps."""

    value: str
    until: float


class ClientCredentials:
    """The tokens of one auth section. Has the contract of `destination.Exchanging`."""

    def __init__(self, section: OAuth2, wire: Wire) -> None:
        url = section.token_url.extend_query(section.query) if section.query else section.token_url
        self._url: URL = url
        client, secret = section.client_id, section.client_secret.reveal()
        # In a header each is written as in a form: RFC 6749 section 2.3.1.
        self._pair = f"{quote_plus(raw(client))}:{quote_plus(raw(secret))}"
        self._named = {"client_id": client, "client_secret": secret}
        self._hide = Redactor([secret, self._pair, f"{client}:{secret}", *section.params.values(), *url.query.values()])
        self._form = {"grant_type": "client_credentials"}
        if section.scope is not None:
            self._form["scope"] = section.scope
        self._form.update(section.params)
        self._wire = wire
        self._token: Token | None = None
        self._fetching: asyncio.Future[Token | Unreachable] | None = None
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._redact = Redactor()
        self._in_header = False
        """Whether the endpoint wants the credentials as `Authorization: Basic` and not in the form."""

    async def exchange(self, request: Outbound, limits: Limits, transport: Transport, clock: Clock) -> Reply:
        """Make a request with a token; if it is answered by 401, once more with a new one. Raises Unreachable."""
        ends = clock.monotonic() + limits.total
        token = await self._current(limits, ends, transport, clock)
        reply = await self._send(request, token, limits, ends, transport, clock)
        if reply.response.status != 401:
            return reply
        if self._token is token:
            self._token = None
        token = await self._current(limits, ends, transport, clock)
        return await self._send(request, token, limits, ends, transport, clock)

    async def _send(
        self, request: Outbound, token: Token, limits: Limits, ends: float, transport: Transport, clock: Clock
    ) -> Reply:
        headers = [
            (name, f"Bearer {token.value}" if name.lower() == "authorization" else value)
            for name, value in request.headers
        ]
        try:
            reply = await transport.send(replace(request, headers=headers, heading=None), _left(limits, ends, clock))
        except Unreachable as error:
            raise Unreachable(error.failure.code, self._redact(error.failure.message)) from error
        return Reply(without_secrets(reply.response, self._redact), reply.retry_after)

    # --- the token ---

    async def _current(self, limits: Limits, ends: float, transport: Transport, clock: Clock) -> Token:
        """A token that still holds. One request gets it for all who ask meanwhile, and they share its failure too.

        It is nobody's own: who has waited as long as it may goes, and the token comes for the others and the next.
        """
        if self._token is not None and clock.monotonic() < self._token.until:
            return self._token
        left = _left(limits, ends, clock)
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_future()
            transport.beside(self._fetch(self._fetching, limits, transport, clock))
        try:
            async with asyncio.timeout(left.total):
                got = await asyncio.shield(self._fetching)
        except TimeoutError:
            message = f"no token from {self._url.host} within {limits.whole:g} s"
            raise Unreachable(Code.AUTH_ERROR, message) from None
        if isinstance(got, Unreachable):
            raise Unreachable(got.failure.code, got.failure.message) from got
        # Also one that lives for no time at all serves those who have waited for it.
        return got

    async def _fetch(
        self, told: asyncio.Future[Token | Unreachable], limits: Limits, transport: Transport, clock: Clock
    ) -> None:
        """Get a token and tell those who wait for it, in time that none of them sets for the others."""
        own = Limits(max(limits.total, _LONG_ENOUGH), max(limits.connect, _CONNECT), _LARGEST_ANSWER)
        try:
            got = await self._ask(own, transport, clock)
            self._token = got
            self._recent.append(got.value)
            self._redact = Redactor(self._recent)
            told.set_result(got)
        except Unreachable as error:
            told.set_result(error)
        except Exception as error:  # noqa: BLE001 - a bug of ours: those who wait say so
            told.set_exception(error)
        finally:
            told.cancel()  # does nothing to what is told
            self._fetching = None

    async def _ask(self, limits: Limits, transport: Transport, clock: Clock) -> Token:
        """One request to the token endpoint; a second one where it wants the credentials in the other place."""
        ends = clock.monotonic() + limits.total
        response = await self._request(self._in_header, limits, transport)
        if _refuses_client(response) and clock.monotonic() < ends:
            other = await self._request(not self._in_header, _left(limits, ends, clock), transport)
            if other.status == 200:
                self._in_header = not self._in_header
                response = other
        return self._read(response, clock)

    async def _request(self, in_header: bool, limits: Limits, transport: Transport) -> Response:
        headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
            ("User-Agent", f"relay/{__version__}"),
        ]
        form: Mapping[str, str] = self._form
        if in_header:
            headers.append(("Authorization", "Basic " + base64.b64encode(self._pair.encode()).decode()))
        else:
            form = {**form, **self._named}
        body = urlencode({name: raw(value) for name, value in form.items()}).encode()
        request = Outbound("POST", self._url, headers, body, self._wire)
        try:
            reply = await transport.send(request, limits)
        except Unreachable as error:
            denied = error.failure.code is Code.BLOCKED_ADDRESS
            code = Code.BLOCKED_ADDRESS if denied else Code.AUTH_ERROR
            raise Unreachable(code, f"no token from {self._url.host}: {error.failure.message}") from error
        return reply.response

    def _read(self, response: Response, clock: Clock) -> Token:
        """The token in an answer. Raises Unreachable, in words that hold nothing secret."""
        answer = _document(response)
        if response.status != 200:
            raise self._refused(f"HTTP {response.status}{self._reason(answer)}{_hint(response)}")
        value, kind = answer.get("access_token"), answer.get("token_type", "Bearer")
        if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
            raise self._refused(f"HTTP 200{self._reason(answer)}, but no access_token in JSON")
        if not str(kind).lower().startswith("bearer"):
            raise self._refused("the token is not a bearer token")
        life = _seconds(answer.get("expires_in"))
        return Token(value, clock.monotonic() + life - min(_MARGIN, life / 10))

    def _reason(self, answer: Mapping[str, object]) -> str:
        """The endpoint's own words for what is wrong. It may quote what it was sent."""
        error, told = answer.get("error"), answer.get("error_description")
        if not isinstance(error, str) or _ERROR.fullmatch(error) is None:
            return ""
        more = f" ({printable(self._hide(told))})" if isinstance(told, str) and told else ""
        return f", {self._hide(error)}{more}"

    def _refused(self, what: str) -> Unreachable:
        return Unreachable(Code.AUTH_ERROR, f"no token from {self._url.host}: {what}")


def _left(limits: Limits, ends: float, clock: Clock) -> Limits:
    """The limits for what is left of an attempt: its parts together take no longer than the whole may."""
    left = ends - clock.monotonic()
    if left <= 0:
        raise Unreachable(Code.TIMEOUT, f"no answer within {limits.whole:g} s, getting a token included")
    return replace(limits, total=left, of=limits.whole)


def _document(response: Response) -> Mapping[str, object]:
    try:
        document = jsontext.parse(response.body)
    except jsontext.Malformed:
        return {}
    return document if isinstance(document, dict) else {}


def _refuses_client(response: Response) -> bool:
    """Whether the endpoint does not see who asks: it may look for the credentials elsewhere (RFC 6749 section 5.2)."""
    return response.status == 401 or (
        response.status == 400 and _document(response).get("error") in ("invalid_client", "invalid_request")
    )


def _hint(response: Response) -> str:
    if 300 <= response.status < 400:
        return ": redirects are not followed (mend token_url)"
    return ": is token_url right?" if response.status in (404, 405) else ""


def _seconds(value: object) -> float:
    """`expires_in`, which some send as text, and some not at all."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else _UNSAID
    except (ValueError, OverflowError):
        return _UNSAID
    return min(max(seconds, 0.0), _LONGEST) if math.isfinite(seconds) else _UNSAID


class Tokens:
    """The credentials of one config, those it has in common with the one before taken over with their tokens."""

    def __init__(self, before: Tokens | None = None) -> None:
        self._before = list(before._made) if before is not None else []
        self._made: list[tuple[OAuth2, Wire, ClientCredentials]] = []

    def settle(self) -> None:
        """All are made: what the config before had besides is forgotten."""
        self._before = []

    def of(self, section: OAuth2, wire: Wire) -> ClientCredentials:
        """The credentials of a section that are reached by a wire: routes with equal ones share a token."""
        known = (made for same, by, made in (*self._made, *self._before) if same == section and by == wire)
        credentials = next(known, None) or ClientCredentials(section, wire)
        self._made.append((section, wire, credentials))
        return credentials
