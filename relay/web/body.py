"""Reading a request's body: bounded in size, in time, and over all requests; `Content-Encoding` undone with a bound."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from relay.limits import ByteBudget
from relay.web.refusal import Refusal
from relay.web.swift import Asked

_MOST_MEMBERS = 64  # gzip members in one body: senders make one, and each costs a copy of the rest


class read:  # noqa: N801 - used as a statement
    """The decoded body, counted against the budget of all bodies in memory for as long as the context is open.

    Raises Refusal: too large (before or after decoding), too slow, in an unknown encoding, or broken.
    """

    __slots__ = ("_budget", "_held", "_limit", "_request", "_seconds")

    def __init__(self, request: Asked, limit: int, seconds: float, budget: ByteBudget) -> None:
        self._request = request
        self._limit = limit
        self._seconds = seconds
        self._budget = budget
        self._held = 0

    async def __aenter__(self) -> bytes:
        request = self._request
        try:
            if request.content.is_eof() and "Content-Encoding" not in request.headers:
                return self._at_hand(request.content)
            return await self._read()
        except BaseException:
            self._budget.give_back(self._held)
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._budget.give_back(self._held)

    async def _read(self) -> bytes:
        request, limit = self._request, self._limit
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise Refusal(415, "unsupported_encoding", f"Content-Encoding {encoding[:40]!r} is not supported")
        content = request.content
        if content.is_eof():
            body = self._at_hand(content)
        else:
            if int(request.headers.get("Content-Length", "0")) > limit:
                raise _too_large(limit)
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.go_on()
            body = await self._collected(content)
        if encoding in ("gzip", "x-gzip", "deflate"):
            encoded = len(body)
            body = _decoded(body, encoding, limit)
            self._take(max(0, len(body) - encoded))
        return body

    def _at_hand(self, content: StreamReader) -> bytes:
        """What came in one piece with its head: the usual case, in which no timer is needed."""
        body = content.read_nowait()
        self._take(len(body))
        if len(body) > self._limit:
            raise _too_large(self._limit)
        return body

    async def _collected(self, content: StreamReader) -> bytes:
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(self._seconds):
                async for piece in content.iter_any():
                    self._take(len(piece))
                    pieces.append(piece)
                    if self._held > self._limit:
                        raise _too_large(self._limit)
        except TimeoutError:
            raise Refusal(408, "timeout", f"the body did not arrive within {self._seconds:g} s") from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise Refusal(400, "malformed_body", "the body's framing is broken", detail="broken framing") from None
        return b"".join(pieces)

    def _take(self, size: int) -> None:
        if not self._budget.take(size):
            raise Refusal(503, "unavailable", None, retry_after=1)
        self._held += size


def _too_large(limit: int) -> Refusal:
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
            raise _too_large(limit)
        if not decoder.eof:
            raise zlib.error("it ends too early")
        rest = decoder.unused_data
        if not rest:
            return bytes(whole)
    raise zlib.error("too many members")
