"""A plain POST on a connection of aiohttp's pool: a head that is mostly ready, one write, aiohttp's own parser.

It is what nearly every attempt is. aiohttp's ClientSession does the same and costs twice as much processor time, for
what is never asked of it here: cookies, redirects, uploads, proxies. What is not a plain POST goes by the session still
(`relay.client`); both use the same connector, protocol, limits and errors, and are held to the same tests.
"""

from __future__ import annotations

import asyncio
from functools import cached_property, lru_cache
from typing import NamedTuple

import aiohttp
from aiohttp import BaseConnector, ClientRequest, ClientSession, ClientTimeout, StreamReader
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage

from relay.destination import Outbound

LARGEST = 64 << 10
"""Bytes of a body that may be given to a connection in one go."""
_MOST_LINES = 1024


class _Line(ClientRequest):
    """What a connector wants to know, for all requests to one URL."""

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
    connection: Connection

    def end(self) -> None:
        """What was not read to its end cannot be used again, and must not be read at all."""
        if self.content.at_eof():
            self.connection.release()
        else:
            self.connection.close()


class Direct:
    """Plain POSTs by one session's connector."""

    def __init__(self, session: ClientSession, connector: BaseConnector) -> None:
        self._session = session
        self._connector = connector
        self._lines: dict[tuple[object, object], _Line] = {}

    @staticmethod
    def takes(request: Outbound) -> bool:
        """Whether a request is that plain. An idempotent one may be made twice, which is the session's business."""
        return request.method == "POST" and request.wire.proxy is None and len(request.body) <= LARGEST

    async def send(self, request: Outbound, connect: float) -> Answer:
        """Make a request; `end` what comes of it. Raises what a session raises, but knows no total limit."""
        line = self._line(request)
        data = _head(line.opening, request.headers, len(request.body)) + request.body
        try:
            connection = await self._connector.connect(line, [], _timeout(connect))
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {line.url}") from error
        try:
            return await _exchanged(connection, line, data)
        except BaseException:
            connection.close()
            raise

    def _line(self, request: Outbound) -> _Line:
        key = request.url, request.wire.tls
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _MOST_LINES:  # of destinations whose URL depends on the event
                self._lines.clear()
            tls = request.wire.tls if request.wire.tls is not None else True
            line = _Line("POST", request.url, session=self._session, loop=asyncio.get_running_loop(), ssl=tls)
            self._lines[key] = line
        return line


async def _exchanged(connection: Connection, line: _Line, data: bytes) -> Answer:
    protocol = connection.protocol
    assert protocol is not None
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    if protocol.transport is not None and not protocol.transport.is_closing():  # else reading says why it has ended
        protocol.transport.write(data)
    while True:
        try:
            message, content = await protocol.read()
        except HttpProcessingError as error:
            raise aiohttp.ClientResponseError(
                line.request_info, (), status=error.code, message=error.message, headers=error.headers
            ) from error
        if not 100 <= message.code <= 199 or message.code == 101:
            return Answer(message, content, connection)


def _head(opening: str, headers: list[tuple[str, str]], length: int) -> bytes:
    """The head of a request. Raises ValueError where a name or value would make it another one."""
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise ValueError("a header holds a line's end, or a NUL")
    return f"{opening}{text}Content-Length: {length}\r\n\r\n".encode()


@lru_cache(256)
def _timeout(connect: float) -> ClientTimeout:
    return ClientTimeout(total=None, connect=connect, ceil_threshold=3600)
