"""The wire: the only place that opens outbound connections."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol, Self

import aiohttp
from aiohttp import (
    AddrInfoType,
    ClientRequest,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    StreamReader,
    TCPConnector,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict, CIMultiDictProxy

from relay.answering import Answering
from relay.delivery import Code, Reply, Response
from relay.destination import Limits, Outbound
from relay.direct import Answer, Direct
from relay.egress import Egress
from relay.jsontext import whole
from relay.resolver import Resolver
from relay.tls import system_context
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


class Transport(Protocol):
    """How requests leave."""

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        """Make one request and read its answer as far as `limits` allow. Raises Unreachable. Follows no redirect."""
        ...

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what goes on though whoever began it may leave. It never raises, and is cut off when requests end."""
        ...


_CONNECTED = Progress()
_FAILED = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
_LARGE = 256 << 10
_AUTOMATIC = ("Content-Type", "User-Agent", "Accept", "Accept-Encoding")


class _Connector(TCPConnector):
    """Says how far the connection has come that it makes."""

    def __init__(self, resolver: Resolver, connecting: Callable[[AddrInfoType], socket.socket]) -> None:
        super().__init__(limit=0, resolver=resolver, ttl_dns_cache=10, keepalive_timeout=15, socket_factory=connecting)
        protocol: type[ResponseHandler] = Answering
        self._factory = partial(protocol, loop=self._loop)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """An idle connection, unless something has come on it meanwhile: that would pass for the next answer."""
        while (found := await super()._get(key, traces)) is not None:
            if found.protocol is not None and not found.protocol.should_close:
                return found
            found.close()
        return None

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
    direct: Direct
    policy: Egress
    users: int = 0

    async def close(self) -> None:
        """Close all that are open."""
        self.direct.close()
        await self.session.close()


class HttpTransport:
    """aiohttp's pool, with everything off that would act on its own: redirects, cookies, decompression, proxies from
    the environment. Use as an async context manager."""

    def __init__(self, policy: Egress) -> None:
        self._policy = policy
        self._system: ssl.SSLContext | None = None
        self._resolver = Resolver()  # one for all pools: its bound holds over reloads

    async def __aenter__(self) -> Self:
        self._pool = self._open(self._policy)
        self._retired: set[_Pool] = set()
        self._beside: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._beside:
            task.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            for pool in (self._pool, *self._retired):
                await pool.close()

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
            await pool.close()

    def _open(self, policy: Egress) -> _Pool:
        def connecting(info: AddrInfoType) -> socket.socket:
            # The last moment before a connection, with the address itself: literals and rebinding names come by here.
            reached(Stage.CONNECT)
            family, kind, proto, _, sockaddr = info
            address = str(sockaddr[0])
            rule = policy.refuses(address)
            if rule is not None:
                raise Blocked(address, rule)
            return socket.socket(family, kind, proto)

        connector = _Connector(self._resolver, connecting)
        session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_AUTOMATIC,
        )
        return _Pool(session, Direct(session, connector), policy)

    async def _trusting(self) -> ssl.SSLContext:
        """For requests that have no context of their own. Reading whom a machine trusts takes a moment."""
        if self._system is None:
            self._system = await asyncio.to_thread(system_context)
        return self._system

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """See Transport."""
        task = self._group.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        """See Transport."""
        tls = request.wire.tls
        if tls is None and request.url.scheme == "https":
            tls = await self._trusting()
        pool = self._pool
        pool.users += 1
        try:
            if not Direct.takes(request):
                return await self._by_session(pool, request, tls, limits)
            made, lease = _CONNECTED, None
            try:
                lease = pool.direct.ask(request, tls, limits)
                if lease is None:
                    made = Progress()
                    progress.set(made)
                    lease = await pool.direct.connect(request, tls, limits)
                answer = await lease.asked
                if answer is None:
                    head = await lease.head()
            except BaseException as error:
                if lease is not None:
                    lease.end(whole=False)
                if not isinstance(error, _FAILED):
                    raise
                tried = Exchange(request.url.host or "", None, limits.whole, limits.connect)
                raise explain(error, tried, made.stage) from error
            if answer is None:
                return await _rest(head, limits)
            lease.end(whole=True)
        finally:
            pool.users -= 1
            if pool is not self._pool:
                await self._close_unused(pool)
        response, most = answer.response, limits.response_body
        if len(response.body) <= most:
            return answer
        cut = Response(response.status, response.headers, response.body[:most], truncated=True)
        return Reply(cut, answer.retry_after)

    async def _by_session(self, pool: _Pool, request: Outbound, tls: ssl.SSLContext | None, limits: Limits) -> Reply:
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
                ssl=tls if tls is not None else True,
                proxy=wire.proxy,
                # The total deadline also covers a peer that drips a byte a second, which read timeouts never catch.
                timeout=ClientTimeout(total=limits.total, connect=limits.connect, ceil_threshold=3600),
            )
        except _FAILED as error:
            proxy = wire.proxy.host_port_subcomponent if wire.proxy is not None else None
            tried = Exchange(request.url.host or "", proxy, limits.whole, limits.connect)
            raise explain(error, tried, made.stage) from error
        if response.status == 407 and wire.proxy is not None:
            response.close()
            proxy = wire.proxy.host_port_subcomponent
            raise Unreachable(Code.CONNECT_ERROR, proxy_refusal(407, response.reason, proxy))
        kept = bytearray()
        try:
            truncated = await _read(response.content, limits.response_body, kept)
        finally:
            # What was not read to its end cannot be used again, and must not be read at all.
            if response.content.at_eof():
                response.release()
            else:
                response.close()
        return _reply(response.status, response.headers, bytes(kept), truncated)


async def _rest(answer: Answer, limits: Limits) -> Reply:
    """An answer whose head has come."""
    kept = bytearray()
    try:
        truncated = await _read(answer.content, limits.response_body, kept)
    finally:
        answer.end()
    return _reply(answer.message.code, answer.message.headers, bytes(kept), truncated)


def _reply(status: int, headers: CIMultiDictProxy[str], body: bytes, truncated: bool) -> Reply:
    told = tuple([(name, whole(value)) for name, value in headers.items()])
    return Reply(Response(status, told, body, truncated), headers.get("Retry-After"))


def _refuse_literal(host: str, policy: Egress) -> None:
    """A proxy connects where it is told: an address that is denied is not even named to it. Raises Unreachable."""
    name = host.rstrip(".").lower()
    if name in ("localhost", "ip6-localhost", "ip6-loopback") or name.endswith(".localhost"):  # RFC 6761
        name = "127.0.0.1"
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return
    rule = policy.refuses(name)
    if rule is not None:
        raise Unreachable(Code.BLOCKED_ADDRESS, str(Blocked(host, rule)))


def _sent(body: bytes) -> bytes | io.BytesIO | None:
    """A body as aiohttp should send it: a large one in pieces, so that the loop turns meanwhile."""
    if not body:
        return None
    return io.BytesIO(body) if len(body) > _LARGE else body


async def _read(content: StreamReader, most: int, kept: bytearray) -> bool:
    """Keep the first `most` bytes of a body; was there more? The status has decided: errors only cut it short."""
    try:
        if content.is_eof():  # all of it has come with the head, as it mostly does
            kept += content.read_nowait()
        else:
            async for chunk in content.iter_any():
                kept += chunk
                if len(kept) > most:
                    break
    except (aiohttp.ClientError, OSError, TimeoutError):
        return True
    truncated = len(kept) > most
    del kept[most:]
    return truncated
