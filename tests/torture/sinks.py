"""Destinations as a process of their own, so that what they do costs neither relay nor the sender anything.

    python -m tests.torture.sinks ADDRESS PORT FILE BEHAVIOUR...

One port for each behaviour, from PORT on (0: free ones). Each request that was read to its end is a line of FILE:
number, `webhook-id`, the port, how many requests are under way there now, and the monotonic clock, which is one for all
processes of a machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TextIO

from tests.torture.row import TOP

WELL, SLOW, BROKEN, HANG, RESET, DRIP = "well", "slow", "500", "hang", "reset", "drip"
ABRUPT = "abrupt"  # well, and its connections end with a reset that is sent once
SLUGGISH, LATE = "sluggish", "late"
_DELAYS = {SLOW: 0.02, SLUGGISH: 1.0, LATE: 20.0}  # seconds
_ANSWERS = {
    WELL: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    BROKEN: b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nwebhook-id: *(\S+)", re.IGNORECASE)
_NUMBER = re.compile(rb'"id": *(\d+)')
_PATIENCE = 60.0


class _Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, behaviour: str, under_way: Counter[int], out: TextIO) -> None:
        self._behaviour = behaviour
        self._under_way = under_way
        self._out = out
        self._data = b""
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._behaviour == ABRUPT:
            self._abruptly()
        self._port = transport.get_extra_info("sockname")[1]

    def connection_lost(self, error: Exception | None) -> None:
        self._answered()

    def _answered(self) -> None:
        self._under_way[self._port] -= self._asked
        self._asked = False

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if not end or len(rest) < size:
                return
            self._data = rest[size:]
            number, identity = _NUMBER.search(rest[:size]), _ID.search(head)
            if number is not None and identity is not None:
                self._under_way[self._port] += not self._asked
                self._asked = True
                where = f"{self._port} {self._under_way[self._port]}"
                self._out.write(f"{number[1].decode()} {identity[1].decode()} {where} {monotonic()}\n")
            self._answer()

    def _answer(self) -> None:
        match self._behaviour:
            case "hang":
                return
            case "reset":
                self._abruptly()
                self._transport.abort()
            case "drip":
                self._drip(0)
            case behaviour if (delay := _DELAYS.get(behaviour)) is not None:
                asyncio.get_running_loop().call_later(delay, self._say, WELL)
            case "500":
                self._say(BROKEN)
            case _:
                self._say(WELL)

    def _abruptly(self) -> None:
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _say(self, answer: str) -> None:
        self._answered()
        self._transport.write(_ANSWERS[answer])

    def _drip(self, place: int) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWERS[WELL][place : place + 1])
            asyncio.get_running_loop().call_later(1, self._drip, place + 1)


async def serve(address: str, first: int, file: Path, behaviours: Sequence[str]) -> None:
    """Be these destinations until somebody ends the process."""
    loop = asyncio.get_running_loop()
    with file.open("a", buffering=1) as out:
        ports = []
        under_way = Counter[int]()
        for place, behaviour in enumerate(behaviours):

            def peer(behaviour: str = behaviour) -> _Peer:
                return _Peer(behaviour, under_way, out)

            server = await loop.create_server(peer, address, first + place if first else 0, backlog=1024)
            ports.append(server.sockets[0].getsockname()[1])
        print(json.dumps(ports), flush=True)
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as a destination saw it."""

    number: int
    id: str
    port: int
    under_way: int
    at: float


def began_slowly(under_way: Sequence[int]) -> bool:
    """Whether a destination got one request at first, and one more at once for each that it had answered: `under_way`
    is how many there were at each arrival, itself counted."""
    return all(count <= 1 + n - count for n, count in enumerate(under_way, start=1))


@dataclass(frozen=True, slots=True)
class Sinks:
    """The destinations of one process."""

    urls: list[str]
    file: Path
    process: subprocess.Popen[bytes]

    def arrivals(self) -> list[Arrival]:
        """What has come so far."""
        lines = self.file.read_text().split("\n")[:-1]  # the last line may not be whole
        return [
            Arrival(int(number), id_, int(port), int(under_way), float(at))
            for number, id_, port, under_way, at in map(str.split, lines)
        ]

    async def wait_for(
        self, condition: Callable[[list[Arrival]], object], patience: float = _PATIENCE
    ) -> list[Arrival]:
        """What has come, once it fulfils a condition. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            while not condition(seen := self.arrivals()):
                await asyncio.sleep(0.05)
        return seen

    def end(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


@contextlib.asynccontextmanager
async def sinks(
    folder: Path,
    name: str,
    behaviours: Sequence[str],
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    prefix: Sequence[str] = (),
) -> AsyncIterator[Sinks]:
    """A process with these destinations; `prefix` is what starts it elsewhere."""
    file = folder / f"{name}.arrivals"
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.torture.sinks", address, str(port), str(file), *behaviours],
        stdout=subprocess.PIPE,
        cwd=TOP,
    )
    assert process.stdout is not None
    try:
        ports = json.loads(await asyncio.to_thread(process.stdout.readline))
        yield Sinks([f"http://{address}:{each}" for each in ports], file, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
