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
from typing import Any, NamedTuple, Protocol, Self

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
from aiohttp.helpers import _EXC_SENTINEL
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.tracing import Trace
from multidict import CIMultiDict, CIMultiDictProxy

from relay.delivery import Code, Response
from relay.destination import Limits, Outbound
from relay.direct import Direct
from relay.egress import Egress
from relay.jsontext import whole
from relay.plainanswer import Plain, plain
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


class Reply(NamedTuple):
    """An answer and what it says of when to come back."""

    response: Response
    retry_after: str | None


class Transport(Protocol):
    """How requests leave."""

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        """Make one request and read its answer as far as `limits` allow. Raises Unreachable. Follows no redirect."""
        ...

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what goes on though whoever began it may leave. It never raises, and is cut off when requests end."""
        ...


_CONNECTED = Progress()
_LARGE = 256 << 10
_MOST_ANSWERS = 32  # to one request, unread: all but the last are interim ones
_AUTOMATIC = ("Content-Type", "User-Agent", "Accept", "Accept-Encoding")


class _Protocol(ResponseHandler):
    """What aiohttp 3.14 leaves without a bound, or a reason; and a short way for a plain answer."""

    _asked: asyncio.Future[Plain | None] | None = None
    """Of whoever waits for the first piece of an answer."""
    _over = False
    """A plain answer was the last that anyone waits for: no parser is there for what comes now."""

    def ask(self) -> asyncio.Future[Plain | None] | None:
        """Have the next answer read, by a parser of its own: part of an answer that nobody asked for would be read as
        the beginning of this one. What the future tells is the answer if it is a plain one, else None: then, as where
        there is no future at all, it is to be read as aiohttp has it."""
        if self._tail or self._buffer or self._eof:
            self._parse()
            return None
        self._parser, self._over = None, False
        self._asked = asked = self._loop.create_future()
        return asked

    def _parse(self) -> None:
        self.set_response_params(read_until_eof=True, auto_decompress=False)

    def _tell(self, answer: Plain | None) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_result(answer)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        if self._asked is not None:
            answer = plain(data)
            if answer is not None:
                self._over = True
                self._tell(answer)
                return
            self._parse()
            self._tell(None)
        elif self._over:
            self.force_close()
            if self.transport is not None:
                self.transport.close()
            return
        super().data_received(data)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """An answer has come. Interim ones (100 Continue), and such as nobody asked for, would pile up without end."""
        if len(self) < _MOST_ANSWERS:
            super().feed_data(data, size)
            return
        if self.transport is not None:
            self.transport.close()
        self.set_exception(HttpProcessingError(message="it sends one answer after another"))

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _EXC_SENTINEL) -> None:
        """Why a connection has ended, `connection_lost` says, now or in a moment: not that nothing can be written."""
        if isinstance(exc.__cause__, aiohttp.ClientConnectionResetError):
            self.force_close()
            return
        if exc_cause not in (exc, _EXC_SENTINEL):
            exc.__cause__ = exc_cause
        super().set_exception(exc, exc_cause)
        self._tell(None)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks for it after each piece that is read, and would have its parser look for more each time."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def expire(self) -> None:
        """Time is up for an answer, or for the rest of one: also for a peer that drips a byte a second, which timeouts
        between two reads never catch."""
        body = self._payload
        self.set_exception(TimeoutError())
        if body is not None and body.exception() is None:
            body.set_exception(TimeoutError())

    def connection_lost(self, exc: BaseException | None) -> None:
        """A body in which a chunk is malformed is forgotten: whoever reads it would wait until the deadline."""
        body = self._payload
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the body is cut off"))


class _Connector(TCPConnector):
    """Says how far the connection has come that it makes."""

    def __init__(self, resolver: Resolver, connecting: Callable[[AddrInfoType], socket.socket]) -> None:
        super().__init__(limit=0, resolver=resolver, ttl_dns_cache=10, keepalive_timeout=15, socket_factory=connecting)
        protocol: type[ResponseHandler] = _Protocol
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
            if Direct.takes(request):
                return await self._directly(pool.direct, request, tls, limits)
            return await self._by_session(pool, request, tls, limits)
        finally:
            pool.users -= 1
            if pool is not self._pool:
                await self._close_unused(pool)

    async def _directly(self, direct: Direct, request: Outbound, tls: ssl.SSLContext | None, limits: Limits) -> Reply:
        made = _CONNECTED
        try:
            lease = direct.ask(request, tls, limits)
            if lease is None:
                made = Progress()
                progress.set(made)
                lease = await direct.connect(request, tls, limits)
            answer = await lease.answer()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            tried = Exchange(request.url.host or "", None, limits.whole, limits.connect)
            raise explain(error, tried, made.stage) from error
        if isinstance(answer, Plain):
            status, headers, body, retry_after = answer
            most = limits.response_body
            if len(body) <= most:
                return Reply(Response(status, headers, body, truncated=False), retry_after)
            return Reply(Response(status, headers, body[:most], truncated=True), retry_after)
        kept = bytearray()
        try:
            truncated = await _read(answer.content, limits.response_body, kept)
        finally:
            answer.end()
        return _reply(answer.message.code, answer.message.headers, bytes(kept), truncated)

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
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
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
