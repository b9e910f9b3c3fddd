"""While relay starts: it may be told to end, and the service manager that it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from relay import systemd
from relay.clock import Clock

_PATIENCE = 15.0  # seconds


class Stopped(Exception):
    """Relay was told to end before it had begun."""


class Impatient:
    """A clock by which nobody waits any longer when relay is told to end: what is waited for is not needed then."""

    def __init__(self, clock: Clock, stop: asyncio.Event) -> None:
        self.now, self.now_ms, self.monotonic, self.passed = clock.now, clock.now_ms, clock.monotonic, clock.passed
        self._stop = stop

    async def sleep(self, seconds: float) -> None:
        """Raises Stopped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
            raise Stopped


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """While a store is opened, and brought in line with the config, the service manager is told that start-up goes on:
    an older one, or one in which much waits, may take minutes."""
    loop = asyncio.get_running_loop()

    next_time: asyncio.TimerHandle

    def tell() -> None:
        nonlocal next_time
        systemd.extend(2 * _PATIENCE)
        next_time = loop.call_later(_PATIENCE, tell)

    next_time = loop.call_later(_PATIENCE, tell)
    try:
        yield
    finally:
        next_time.cancel()
