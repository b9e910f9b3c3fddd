"""relay in this process, its senders simulated: what an event costs without the system calls that bring it.

    python -m bench.inside CONFIG COUNT ROUNDS

COUNT events for `/in/blog` by as many connections as wrk has, in each of ROUNDS rounds, and a round before them. Prints
the least CPU time for an event of a round, in microseconds: of the event loop's thread, and of all threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio import Transport
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop

from bench.process import HOST
from bench.senders import CONNECTIONS, TOKEN, strapi
from relay import daemon, heap, lean
from relay.clock import SystemClock
from relay.web.server import ingest_server

_LOOK_EVERY = 0.002


class _Sender(Transport):
    """A connection whose other side posts the next event as soon as one is answered."""

    def __init__(self, senders: _Senders) -> None:
        super().__init__()
        self._senders = senders
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (HOST, 1) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._senders.answered(self, bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        """It sends one request at a time."""

    resume_reading = pause_reading


class _Senders:
    def __init__(self, server: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocols: dict[_Sender, Any] = {}
        for _ in range(CONNECTIONS):
            sender, protocol = _Sender(self), server()
            protocol.connection_made(sender)
            self._protocols[sender] = protocol

    async def post(self, requests: list[bytes]) -> None:
        """All of them; returns when each is answered."""
        self._requests: Iterator[bytes] = iter(requests)
        self._left = len(requests)
        self._done = self._loop.create_future()
        for sender in self._protocols:
            self._next(sender)
        await self._done

    def answered(self, sender: _Sender, answer: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"answered with {answer[:200]!r}")
        self._left -= 1
        if not self._left:
            self._done.set_result(None)
        self._loop.call_soon(self._next, sender)

    def _next(self, sender: _Sender) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._protocols[sender].data_received(request)


def _request(number: int) -> bytes:
    body = strapi(number)
    lines = (
        "POST /in/blog HTTP/1.1",
        f"Host: {HOST}:8080",
        f"Authorization: Bearer {TOKEN}",
        "Content-Type: application/json",
        "X-Strapi-Event: entry.publish",
        f"Content-Length: {len(body)}",
        "\r\n",
    )
    return "\r\n".join(lines).encode() + body


async def _measured(config: Path, count: int, rounds: int) -> dict[str, float]:
    servers: list[Any] = []

    def noted(*given: Any, **named: Any) -> Any:
        servers.append(ingest_server(*given, **named))
        return servers[-1]

    loops: list[float] = []
    all_threads: list[float] = []
    with mock.patch.object(daemon, "ingest_server", noted):
        async with daemon.running(config, SystemClock()) as relay:
            senders = _Senders(servers[0])
            loads = [[_request(number * count + each) for each in range(count)] for number in range(rounds + 1)]
            heap.begin()
            heap.settle()
            for load in loads:
                loop, process = time.thread_time(), time.process_time()
                await senders.post(load)
                while any(each.pending for each in relay.store.counts().values()):
                    await asyncio.sleep(_LOOK_EVERY)
                loops.append((time.thread_time() - loop) / count * 1e6)
                all_threads.append((time.process_time() - process) / count * 1e6)
    return {"loop": min(loops[1:]), "all": min(all_threads[1:])}


def main() -> int:
    """Measure, print, and end at once: nothing here is worth an orderly end."""
    lean.imports()
    config, count, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(uvloop.run(_measured(config, count, rounds))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
