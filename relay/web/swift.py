"""An answer that is written in one piece: aiohttp's own way of making a head costs as much as reading the request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

_JSON = {"Content-Type": "application/json", "Server": "relay"}


class Answer(web.Response):
    """JSON to a request of the public side. To HEAD, and to HTTP/1.0, aiohttp answers as ever."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status=status, body=body, headers=_JSON if headers is None else {**_JSON, **headers})

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self._eof_sent or self.prepared or request.version != HttpVersion11 or request.method == "HEAD":
            return await super().prepare(request)
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        body = self.body
        assert isinstance(body, bytes)
        lines = [f"{name}: {value}\r\n" for name, value in self.headers.items() if name not in _JSON]
        end = "\r\n" if self._keep_alive else "Connection: close\r\n\r\n"
        told = f"{_start(self.status)}{''.join(lines)}Content-Length: {len(body)}\r\n"
        told += f"Date: {rfc822_formatted_time()}\r\n{end}"
        self._eof_sent = True  # `write_eof` has nothing left to do
        await request.writer.write(told.encode() + body)
        return None


@lru_cache(64)
def _start(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n" + "".join(
        [f"{name}: {value}\r\n" for name, value in _JSON.items()]
    )
