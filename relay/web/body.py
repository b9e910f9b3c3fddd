"""Reading a request's body: bounded in size, in time, and over all requests; `Content-Encoding` undone with a bound."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.limits import ByteBudget
from relay.web.refusal import Refusal

_MOST_MEMBERS = 64  # gzip members in one body: senders make one, and each costs a copy of the rest


@asynccontextmanager
async def read(request: web.BaseRequest, limit: int, seconds: float, budget: ByteBudget) -> AsyncIterator[bytes]:
    """The decoded body, counted against the budget of all bodies in memory for as long as the context is open.

    Raises Refusal: too large (before or after decoding), too slow, in an unknown encoding, or broken.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise Refusal(415, "unsupported_encoding", f"Content-Encoding {encoding[:40]!r} is not supported")
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    held = 0
    try:
        content = request.content
        if content.is_eof():  # it came in one piece with its head: the usual case, and no timer is needed
            body = content.read_nowait()
            held = _take(budget, len(body))
            if len(body) > limit:
                raise _too_large(limit)
        else:
            pieces: list[bytes] = []
            try:
                async with asyncio.timeout(seconds):
                    async for piece in content.iter_any():
                        held += _take(budget, len(piece))
                        pieces.append(piece)
                        if held > limit:
                            raise _too_large(limit)
            except TimeoutError:
                raise Refusal(408, "timeout", f"the body did not arrive within {seconds:g} s") from None
            except (web.RequestPayloadError, HttpProcessingError):
                raise Refusal(400, "malformed_body", "the body's framing is broken", detail="broken framing") from None
            body = b"".join(pieces)
            pieces.clear()  # one copy of a body is what was counted
        if encoding in ("gzip", "x-gzip", "deflate"):
            encoded = len(body)
            body = _decoded(body, encoding, limit)
            held += _take(budget, max(0, len(body) - encoded))
        yield body
    finally:
        budget.give_back(held)


def _take(budget: ByteBudget, size: int) -> int:
    if not budget.take(size):
        raise Refusal(503, "unavailable", None, retry_after=1)
    return size


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
