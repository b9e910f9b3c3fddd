"""A connection on which answers come: aiohttp's protocol within bounds, and a short way for a plain answer."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import _EXC_SENTINEL
from aiohttp.http import HttpProcessingError, RawResponseMessage

from relay.delivery import Reply
from relay.plainanswer import plain

_MOST_ANSWERS = 32  # to one request, unread: all but the last are interim ones


class Answering(ResponseHandler):
    """What aiohttp 3.14 leaves without a bound, or a reason; and a short way for a plain answer."""

    _asked: asyncio.Future[Reply | None] | None = None
    """Of whoever waits for the first piece of an answer."""
    _over = False
    """A plain answer was the last that anyone waits for: no parser is there for what comes now."""

    def ask(self) -> asyncio.Future[Reply | None]:
        """Have the next answer read, by a parser of its own: part of an answer that nobody asked for would be read as
        the beginning of this one. What the future tells is the answer if it is a plain one, else None: then it is to be
        read as aiohttp has it."""
        self._asked = asked = self._loop.create_future()
        if self._tail or self._buffer or self._eof:
            self._parse()
            self._tell(None)
        else:
            self._parser, self._over = None, False
        return asked

    def _parse(self) -> None:
        self.set_response_params(read_until_eof=True, auto_decompress=False)

    def _tell(self, answer: Reply | None) -> None:
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

    def close(self) -> None:
        """What was to be sent is of no use any more. A transport that is closed would wait until it is gone: where a
        peer reads nothing, as long as that peer lives."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """A body in which a chunk is malformed is forgotten: whoever reads it would wait until the deadline."""
        body = self._payload
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the body is cut off"))
