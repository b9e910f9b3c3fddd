"""Connections of both sides: plain requests answered past aiohttp's own loop, bounds on heads that take long, on
answers that are not taken, and on how many may be connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from relay import ceilings, journal
from relay.web.heads import Bounded
from relay.web.swift import Answer, Plain, plain

IDLE = 75.0  # seconds; longer than proxies keep theirs, so that they close first
_MOST_HEADER = 16 << 10
_IN_A_ROW = 16  # answers to one connection before the others have their turn
_UNTAKEN = 30.0  # seconds in which somebody reads some of an answer
_LEAVING = 10.0  # seconds for the rest of what was to be sent, when a connection has been closed
_AFTER_ALL = 0.1  # seconds for what has had its time
_MALFORMED = b'{"error":"malformed_body"}'
_INTERNAL = b'{"error":"internal_error"}'

# aiohttp logs each request that is not HTTP as an error with its traceback: an invitation to fill the disk.
quiet = logging.getLogger("relay.http")
quiet.addHandler(logging.NullHandler())
quiet.propagate = False
quiet.setLevel(logging.CRITICAL)


class Connected(Protocol):
    """Who is connected, from the first moment on: a connection, or a handshake that will be one."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered here."""
        ...

    @property
    def leaving(self) -> bool:
        """Whether it has been closed, and waits until its last words are taken."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether the body of its request is still to come."""
        ...

    def close(self) -> None:
        """End it, after its answer where one is being made."""

    def abort(self) -> None:
        """End it at once, whatever is still to be written."""


class Connection(Bounded):
    """aiohttp's connection, closed when a request's head is not complete in time, or an answer is not taken: only idle
    ones may wait long, and only after a first request."""

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._head_timer: asyncio.TimerHandle | None = None
        self._untaken_timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Transport | None = None
        self._unsent = 0  # bytes, when that was looked at last

    @property
    def leaving(self) -> bool:
        """See Connected."""
        return self._leaving is not None

    @property
    def waiting(self) -> bool:
        """See Connected."""
        return self._body is not None

    @property
    def idle(self) -> bool:
        """See Connected."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def _parts(self) -> bool:
        """Whether the answer that is being made is the last one: none of what has come waits for another."""
        return (self._server.parting or self.enough) and not self._messages

    async def start(self) -> None:
        """aiohttp's own loop, which begins where the plain requests end."""
        handle = self._server.plain
        if handle is None or await self._answer_plain(handle):
            await super().start()
        if self.transport is not None:  # either loop has closed it
            self._see_off(self.transport)

    async def _answer_plain(self, handle: Callable[[Plain], Awaitable[Answer]]) -> bool:
        """Answer one plain request after another, as aiohttp's loop would; True when another kind is next.

        The loop makes a task for each, a request, a writer and a response. Its parser, limits and timers are kept.
        """
        loop, is_plain = self._loop, self._server.is_plain
        in_a_row = 0
        while not (self._force_close or self._close):
            if not self._messages:
                in_a_row = 0
                self._waiter = loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, content = self._messages[0]
            if isinstance(message, _ErrInfo) or not is_plain(message, content):
                return True
            self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            self._request_in_progress = True
            try:
                answer = await handle(Plain(message, content, self._remote))
            except asyncio.CancelledError:
                self.force_close()
                raise
            except Exception:  # noqa: BLE001 - a bug of ours: aiohttp's loop answers so as well
                journal.crashed("ingest")
                answer = Answer(500, _INTERNAL, close=True)
            finally:
                self._request_in_progress = False
                if self._handler_waiter is not None:
                    self._handler_waiter.set_result(None)
            del message, content  # with a body that nobody asked for: the next request may be long in coming
            transport = self.transport
            if transport is None:
                return False  # the sender went away
            going_on = not (answer.close or self._close or self._force_close or self._parts)
            transport.write(answer.wire(going_on))
            del answer  # as the request: a body of some bytes may keep 4 KiB (see `logline.at_once`)
            if self._paused:
                try:
                    await self._drain_helper()
                except ConnectionError:
                    return False
            if not going_on:
                break
            self._next_keepalive_close_time = loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
            in_a_row += 1
            if in_a_row >= _IN_A_ROW:  # a refusal waits for nothing: thousands of them may come in one piece
                in_a_row = 0
                await asyncio.sleep(0)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()
        return False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """aiohttp's loop keeps an answer until the next one, however long that is in coming."""
        if self._parts and isinstance(resp, web.StreamResponse):
            resp.force_close()
        sent, reset = await super().finish_response(request, resp, start_time)
        if isinstance(sent, web.Response):
            sent.body = None
        return sent, reset

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, (list, tuple)) else None
        self._head_timer = self._loop.call_later(self._server.head_timeout, self._too_slow)
        self._server.make_room(self)
        if self._task_handler is not None:
            self._task_handler.add_done_callback(self._ended)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._untaken_timer is None:
            self._untaken_timer = self._loop.call_later(_UNTAKEN, self._untaken)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.leaving:
            self._cancel_untaken()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks for it after each piece that is read, and would have its parser look for more each time."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        everyone = self._server.open
        if self in everyone:  # one that had to leave may still say something
            everyone.move_to_end(self)
        super().data_received(data)
        waiter = self._waiter
        if waiter is None or waiter.done():  # it is not idle
            if self._head_timer is not None:
                self._cancel_head()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self._server.head_timeout, self._too_slow)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._server.left(self)
        self._cancel_head()
        self._cancel_untaken()
        self._leaving = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp would send back what it could not read, however long, and say which versions are at work."""
        super().handle_error(request, status, exc, message)  # which raises where an answer has already begun
        refused = self.refusal(status)
        refused.force_close()
        return refused

    def refusal(self, status: int) -> web.Response:
        """The answer to what is not HTTP, or to what a bug has spoilt."""
        body = _MALFORMED if status == 400 else _INTERNAL
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json", "Server": "relay"})

    def close(self) -> None:
        """Answer what is being answered, and no more. aiohttp leaves an idle one open until the server is shut down, as
        long as attempts have to finish: who sends on it would wait for nothing."""
        if self.idle:
            self.force_close()
        else:
            super().close()

    def force_close(self) -> None:
        """Close it; aiohttp forgets it then."""
        transport = self.transport
        super().force_close()
        if transport is not None:
            self._see_off(transport)

    def abort(self) -> None:
        """End it at once, whatever is still to be written."""
        transport = self.transport or self._leaving
        if transport is not None:
            with contextlib.suppress(AttributeError):  # asyncio's own TLS, of one that was closed twice
                transport.abort()

    def _see_off(self, transport: asyncio.Transport) -> None:
        """What is closed stays until all is sent that was to be: where a peer reads nothing, as long as that peer
        lives. It has some seconds for half of it, or less where its place is needed."""
        self._cancel_untaken()
        self._unsent = _unsent(transport)
        self._untaken_timer = self._loop.call_later(_LEAVING, self._untaken)
        self._leaving = transport
        self._server.leaves(self)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Where aiohttp's own loop has come to grief over a request, nobody would ever close the connection."""
        if not task.cancelled() and task.exception() is not None:
            self.abort()

    def _too_slow(self) -> None:
        self._head_timer = None
        self.force_close()

    def _cancel_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _untaken(self) -> None:
        """What nobody reads takes up memory for as long as it waits."""
        self._untaken_timer = None
        if self._leaving is not None and 0 < 2 * (left := _unsent(self._leaving)) <= self._unsent:
            self._unsent = left
            self._untaken_timer = self._loop.call_later(_LEAVING, self._untaken)
        else:
            self.abort()

    def _cancel_untaken(self) -> None:
        if self._untaken_timer is not None:
            self._untaken_timer.cancel()
            self._untaken_timer = None


def _unsent(transport: asyncio.Transport) -> int:
    """How many bytes it has still to send; asyncio's own TLS does not know that of one that was closed."""
    with contextlib.suppress(AttributeError):
        return transport.get_write_buffer_size()
    return 0


class Server(web.Server):
    """Makes such connections, and keeps no more than so many of them."""

    head_timeout = 10.0
    most = 1 << 20
    plain: Callable[[Plain], Awaitable[Answer]] | None = None
    """Who answers plain requests, if not all go the same way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.open: OrderedDict[Connected, None] = OrderedDict()  # who was heard last is last
        self.is_plain: Callable[[RawRequestMessage, StreamReader], bool] = plain
        """Which requests go that way."""
        self.parting = False
        """Whether each connection ends with its next answer."""
        self._emptied: asyncio.Future[None] | None = None

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def make_room(self, newcomer: Connected) -> None:
        """Descriptors are one pool: who holds many connections must take them neither from the store and the
        destinations, nor from other senders. So the one that has been silent for longest goes; where all are being
        answered, one that has been silent in the midst of its body; the newcomer where there is none."""
        self.open[newcomer] = None
        if len(self.open) > self.most:
            ousted = next((one for one in self.open if one.leaving or one.idle), None)
            if ousted is None:
                ousted = next((one for one in self.open if one.waiting), newcomer)
            del self.open[ousted]
            ousted.abort()

    def leaves(self, connection: Connected) -> None:
        """A connection is closed, and the first to make room: it may have more to send than its peer will ever take."""
        if connection in self.open:
            self.open.move_to_end(connection, last=False)

    def left(self, connection: Connected) -> None:
        """A connection is gone."""
        self.open.pop(connection, None)
        if self._emptied is not None and not (self.open or self._emptied.done()):
            self._emptied.set_result(None)

    def pre_shutdown(self) -> None:
        """Close idle connections. aiohttp would read nothing more of the others, and those that part while a body is
        still coming would have no answer."""
        for each in list(self.open):
            if each.idle or not self.parting:
                each.close()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Those that part have so many seconds for their last answer; all others as aiohttp does it."""
        if self.parting and self.open:
            self._emptied = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._emptied
            timeout = _AFTER_ALL
        await super().shutdown(timeout)


def ingest_server(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    handle_plain: Callable[[Plain], Awaitable[Answer]],
    head_timeout: float,
    secure: bool = False,
) -> Server:
    """The public side's server, over TLS or not: bodies as they come, heads within `head_timeout` seconds, no access
    log."""
    server = Server(
        handle,
        auto_decompress=False,
        access_log=None,
        logger=quiet,
        keepalive_timeout=IDLE,
        lingering_time=2.0,
        max_line_size=8190,
        max_field_size=_MOST_HEADER,
    )
    server.plain = handle_plain
    server.head_timeout = head_timeout
    server.most = ceilings.connections(secure)
    return server
