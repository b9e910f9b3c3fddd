"""Bounds on heads, and on what else comes beside bodies, lines of chunks and trailers: it lies in memory outside the
budget of all bodies.

aiohttp's parser bounds each line of a head and how many there are, which makes 2 MiB, and keeps the last head of a
connection until the next one: of an idle connection, as long as it is idle. So who sends more than anybody needs is
refused, and who sends much more than is usual is answered, and not heard any more.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

MOST = 64 << 10
"""Bytes of a head, and of what comes beside a body. Senders send a tenth of it; proxies pass on half of it at most."""
_USUAL = 16 << 10
_SHARE = 4  # a line for every few bytes of a body is odd, but no attack


class Bounded(RequestHandler):
    """aiohttp's connection, with bounds on what comes beside bodies."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.enough = False
        """Whether the answer to the last of what has come is to be the last one: nothing else is heard."""
        self._beside = 0  # bytes since the last complete head, but for those of its body
        self._body: StreamReader | None = None  # which is still coming
        self._deaf = False

    def data_received(self, data: bytes) -> None:
        if self._body is not None or self._beside + len(data) > _USUAL or not data:
            self._take_much(data)
            return
        known = self._request_count
        super().data_received(data)
        if self._request_count == known:
            self._beside += len(data)
        else:  # what follows the last head in the same piece is not counted: it is little
            self._beside = 0
            body = self._messages[-1][1]
            if not body.is_eof():
                self._body = body

    def _take_much(self, data: bytes) -> None:
        """Take it in pieces, so that what is too much is found before all of it lies in the parser. Where it is
        nothing the parser is to go on with what it has held back: nobody knows how much that is."""
        at = 0
        while not self._deaf:
            piece = data[at : at + MOST]
            if self._body is None:
                self._take_head(piece)
            else:
                self._take_body(self._body, piece)
            # A head may have begun a piece later than is counted. Once it is complete it is weighed. And while reading
            # is paused the parser may hold back some of a body, which is counted when it goes on.
            most = 2 * MOST if self._body is None else MOST + self._body.total_bytes // _SHARE
            if self._beside > most and not self._reading_paused:
                self._refuse()
            at += MOST
            if at >= len(data):
                return

    def _take_head(self, piece: bytes) -> None:
        known = self._request_count
        super().data_received(piece)
        new = self._request_count - known
        self._beside = self._beside + len(piece) if piece else max(self._beside, _USUAL + 1)
        if new:
            if self._beside > _USUAL:
                self._weigh(new)
            self._go_on(self._messages[-1][1], piece)

    def _take_body(self, body: StreamReader, piece: bytes) -> None:
        known, had = self._request_count, body.total_bytes
        super().data_received(piece)
        # That may be more than has come: some of it may have been held back, and the admin side decodes it.
        self._beside = max(0, self._beside + len(piece) - (body.total_bytes - had))
        self.enough |= self._beside > _USUAL and not self._reading_paused
        if self._request_count != known:
            self._go_on(self._messages[-1][1], piece)
        elif body.is_eof():
            self._go_on(EMPTY_PAYLOAD, piece)

    def _go_on(self, body: StreamReader, piece: bytes) -> None:
        """A head or a body has ended in this piece: this body is coming now, or a head, which may have begun in it."""
        if self._deaf:
            return
        if body.is_eof():
            self._body, self._beside = None, len(piece) or _USUAL + 1
            if self.enough:
                self._hear_no_more()
        else:
            self._body, self._beside = body, 0

    def _weigh(self, count: int) -> None:
        """Look at the heads of the last so many requests, each of which may be large."""
        for place in range(len(self._messages) - count, len(self._messages)):
            head = self._messages[place][0]
            if isinstance(head, _ErrInfo):
                continue
            size = sum(map(len, chain.from_iterable(head.raw_headers)))
            if size > MOST:
                for _ in range(len(self._messages) - place):
                    self._messages.pop()
                self._body = None
                self._refuse()
                return
            self.enough |= size > _USUAL

    def _refuse(self) -> None:
        fault = BadHttpMessage("more comes beside bodies than anybody needs")
        if self._body is not None:
            self._body.set_exception(web.RequestPayloadError(fault.message))
        else:
            self._request_count += 1
            self._messages.append((_ErrInfo(status=400, exc=fault, message=fault.message), EMPTY_PAYLOAD))
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
        self._hear_no_more()

    def _hear_no_more(self) -> None:
        self.enough = self._deaf = True
        self._beside = 2 * MOST  # so that `data_received` looks here
