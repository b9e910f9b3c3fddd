"""A sender that keeps a pace, whatever became of the events before: for how long an event takes.

    python -m bench.paced URL RATE SECONDS FIRST FILE

It is a process of its own, without aiohttp: each connection writes a request that was made beforehand. No event waits
in it: where all connections are busy, another is made. FILE gets a line for each event: its number, when its first byte
was written and when its 200 had been read, in nanoseconds of the monotonic clock, which is one for all processes of a
machine. The sink (`bench.clocked`) notes by the same clock when it has read the whole body, so that the
difference is exact but for how late these two processes are woken: tenths of a millisecond.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.senders import TOKEN, strapi

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
    "X-Strapi-Event: entry.publish\r\nContent-Length: {length}\r\n\r\n"
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WARM = 0.5  # seconds whose events are not counted


class _Connection(asyncio.Protocol):
    def __init__(self, idle: deque[_Connection], lines: list[str]) -> None:
        self._idle = idle
        self._lines = lines
        self._answer = b""
        self._number: int | None = None
        self._posted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by its bases

    def post(self, number: int, request: bytes) -> None:
        self._number, self._posted = number, time.monotonic_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"answered {head[:200]!r}")
        self._lines.append(f"{self._number} {self._posted} {time.monotonic_ns()}\n")
        self._answer, self._number = b"", None
        self._idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._number is not None:
            sys.exit("a connection was lost before its answer")


async def main(url: str, rate: float, seconds: float, first: int, file: Path) -> None:
    """Post, and write down what came of it."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    length = len(strapi(first + 1))
    head = _HEAD.format(path=parts.path, host=parts.netloc, token=TOKEN, length=length).encode()
    idle: deque[_Connection] = deque()
    lines: list[str] = []

    async def connect() -> _Connection:
        return (await loop.create_connection(lambda: _Connection(idle, lines), host, port))[1]

    idle.extend([await connect() for _ in range(32)])
    warm, count = round(_WARM * rate), round((seconds + _WARM) * rate)
    # All numbers have as many digits, and so all requests one length.
    requests = [head + strapi(first + n) for n in range(1, count + 1)]
    began = loop.time()
    for number, request in enumerate(requests):
        if (wait := began + number / rate - loop.time()) > 0:
            await asyncio.sleep(wait)
        connection = idle.popleft() if idle else await connect()
        connection.post(first + number + 1, request)
    while len(lines) < count:
        await asyncio.sleep(0.01)
    skipped = range(first + 1, first + 1 + warm)
    file.write_text("".join(line for line in lines if int(line.partition(" ")[0]) not in skipped))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])))
