"""The wire: the only place that opens outbound connections."""

from __future__ import annotations

import io
import os
import socket
import ssl
from typing import NamedTuple, Protocol, Self

import aiohttp
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from multidict import CIMultiDict

from relay.delivery import Code, Failure, Response
from relay.destination import Limits, Outbound
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


class HttpTransport:
    """aiohttp's pool, with everything off that would act on its own: redirects, cookies, decompression, proxies from
    the environment. Use as an async context manager."""

    _session: ClientSession

    async def __aenter__(self) -> Self:
        self._session = ClientSession(
            connector=TCPConnector(limit=0, resolver=Resolver(), ttl_dns_cache=10, keepalive_timeout=15),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_AUTOMATIC,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        """See Transport."""
        try:
            response = await self._session.request(
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
