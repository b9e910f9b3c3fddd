"""The wire: the only place that opens outbound connections."""

from __future__ import annotations

import io
import os
import socket
import ssl
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import aiohttp
from aiohttp import AddrInfoType, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from multidict import CIMultiDict

from relay.delivery import Code, Failure, Response
from relay.destination import Limits, Outbound
from relay.egress import Egress
from relay.jsontext import whole
from relay.resolver import Resolver


class Reply(NamedTuple):
    """An answer and what it says of when to come back."""

    response: Response
    retry_after: str | None


class Unreachable(Exception):
    """No answer came. Holds why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code, message)


class Transport(Protocol):
    """How requests leave."""

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        """Make one request and read its answer as far as `limits` allow. Raises Unreachable. Follows no redirect."""
        ...


_LARGE = 256 << 10
_AUTOMATIC = ("Content-Type", "User-Agent", "Accept", "Accept-Encoding")


class _Blocked(OSError):
    """An address that `server.egress` denies. aiohttp joins several errors into one text: this is how we know ours."""

    sign = "denied by server.egress"

    def __init__(self, address: str, rule: str) -> None:
        super().__init__(f"{address} is {self.sign} ({rule})")


@dataclass(slots=True, eq=False)
class _Pool:
    """The connections made under one policy, and how many requests use them."""

    session: ClientSession
    policy: Egress
    users: int = 0


class HttpTransport:
    """aiohttp's pool, with everything off that would act on its own: redirects, cookies, decompression, proxies from
    the environment. Use as an async context manager."""

    def __init__(self, policy: Egress) -> None:
        self._policy = policy

    async def __aenter__(self) -> Self:
        self._pool = self._open(self._policy)
        self._retired: set[_Pool] = set()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for pool in (self._pool, *self._retired):
            await pool.session.close()

    async def follow(self, policy: Egress) -> None:
        """Connect by this policy from now on: what is open under another one ends with the requests that use it."""
        if policy == self._pool.policy:
            return
        old, self._pool = self._pool, self._open(policy)
        self._retired.add(old)
        await self._close_unused(old)

    async def _close_unused(self, pool: _Pool) -> None:
        if pool in self._retired and not pool.users:
            self._retired.discard(pool)
            await pool.session.close()

    @staticmethod
    def _open(policy: Egress) -> _Pool:
        def connecting(info: AddrInfoType) -> socket.socket:
            # The last moment before a connection, with the address itself: literals and rebinding names come by here.
            family, kind, proto, _, sockaddr = info
            address = str(sockaddr[0])
            rule = policy.refuses(address)
            if rule is not None:
                raise _Blocked(address, rule)
            return socket.socket(family, kind, proto)

        session = ClientSession(
            connector=TCPConnector(
                limit=0, resolver=Resolver(), ttl_dns_cache=10, keepalive_timeout=15, socket_factory=connecting
            ),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_AUTOMATIC,
        )
        return _Pool(session, policy)

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        """See Transport."""
        pool = self._pool
        pool.users += 1
        try:
            return await self._exchange(pool.session, request, limits)
        finally:
            pool.users -= 1
            if pool is not self._pool:
                await self._close_unused(pool)

    async def _exchange(self, session: ClientSession, request: Outbound, limits: Limits) -> Reply:
        try:
            response = await session.request(
                request.method,
                request.url,
                data=_sent(request.body),
                headers=CIMultiDict(request.headers),
                allow_redirects=False,
                # The total deadline also covers a peer that drips a byte a second, which read timeouts never catch.
                timeout=ClientTimeout(total=limits.total, sock_connect=limits.connect),
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _unreachable(error, limits) from error
        try:
            body, truncated = await _read(response, limits.response_body)
        finally:
            # What was not read to its end cannot be used again, and must not be read at all.
            if response.content.at_eof():
                response.release()
            else:
                response.close()
        headers = tuple((name, whole(value)) for name, value in response.headers.items())
        return Reply(Response(response.status, headers, body, truncated), response.headers.get("Retry-After"))


def _sent(body: bytes) -> bytes | io.BytesIO | None:
    """A body as aiohttp should send it: a large one in pieces, so that the loop turns meanwhile."""
    if not body:
        return None
    return io.BytesIO(body) if len(body) > _LARGE else body


async def _read(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """The first `most` bytes of a body and whether there was more. The status has decided: errors only cut it short."""
    kept = bytearray()
    try:
        async for chunk in response.content.iter_any():
            kept += chunk
            if len(kept) > most:
                return bytes(kept[:most]), True
    except (aiohttp.ClientError, OSError, TimeoutError):
        return bytes(kept), True
    return bytes(kept), False


def _unreachable(error: BaseException, limits: Limits) -> Unreachable:
    """Why no answer came, in words for the person who must act."""
    match error:
        case aiohttp.ConnectionTimeoutError() | aiohttp.SocketTimeoutError():
            return Unreachable(Code.TIMEOUT, f"no connection within {limits.connect:g} s")
        case TimeoutError():
            return Unreachable(Code.TIMEOUT, f"no answer within {limits.total:g} s")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return Unreachable(Code.TLS_ERROR, _tls_message(error))
        case aiohttp.ClientConnectorDNSError():
            return Unreachable(Code.DNS_ERROR, f"the name {error.host} does not resolve: {_os_message(error.os_error)}")
        case aiohttp.ClientConnectorError() if _Blocked.sign in str(error.os_error):
            return Unreachable(Code.BLOCKED_ADDRESS, str(error.os_error))
        case aiohttp.ClientConnectorError():
            return Unreachable(Code.CONNECT_ERROR, f"no connection: {_os_message(error.os_error)}")
        case aiohttp.ServerDisconnectedError():
            return Unreachable(Code.CONNECTION_RESET, "the destination closed the connection without an answer")
        case aiohttp.ClientOSError() | ConnectionError():
            return Unreachable(Code.CONNECTION_RESET, f"the connection broke: {_os_message(error)}")
        case aiohttp.ClientResponseError():
            return Unreachable(Code.PROTOCOL_ERROR, f"the answer is not HTTP: {error.message.splitlines()[0]}")
        case socket.gaierror():
            return Unreachable(Code.DNS_ERROR, f"the name does not resolve: {error.strerror}")
        case OSError():
            return Unreachable(Code.CONNECT_ERROR, f"no connection: {_os_message(error)}")
        case _:
            return Unreachable(Code.PROTOCOL_ERROR, f"the exchange failed: {type(error).__name__}")


def _os_message(error: OSError) -> str:
    """The system's own words, without the addresses that aiohttp adds."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__


def _tls_message(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = getattr(cause, "certificate_error", None) or getattr(cause, "os_error", None) or cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not to be trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {(cause.reason or 'handshake failure').replace('_', ' ').lower()}"
    return "TLS failed"
