"""The wire: the only place that opens outbound connections."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple, Protocol, Self

import aiohttp
from aiohttp import AddrInfoType, ClientRequest, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from multidict import CIMultiDict

from relay.delivery import Code, Response
from relay.destination import Limits, Outbound
from relay.egress import Egress
from relay.jsontext import whole
from relay.resolver import Resolver
from relay.unreachable import (
    Blocked,
    Exchange,
    Progress,
    Stage,
    Unreachable,
    explain,
    progress,
    proxy_refusal,
    reached,
)

__all__ = ["HttpTransport", "Reply", "Transport", "Unreachable"]


class Reply(NamedTuple):
    """An answer and what it says of when to come back."""

    response: Response
    retry_after: str | None


class Transport(Protocol):
    """How requests leave."""

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        """Make one request and read its answer as far as `limits` allow. Raises Unreachable. Follows no redirect."""
        ...


_LARGE = 256 << 10
_AUTOMATIC = ("Content-Type", "User-Agent", "Accept", "Accept-Encoding")


class _Protocol(ResponseHandler):
    """aiohttp 3.14 forgets a body in which a chunk is malformed: whoever reads it would wait until the deadline."""

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the body is cut off"))


class _Connector(TCPConnector):
    """Says how far the connection has come that it makes."""

    def __init__(self, connecting: Callable[[AddrInfoType], socket.socket]) -> None:
        super().__init__(
            limit=0, resolver=Resolver(), ttl_dns_cache=10, keepalive_timeout=15, socket_factory=connecting
        )
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._loop)

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        reached(Stage.LOOKUP)
        connection = await super()._create_connection(req, traces, timeout)
        reached(Stage.ANSWER)
        return connection


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
            reached(Stage.CONNECT)
            family, kind, proto, _, sockaddr = info
            address = str(sockaddr[0])
            rule = policy.refuses(address)
            if rule is not None:
                raise Blocked(address, rule)
            return socket.socket(family, kind, proto)

        session = ClientSession(
            connector=_Connector(connecting),
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
            return await self._exchange(pool, request, limits)
        finally:
            pool.users -= 1
            if pool is not self._pool:
                await self._close_unused(pool)

    async def _exchange(self, pool: _Pool, request: Outbound, limits: Limits) -> Reply:
        wire = request.wire
        if wire.proxy is not None:
            _refuse_literal(request.url.host or "", pool.policy)
        made = Progress()
        progress.set(made)
        try:
            response = await pool.session.request(
                request.method,
                request.url,
                data=_sent(request.body),
                headers=CIMultiDict(request.headers),
                allow_redirects=False,
                ssl=wire.tls if wire.tls is not None else True,
                proxy=wire.proxy,
                # The total deadline also covers a peer that drips a byte a second, which read timeouts never catch.
                timeout=ClientTimeout(total=limits.total, connect=limits.connect, ceil_threshold=3600),
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            proxy = wire.proxy.host_port_subcomponent if wire.proxy is not None else None
            tried = Exchange(request.url.host or "", proxy, limits.total, limits.connect)
            raise explain(error, tried, made.stage) from error
        if response.status == 407 and wire.proxy is not None:
            response.close()
            proxy = wire.proxy.host_port_subcomponent
            raise Unreachable(Code.CONNECT_ERROR, proxy_refusal(407, response.reason, proxy))
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


def _refuse_literal(host: str, policy: Egress) -> None:
    """A proxy connects where it is told: an address that is denied is not even named to it. Raises Unreachable."""
    address = "127.0.0.1" if host.rstrip(".").lower() in ("localhost", "ip6-localhost") else host.rstrip(".")
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return
    rule = policy.refuses(address)
    if rule is not None:
        raise Unreachable(Code.BLOCKED_ADDRESS, str(Blocked(host, rule)))


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
