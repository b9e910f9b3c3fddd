"""Several relays on one PostgreSQL, each a process of its own that says of each attempt that it was its."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

from relay.clock import SystemClock, to_ms
from tests.harness import LISTEN, PATIENCE, Relay, RelayProcess, relay_here

HEADER = "X-Relay"
"""Of each request: which of them made it."""
NAMED = f"defaults: {{headers: {{{HEADER}: '${{RELAY_NAME}}'}}}}\n"


@dataclass
class Several:
    """The relays, and a client of all of them."""

    relays: list[RelayProcess]
    session: aiohttp.ClientSession
    random: random.Random = field(default_factory=lambda: random.Random(1))

    async def post(self, at: int, body: bytes, path: str = "/in/any") -> dict[str, Any]:
        """An event, which one of them must take."""
        status, answer = await self.ask(at, "POST", path, public=True, data=body)
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    async def ask(self, at: int, method: str, path: str, *, public: bool = False, **options: Any) -> tuple[int, Any]:
        """A request to one of them: the status, and what it answered."""
        relay = self.relays[at]
        url = (relay.public if public else relay.admin) + path
        async with self.session.request(method, url, **options) as response:
            return response.status, json.loads(await response.read())

    async def get(self, at: int, path: str) -> Any:
        """What one of them shows."""
        status, answer = await self.ask(at, "GET", path)
        assert status == 200 or path == "/health", answer
        return answer

    async def items_when(
        self, at: int, condition: Callable[[list[dict[str, Any]]], object], query: str = "", patience: float = PATIENCE
    ) -> list[dict[str, Any]]:
        """The items of one's /logs, once they fulfil a condition."""
        answer: dict[str, Any] = {}
        try:
            async with asyncio.timeout(patience):
                while True:
                    answer = await self.get(at, f"/logs{query}")
                    if condition(answer["items"]):
                        return list(answer["items"])
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it never came to it: {answer}") from None

    async def met(self) -> None:
        """Wait until each knows of all."""
        for at in range(len(self.relays)):
            await until(lambda at=at: self._knows(at), lambda found: found == len(self.relays))  # type: ignore[misc]

    async def _knows(self, at: int) -> int:
        return len((await self.get(at, "/health"))["relays"])


async def until(
    look: Callable[[], Any], condition: Callable[[Any], object], patience: float = PATIENCE, every: float = 0.05
) -> Any:
    """What one sees, once it fulfils a condition."""
    found = None
    try:
        async with asyncio.timeout(patience):
            while True:
                found = await look()
                if condition(found):
                    return found
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"it never came to it: {found}") from None


def made(
    folder: Path, url: str, text: str, count: int = 3, environ: Callable[[int], dict[str, str]] | None = None
) -> list[RelayProcess]:
    """So many, not started. Their names are a, b, c; `environ` is what else each has."""
    found = []
    for number in range(count):
        name = "abcdefgh"[number]
        place = folder / name
        place.mkdir()
        config = place / "config.yaml"
        config.write_text(f"store: {{url: '{url}'}}\n{LISTEN}{NAMED}{text}")
        found.append(RelayProcess(config, environ={"RELAY_NAME": name} | (environ(number) if environ else {})))
    return found


def end(relay: RelayProcess) -> None:
    """Whatever happened to it, it is gone."""
    process = relay.process
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGCONT)
        relay.kill()


@contextlib.asynccontextmanager
async def several(
    folder: Path, url: str, text: str, count: int = 3, environ: Callable[[int], dict[str, str]] | None = None
) -> AsyncIterator[Several]:
    """Running relays that know of each other, surely gone in the end."""
    relays = made(folder, url, text, count, environ)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(relay.start() for relay in relays))
            found = Several(relays, session)
            await found.met()
            yield found
    finally:
        for relay in relays:
            end(relay)


def told(relay: RelayProcess, event: str) -> list[dict[str, Any]]:
    """What a relay has logged of one kind."""
    return [line for line in relay.lines() if line.get("event") == event]


@dataclass
class Attempt:
    """One request as the destination saw it."""

    id: str
    path: str
    relay: str
    body: bytes
    began: float
    status: int | None = None
    """What it was answered; None where nobody was there any more to hear it."""
    ended: float = field(default_factory=monotonic)


class Ahead(SystemClock):
    """The clock of a machine that is so many seconds ahead of the others."""

    def __init__(self, seconds: float) -> None:
        self._by = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._by

    def now_ms(self) -> int:
        return to_ms(self.now())


@contextlib.asynccontextmanager
async def several_here(
    folder: Path, url: str, text: str, count: int = 3, ahead: float = 0.0
) -> AsyncIterator[list[Relay]]:
    """Relays in this process, all parts real, that know of each other; the last one's clock is ahead."""
    async with contextlib.AsyncExitStack() as stack:
        relays = []
        for number in range(count):
            place = folder / "abcdefgh"[number]
            place.mkdir(exist_ok=True)
            clock = Ahead(ahead) if number == count - 1 else None
            store = f"{LISTEN}store: {{url: '{url}'}}\n"
            relays.append(await stack.enter_async_context(relay_here(place, store + text, clock)))
        for relay in relays:
            await until(lambda relay=relay: _known_to(relay), lambda found: found == count)  # type: ignore[misc]
        yield relays


async def _known_to(relay: Relay) -> int:
    return len((await relay.get("/health"))["relays"])
