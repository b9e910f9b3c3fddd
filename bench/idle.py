"""Senders that stay connected: each posts an event now and then, and is silent in between."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from bench.senders import TOKEN, fresh, strapi

_AT_ONCE = 64
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PATIENCE = 30.0


class Idle:
    """Their connections."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {TOKEN}\r\nX-Strapi-Event: entry.publish\r\n"
        )
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect(self, count: int) -> None:
        """So many more."""
        self._streams += [await asyncio.open_connection(self._host, self._port) for _ in range(count)]

    async def post(self) -> int:
        """An event on each of them, some at once; how many that are. Raises where one is not answered with 200."""
        first = fresh()
        async with asyncio.timeout(_PATIENCE):
            for start in range(0, len(self._streams), _AT_ONCE):
                some = self._streams[start : start + _AT_ONCE]
                async with asyncio.TaskGroup() as group:
                    for number, (reader, writer) in enumerate(some, first + start):
                        group.create_task(self._exchange(number, reader, writer))
        return len(self._streams)

    def lost(self) -> int:
        """How many the other side has closed."""
        return sum(reader.at_eof() or writer.is_closing() for reader, writer in self._streams)

    async def _exchange(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = strapi(number)
        writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise RuntimeError(f"answered {head[:200]!r}")
        await reader.readexactly(int(length[1]))

    def close(self) -> None:
        """End all of them."""
        for _, writer in self._streams:
            writer.close()
        self._streams.clear()


@contextlib.asynccontextmanager
async def idle(url: str) -> AsyncIterator[Idle]:
    """None at first."""
    made = Idle(url)
    try:
        yield made
    finally:
        made.close()
