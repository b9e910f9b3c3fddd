"""Stand-ins that keep the contracts: a clock that tests set, a transport that answers by script."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.client import Reply
from relay.clock import to_ms
from relay.delivery import Response
from relay.destination import Limits, Outbound

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class ManualClock:
    """Time stands still until `advance`; sleepers wake in order."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        return self._now

    def now_ms(self) -> int:
        return to_ms(self._now)

    def monotonic(self) -> float:
        return self._monotonic

    def passed(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._monotonic + seconds, self._count, future))
        await future

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self.tick(seconds)

    def step(self, by: timedelta) -> None:
        """Somebody sets the wall clock."""
        self._now += by

    def tick(self, seconds: float) -> None:
        """Let time pass while the wall clock stands still, as if it were set back meanwhile."""
        self._monotonic += seconds
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)


class ScriptedTransport:
    """Answers each request as `script` says: a status, an exception to raise, or a future to wait for first."""

    def __init__(self, script: Callable[[Outbound], object] = lambda request: 200) -> None:
        self.script = script
        self.requests: list[Outbound] = []
        self.sent: list[tuple[Outbound, Limits]] = []
        self._beside: set[asyncio.Task[None]] = set()

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def send(self, request: Outbound, limits: Limits) -> Reply:
        self.requests.append(request)
        self.sent.append((request, limits))
        answer = self.script(request)
        if isinstance(answer, asyncio.Future):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Reply):
            return answer
        assert isinstance(answer, int)
        return Reply(Response(answer, (), b"", truncated=False), None)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a thing itself, not for time: fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
