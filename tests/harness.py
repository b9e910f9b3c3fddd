"""Real parts for tests: a sink that records, relay in this process or as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from relay import daemon, journal
from relay.clock import Clock, SystemClock

PATIENCE = 20.0  # seconds for what should take milliseconds, on a machine that does much else
T = TypeVar("T")


async def answered(ask: Callable[[], Awaitable[T]], ready: Callable[[T], object]) -> T:
    """An answer that is as it should be: asked for again and again, where nobody tells when it is."""
    async with asyncio.timeout(PATIENCE):
        while not ready(found := await ask()):
            await asyncio.sleep(0.01)
    return found


Answer = Callable[["Received"], "int | web.StreamResponse | Awaitable[int | web.StreamResponse]"]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as the sink saw it."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    n: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Sink:
    """A destination: records each request when it is received, then answers as told."""

    answer: Answer = lambda request: 200
    received: list[Received] = field(default_factory=list)
    url: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    server: web.Server | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        seen = Received(request.method, request.path_qs, CIMultiDict(request.headers), body, len(self.received) + 1)
        self.received.append(seen)
        self._news.set()
        said = self.answer(seen)
        if isinstance(said, Awaitable):
            said = await said
        return web.Response(status=said) if isinstance(said, int) else said

    async def wait_for(self, condition: Callable[[list[Received]], object]) -> list[Received]:
        """Wait until the requests received so far fulfil a condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self.received):
                self._news.clear()
                await self._news.wait()
        return self.received

    async def wait_count(self, count: int) -> list[Received]:
        return await self.wait_for(lambda received: len(received) >= count)

    async def left(self) -> None:
        """Wait until nobody is connected: what those who are gone had sent has been received."""
        assert self.server is not None
        async with asyncio.timeout(PATIENCE):
            while self.server.connections:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def sink(answer: Answer = lambda request: 200, port: int = 0) -> AsyncIterator[Sink]:
    """A sink on a port of its own."""
    made = Sink(answer)
    made.server = web.Server(made.handle, access_log=None)
    runner = web.ServerRunner(made.server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


@dataclass
class Relay:
    """A running relay, by its two addresses."""

    public: str
    admin: str
    session: aiohttp.ClientSession
    running: daemon.Running | None = None

    async def post(
        self, path: str, body: bytes = b"{}", headers: Any = None, **options: Any
    ) -> tuple[int, dict[str, Any]]:
        headers = headers if headers is not None else {"Content-Type": "application/json"}
        async with self.session.post(self.public + path, data=body, headers=headers, **options) as response:
            return response.status, json.loads(await response.read())

    @contextlib.asynccontextmanager
    async def begun(self, path: str, body: bytes) -> AsyncIterator[Callable[[], Awaitable[int]]]:
        """A request that relay has in hand, and waits for the body of. What is given sends it, and returns the status
        of the answer."""
        address = urlsplit(self.public)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)

        async def status() -> int:
            async with asyncio.timeout(PATIENCE):
                return int((await reader.readuntil(b"\r\n\r\n")).split()[1])

        async def go_on() -> int:
            writer.write(body)
            return await status()

        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head.encode())
        try:
            assert await status() == 100
            yield go_on
        finally:
            writer.close()

    async def get(self, path: str, **options: Any) -> Any:
        async with self.session.get(self.admin + path, **options) as response:
            assert response.status == 200, await response.text()
            return json.loads(await response.read())

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.admin + path, **options) as response:
            return response.status, json.loads(await response.read())

    async def logs_when(
        self, condition: Callable[[list[dict[str, Any]]], object], query: str = "", **options: Any
    ) -> list[dict[str, Any]]:
        """The items of /logs, once they fulfil a condition."""
        async with asyncio.timeout(PATIENCE):
            while True:
                items: list[dict[str, Any]] = (await self.get("/logs" + query, **options))["items"]
                if condition(items):
                    return items
                await asyncio.sleep(0.01)


LISTEN = 'server: {listen: "127.0.0.1:0"}\nadmin: {listen: "127.0.0.1:0"}\n'


def write_config(folder: Path, text: str) -> Path:
    """A config file with its own store; ports are free ones unless the text says."""
    path = folder / "config.yaml"
    head = "" if "server:" in text else LISTEN
    store = "" if "store:" in text else f"store: {{url: 'sqlite:{folder / 'relay.db'}'}}\n"
    path.write_text(head + store + text)
    return path


@contextlib.asynccontextmanager
async def relay_here(folder: Path, text: str, clock: Clock | None = None) -> AsyncIterator[Relay]:
    """Relay in this process, all parts real; only the clock may be ours."""
    path = write_config(folder, text)
    try:
        async with daemon.running(path, clock or SystemClock()) as running, aiohttp.ClientSession() as session:
            yield Relay(f"http://{running.public.address}", f"http://{running.admin.address}", session, running)
    finally:
        journal.outlet.drain(PATIENCE)  # what it has logged belongs to this test


class RelayProcess:
    """`relay serve` as a process of its own. Its log lines are kept."""

    def __init__(self, config: Path, prefix: list[str] | None = None, environ: dict[str, str] | None = None) -> None:
        self.config = config
        self.log = config.parent / "relay.log"
        self._prefix = prefix or []
        self._environ = environ or {}
        self.offset = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.public = self.admin = ""

    async def start(self) -> RelayProcess:
        """Start it and wait until it says that it takes events."""
        self.launch()
        started = await self.said("started")
        self.public = f"http://{started['listen']}"
        self.admin = f"http://{started['admin']}"
        return self

    def launch(self) -> None:
        """Start it."""
        self.offset = self.log.stat().st_size if self.log.exists() else 0
        command = [*self._prefix, sys.executable, "-m", "relay", "serve", "--config", str(self.config)]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)} | self._environ
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=environ, cwd=self.config.parent)

    async def said(self, event: str) -> dict[str, Any]:
        """The line of this event that it has logged since it was started last, once it has."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.lines(self.offset):
                    if line.get("event") == event:
                        return line
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.01)

    def lines(self, offset: int = 0) -> Iterator[dict[str, Any]]:
        """The log lines since an offset."""
        with self.log.open("rb") as log:
            log.seek(offset)
            for line in log.read().splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def hup(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    async def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, PATIENCE + 25)


@contextlib.asynccontextmanager
async def relay_process(
    folder: Path, text: str, prefix: list[str] | None = None, environ: dict[str, str] | None = None
) -> AsyncIterator[RelayProcess]:
    """A relay process that is surely gone in the end."""
    made = RelayProcess(write_config(folder, text), prefix, environ)
    await made.start()
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()
