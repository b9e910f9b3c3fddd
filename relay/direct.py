"""A plain POST on a connection of aiohttp's pool: a head that is mostly ready, one write, a plain answer read at once.

It is what nearly every attempt is. aiohttp's ClientSession does the same and costs twice as much processor time, for
what is never asked of it here: cookies, redirects, uploads, proxies. What is not a plain POST goes by the session still
(`relay.client`); both use the same connector, protocol, limits and errors, and are held to the same tests.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import aiohttp
from aiohttp import BaseConnector, ClientRequest, ClientSession, ClientTimeout, StreamReader
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from yarl import URL

from relay.answering import Answering
from relay.delivery import Reply
from relay.destination import Limits, Outbound

LARGEST = 64 << 10
"""Bytes of a body that may be given to a connection in one go."""
_MOST_LINES = 1024
_MOST_DEADLINES = 64
_IDLE = 15.0  # seconds for which a connection is kept for another request


class _Line(ClientRequest):
    """What a connector wants to know, for all requests to one URL."""

    idle: deque[Lease] | None
    """Connections that wait for a request, who was used last last; shared by all lines of one connection key. None
    where nobody would look for them any more."""
    used = True
    """Whether it was, since the last sweep."""

    def free(self, now: float) -> Lease | None:
        """One that can be used."""
        if not self.idle:
            return None
        oldest = now - _IDLE  # which the sweep may not have come to yet
        while self.idle:
            lease = self.idle.pop()
            if lease.usable and lease.since > oldest:
                return lease
            lease.close()
        return None

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """Who may share a connection with it."""
        return super().connection_key

    @cached_property
    def opening(self) -> str:
        """The first lines of a request."""
        return f"POST {self.url.raw_path_qs} HTTP/1.1\r\nHost: {self.headers['Host']}\r\n"


class Answer(NamedTuple):
    """The head of an answer, and where its body comes from."""

    message: RawResponseMessage
    content: StreamReader
    lease: Lease

    def end(self) -> None:
        """Its connection is free for another request, but not where the answer was not read to its end."""
        self.lease.end(self.content.at_eof() and self.lease.usable)


class _Deadlines:
    """When the exchanges end at the latest that may all take equally long: who began first is due first. So one timer
    does for all of them; one for each would be a tenth of what an exchange costs."""

    __slots__ = ("_loop", "_once", "_running", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, once: bool = False) -> None:
        """`once`: for a single exchange."""
        self._loop = loop
        self._once = once
        self._seconds = seconds
        self._running: dict[Lease, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unused(self) -> bool:
        return self._timer is None

    def begin(self, lease: Lease, now: float) -> None:
        """An exchange begins."""
        self._running[lease] = deadline = now + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look)

    def end(self, lease: Lease) -> None:
        """It is over."""
        self._running.pop(lease, None)
        if self._once and self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        while self._running:
            lease, deadline = next(iter(self._running.items()))
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._look)
                return
            del self._running[lease]
            lease.protocol.expire()
        self._timer = None


class Lease:
    """A connection of the connector's, kept from one request to the next: to give it back and to ask for it again costs
    more than to send a request on it."""

    __slots__ = ("_connection", "_deadlines", "_line", "asked", "protocol", "since")

    asked: asyncio.Future[Reply | None]
    """All of a plain answer; None for another one, of which the head is to be read."""

    def __init__(self, connection: Connection, line: _Line) -> None:
        protocol = connection.protocol
        assert isinstance(protocol, Answering)
        self._connection = connection
        self._line = line
        self._deadlines: _Deadlines | None = None
        self.protocol = protocol
        self.since = 0.0
        """When it was last used, by the loop's clock."""

    @property
    def usable(self) -> bool:
        """Whether another request may be made: it is open, nothing has come on it that nobody asked for, and nothing of
        a request is left to be sent that was answered before it was read."""
        protocol = self.protocol
        transport = protocol.transport
        return (
            transport is not None
            and not transport.is_closing()
            and not protocol.should_close
            and not transport.get_write_buffer_size()
        )

    def ask(self, data: bytes, deadlines: _Deadlines, now: float) -> None:
        """Send a request. Past its deadline the answer, or its body, is a TimeoutError."""
        self._deadlines = deadlines
        deadlines.begin(self, now)
        try:
            self.asked = self.protocol.ask()
            transport = self.protocol.transport
            if transport is not None and not transport.is_closing():  # else reading says why it has ended
                transport.write(data)
        except BaseException:
            self.end(whole=False)
            raise

    async def head(self) -> Answer:
        """Read the head of an answer that is not a plain one."""
        while True:
            try:
                message, content = await self.protocol.read()
            except HttpProcessingError as error:
                raise aiohttp.ClientResponseError(
                    self._line.request_info, (), status=error.code, message=error.message, headers=error.headers
                ) from error
            if not 100 <= message.code <= 199 or message.code == 101:
                return Answer(message, content, self)

    def end(self, whole: bool) -> None:
        """The exchange is over, and another one may follow, or not. Whoever makes it looks whether it is usable still:
        after a plain answer it mostly is."""
        if self._deadlines is not None:
            self._deadlines.end(self)
        idle = self._line.idle
        if whole and idle is not None:
            del self.asked  # it may be large, and is not to wait for the next request
            self.since = self._line.loop.time()
            idle.append(self)
        else:
            self.close()

    def close(self) -> None:
        """What was not read to its end cannot be used again, and must not be read at all."""
        self._connection.close()


class Direct:
    """Plain POSTs by one session's connector."""

    def __init__(self, session: ClientSession, connector: BaseConnector) -> None:
        # Kept: to ask which loop runs is a call of the system each time, and was one part in thirty of an event.
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._connector = connector
        self._lines: dict[tuple[object, object], _Line] = {}
        self._idle: dict[ConnectionKey, deque[Lease]] = {}
        self._deadlines: dict[float, _Deadlines] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    @staticmethod
    def takes(request: Outbound) -> bool:
        """Whether a request is that plain. An idempotent one may be made twice, which is the session's business."""
        return request.method == "POST" and request.wire.proxy is None and len(request.body) <= LARGEST

    def ask(self, request: Outbound, tls: ssl.SSLContext | None, limits: Limits) -> Lease | None:
        """Make a request on a connection that is open; None where none is. Raises ValueError."""
        line = self._lines.get((request.url, tls)) or self._line(request.url, tls)
        line.used = True
        data = _head(line.opening, request) + request.body
        now = self._loop.time()
        lease = line.free(now)
        if lease is not None:
            lease.ask(data, self._deadlines.get(limits.total) or self._within(limits), now)
        return lease

    async def connect(self, request: Outbound, tls: ssl.SSLContext | None, limits: Limits) -> Lease:
        """Make it on a new one. Raises what a session raises."""
        line = self._line(request.url, tls)
        data = _head(line.opening, request) + request.body
        lease, left = await self._connected(line, limits)
        lease.ask(data, _Deadlines(self._loop, left, once=True), self._loop.time())
        return lease

    def _within(self, limits: Limits) -> _Deadlines:
        if limits.of is not None:  # some of the time has gone for a token, say: no other exchange has as much left
            return _Deadlines(self._loop, limits.total, once=True)
        if len(self._deadlines) >= _MOST_DEADLINES:  # of configs before, say
            self._deadlines = {known: each for known, each in self._deadlines.items() if not each.unused}
        made = self._deadlines[limits.total] = _Deadlines(self._loop, limits.total)
        return made

    async def _connected(self, line: _Line, limits: Limits) -> tuple[Lease, float]:
        """A new connection, and what time is left."""
        loop = self._loop
        deadline = loop.time() + limits.total
        try:
            async with asyncio.timeout_at(deadline):
                try:
                    connection = await self._connector.connect(line, [], _timeout(limits.connect))
                except TimeoutError as error:
                    raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {line.url}") from error
        finally:
            if self._sweeper is None:
                self._sweeper = loop.call_later(_IDLE, self._sweep)
        return Lease(connection, line), deadline - loop.time()

    def _line(self, url: URL, tls: ssl.SSLContext | None) -> _Line:
        key = url, tls
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _MOST_LINES:  # of destinations whose URL depends on the event
                self._forget()
            context = tls if tls is not None else True
            line = _Line("POST", url, session=self._session, loop=self._loop, ssl=context)
            line.idle = self._idle.setdefault(line.connection_key, deque())
            self._lines[key] = line
        return line

    def _sweep(self) -> None:
        """Close what has been idle for long, and let go of what nobody asks for any more: a TLS context is large, and
        whenever a certificate is renewed there is another one."""
        self._close_idle(self._loop.time() - _IDLE)
        for key, line in list(self._lines.items()):
            if not line.used and not line.idle:
                del self._lines[key]
                line.idle = None
            line.used = False
        known = {line.connection_key for line in self._lines.values()}
        for connection_key in self._idle.keys() - known:
            del self._idle[connection_key]
        self._sweeper = self._loop.call_later(_IDLE, self._sweep)

    def _close_idle(self, before: float) -> None:
        for idle in self._idle.values():
            while idle and idle[0].since <= before:
                idle.popleft().close()

    def _forget(self) -> None:
        """Close what is idle; what is in use closes at its end."""
        self._close_idle(float("inf"))
        for line in self._lines.values():
            line.idle = None
        self._lines.clear()
        self._idle.clear()

    def close(self) -> None:
        """Keep no connection from now on."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._forget()


def _head(opening: str, request: Outbound) -> bytes:
    """The head of a request. Raises ValueError where a name or value would make it another one."""
    headers, heading = request.headers, request.heading
    length = f"Content-Length: {len(request.body)}\r\n\r\n"
    if heading is None:
        text = f"{_lines(headers)}{length}"
    else:
        if heading.lines is None:
            heading.lines = _lines(heading.before), _lines(heading.after)
        before, after = heading.lines
        at = len(heading.before)
        own, moment, *signatures = _said([headers[at], headers[at + 1], *headers[heading.length :]])
        end = "\r\n".join((*signatures, length))
        text = f"{before}{own}\r\n{moment}\r\n{after}{end}"
    return f"{opening}{text}".encode()


def _said(headers: Sequence[tuple[str, str]]) -> list[str]:
    """Each as a line, without its end."""
    lines = [f"{name}: {value}" for name, value in headers]
    text = "".join(lines)
    if "\n" in text or "\r" in text or "\0" in text:  # a third of the time that it takes to count them
        raise ValueError("a header holds a line's end, or a NUL")
    return lines


def _lines(headers: Sequence[tuple[str, str]]) -> str:
    return "".join([f"{line}\r\n" for line in _said(headers)])


@lru_cache(256)
def _timeout(connect: float) -> ClientTimeout:
    return ClientTimeout(total=None, connect=connect, ceil_threshold=3600)
