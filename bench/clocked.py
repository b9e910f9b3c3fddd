"""A sink that notes when it has read each event, by the monotonic clock: the other end of `bench.paced`.

    python -m bench.clocked PORT FILE

FILE gets a line for each: its number and the time, in nanoseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO, cast

import uvloop

from bench.process import HOST, free_port, started

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb'"id": *(\d+)')
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_PATIENCE = 60.0


class _Peer(asyncio.Protocol):
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by its bases

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(rest) < int(length[1]):
            return
        at = time.monotonic_ns()
        self._data = rest[int(length[1]) :]
        number = _NUMBER.search(rest)
        if number is not None:
            self._out.write(f"{number[1].decode()} {at}\n")
        self._transport.write(_ANSWER)


async def serve(port: int, file: Path) -> None:
    """Until it is ended."""
    with file.open("a", buffering=1) as out:
        await asyncio.get_running_loop().create_server(lambda: _Peer(out), HOST, port, backlog=1024)
        await asyncio.Event().wait()


class Arrivals:
    """What has come to such a sink."""

    def __init__(self, url: str, file: Path) -> None:
        self.url = url
        self._file = file
        self._read = 0

    def beside(self) -> Arrivals:
        """The same sink from here on, for another sender at the same time."""
        made = Arrivals(self.url, self._file)
        made._read = self._read
        return made

    async def of(self, numbers: set[int]) -> dict[int, float]:
        """When each of these first came, in milliseconds, once all have."""
        found: dict[int, float] = {}
        async with asyncio.timeout(_PATIENCE):
            while True:
                with self._file.open("rb") as file:
                    file.seek(self._read)
                    whole = file.read().rpartition(b"\n")[0]
                self._read += len(whole) + bool(whole)
                for line in whole.splitlines():
                    number, at = line.split()
                    if int(number) in numbers:
                        found.setdefault(int(number), int(at) / 1e6)
                if len(found) == len(numbers):
                    return found
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def clocked(folder: Path) -> AsyncIterator[Arrivals]:
    """One as a process of its own."""
    port, file = free_port(), folder / "arrivals"
    command = [sys.executable, "-m", "bench.clocked", str(port), str(file)]
    async with started(command, port, folder / "clocked.log"):
        yield Arrivals(f"http://{HOST}:{port}/hook", file)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
