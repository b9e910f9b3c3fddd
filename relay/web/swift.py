"""Requests and answers without what aiohttp wraps around them, which costs as much as all that relay does with one.

A plain request is what senders send: a POST by HTTP/1.1 whose body came with its head. `relay.web.server` takes such
ones from aiohttp's own parser and writes their answers in one piece; whatever else comes goes through aiohttp.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol

from aiohttp import HttpVersion, HttpVersion11, StreamReader, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDictProxy

from relay.immutable import immutable

_JSON = {"Content-Type": "application/json", "Server": "relay"}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Asked(Protocol):
    """A request: what the public side wants to know of it."""

    @property
    def method(self) -> str: ...

    @property
    def version(self) -> HttpVersion: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...

    @property
    def path(self) -> str:
        """As it was sent, without its query."""
        ...

    @property
    def remote(self) -> str | None:
        """The peer's address; None on a unix socket."""
        ...

    @property
    def content(self) -> StreamReader: ...

    async def go_on(self) -> None:
        """Have the sender send its body: it asked whether it may."""
        ...


class Plain:
    """A plain request."""

    __slots__ = ("content", "headers", "message", "remote")

    method = "POST"
    version = HttpVersion11

    def __init__(self, message: RawRequestMessage, content: StreamReader, remote: str | None) -> None:
        self.message = message
        self.headers = message.headers
        self.content = content
        self.remote = remote

    @property
    def path(self) -> str:
        return self.message.url.raw_path

    async def go_on(self) -> None:
        """It has sent it already."""


class Wrapped:
    """One of aiohttp's."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.method = request.method
        self.version = request.version
        self.headers = request.headers
        self.path = request.rel_url.raw_path
        self.remote = request.remote
        self.content = request.content

    async def go_on(self) -> None:
        await self._request.writer.write(_CONTINUE)
        self._request.writer.output_size = 0


@immutable
class Answer:
    """JSON to a request of the public side."""

    status: int
    body: bytes
    headers: Mapping[str, str] | None = None
    close: bool = False
    """Whether the connection ends with it."""

    def wire(self, keep_alive: bool) -> bytes:
        """All of it, to a plain request."""
        length, date = len(self.body), rfc822_formatted_time()
        if self.headers is None and keep_alive and not self.close:
            return _usual_head(self.status, length, date) + self.body
        lines = "" if self.headers is None else "".join([f"{name}: {each}\r\n" for name, each in self.headers.items()])
        return _head(self.status, length, date, lines, keep_alive and not self.close) + self.body

    def wrapped(self) -> web.Response:
        """The same for aiohttp."""
        headers = _JSON if self.headers is None else {**_JSON, **self.headers}
        response = web.Response(status=self.status, body=self.body, headers=headers)
        if self.close:
            response.force_close()
        return response


def plain(message: RawRequestMessage, content: StreamReader) -> bool:
    """Whether a request is that plain, and may be followed by others."""
    return (
        message.method == "POST"
        and message.path.startswith("/")  # else it names a host as well
        and content.is_eof()
        and message.version is HttpVersion11
        and not (message.chunked or message.upgrade or message.should_close)
        and content.exception() is None
    )


def _head(status: int, length: int, date: str, lines: str = "", keep_alive: bool = True) -> bytes:
    own = "".join([f"{name}: {value}\r\n" for name, value in _JSON.items()])
    end = "" if keep_alive else "Connection: close\r\n"
    start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    return f"{start}{own}{lines}Content-Length: {length}\r\nDate: {date}\r\n{end}\r\n".encode()


_usual_head = lru_cache(32)(_head)  # of one second: most answers are of the same few lengths
