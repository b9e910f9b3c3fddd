"""Reading a request's body: bounded in size, in time, and over all requests; `Content-Encoding` undone with a bound."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from relay.limits import ByteBudget
from relay.web.refusal import Refusal
from relay.web.swift import Asked

_AS_IT_IS = ("identity",)
_SMALL = 64 << 10
_MOST_MEMBERS = 64  # gzip members in one body: senders make one, and each costs a copy of the rest


def at_hand(request: Asked, limit: int, budget: ByteBudget) -> tuple[bytes, int] | None:
    """The body that came with its head and is not encoded, as nearly all are, without what it takes to wait for one;
    else None: `read` it. What it says, and raises, is the same."""
    content = request.content
    if not content.is_eof() or hdrs.CONTENT_ENCODING in request.headers:
        return None
    size = content.total_bytes
    if 0 < size <= _SMALL and len(content._buffer) == 1:
        # aiohttp's read_nowait() takes it out in five calls, for 4 thousand instructions more. For so small a body
        # reading is never paused, so that nothing waits to be told that it was taken out. But out it must be: a
        # connection that waits for its next request still has the last one's reader, for as long as it is idle.
        body = content._buffer.popleft()
        content._size = 0
    else:
        body = content.read_nowait()
        size = len(body)
    if not budget.take(size):
        raise _no_room()
    if size > limit:
        budget.give_back(size)
        raise too_large(limit)
    return body, size


async def read(request: Asked, limit: int, seconds: float, budget: ByteBudget) -> tuple[bytes, int]:
    """The decoded body, and how much of the budget of all bodies in memory was taken for it: it is to be given back
    when the body is no longer needed.

    Raises Refusal: too large (before or after decoding), too slow, in an unknown encoding, or broken.
    """
    reading = _Reading(request, limit, seconds, budget)
    try:
        return await reading.decoded(), reading.held
    except BaseException:
        budget.give_back(reading.held)
        raise


class _Reading:
    """The reading of one body."""

    __slots__ = ("_budget", "_limit", "_request", "_seconds", "held")

    def __init__(self, request: Asked, limit: int, seconds: float, budget: ByteBudget) -> None:
        self._request = request
        self._limit = limit
        self._seconds = seconds
        self._budget = budget
        self.held = 0

    async def decoded(self) -> bytes:
        request, limit = self._request, self._limit
        content = request.content
        whole = content.read_nowait() if content.is_eof() else None
        size = len(whole) if whole is not None else int(request.headers.get("Content-Length", "0"))
        if size > limit:
            raise too_large(limit)
        # What could not be decoded is not waited for, though it may turn out to be too large.
        # Lines of the same name are one list (RFC 9110, 5.3): what was encoded twice is not taken for once.
        encoding = ", ".join(request.headers.getall("Content-Encoding", _AS_IT_IS)).strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise Refusal(415, "unsupported_encoding", f"Content-Encoding {encoding[:40]!r} is not supported")
        if whole is not None:
            self._take(size)
            body = whole
        else:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.go_on()
            body = await self._collected(content)
        if encoding in ("gzip", "x-gzip", "deflate"):
            encoded = len(body)
            body = _decoded(body, encoding, limit)
            self._take(max(0, len(body) - encoded))
        return body

    async def _collected(self, content: StreamReader) -> bytes:
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(self._seconds):
                async for piece in content.iter_any():
                    self._take(len(piece))
                    pieces.append(piece)
                    if self.held > self._limit:
                        raise too_large(self._limit)
        except TimeoutError:
            raise Refusal(408, "timeout", f"the body did not arrive within {self._seconds:g} s") from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise Refusal(400, "malformed_body", "the body's framing is broken", detail="broken framing") from None
        return b"".join(pieces)

    def _take(self, size: int) -> None:
        if not self._budget.take(size):
            raise _no_room()
        self.held += size


def _no_room() -> Refusal:
    return Refusal(503, "unavailable", None, retry_after=1)


def too_large(limit: int) -> Refusal:
    """What a sender is told whose body is larger than this."""
    return Refusal(413, "too_large", f"the body is larger than max_body ({limit} bytes)")


def _decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo gzip (also of several members) or deflate (zlib, or raw as some senders do), never past `limit`."""
    try:
        if encoding == "deflate":
            try:
                return _inflate(body, zlib.MAX_WBITS, limit)
            except zlib.error:
                return _inflate(body, -zlib.MAX_WBITS, limit)
        return _inflate(body, 16 + zlib.MAX_WBITS, limit)
    except zlib.error as error:
        raise Refusal(400, "malformed_body", f"the body is not {encoding}: {error}", detail=f"not {encoding}") from None


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    whole = bytearray()
    rest = body
    for _ in range(_MOST_MEMBERS):
        decoder = zlib.decompressobj(window)
        whole += decoder.decompress(rest, limit + 1 - len(whole))
        if len(whole) > limit:
            raise too_large(limit)
        if not decoder.eof:
            raise zlib.error("it ends too early")
        rest = decoder.unused_data
        if not rest:
            return bytes(whole)
    raise zlib.error("too many members")
