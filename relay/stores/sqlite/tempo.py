"""The tempo of pruning: how much one step removes, and how long there is rest after it.

While others write, few of them are to meet a step, and none that is long. So a step is short, found by how long the
last one worked, whatever its commit took. Gently, hardly more events are removed than come, and each time when the
results of others have just been written: a commit and a checkpoint of pages from all over the file take longer than
others do, and where events come evenly the next one is then as far away as it ever is. Where so many come that short
steps fall behind, they become longer: many at once cost less each. In haste steps are long, and the rest ten times
that. Where nobody else writes, there is no rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from relay.store import Haste
from relay.stores._sql.writer import Writer

_ALONE = 1.0  # seconds without a write of anybody else, after which there is nobody to be in the way of
_SHORT, _LONG, _LONGEST = 0.0005, 0.005, 0.05  # seconds that a step should work: gently, in haste, where one is alone
_LONGER = 1.2  # times as long as the step before, where steps fall behind
_FIRST, _LEAST, _MOST = 32, 4, 1000  # events in one step
_REST = 10.0  # times as long there is rest after a step, while others write; half of that where a lull comes
_KEEPING_UP = 1.1  # times as many events are removed gently as come,
_SLOWEST = 50.0  # but never fewer a second
_COUNTED = 5.0  # seconds over which it is counted how many come
_PATIENCE = 0.1  # seconds for which the end of a rest waits for a lull
_AT_ONCE = 1.0  # seconds of a rest, after which it is asked whether it is to make haste


class Tempo:
    """Of one pass over the store."""

    def __init__(self, writer: Writer, haste: Callable[[], Haste]) -> None:
        self.size = _FIRST
        """How many the next step is to remove."""
        self.walks = 1
        """How many times all that comes is walked over, one after the other: each must be so many times as fast."""
        self._writer = writer
        self._haste = haste
        now = monotonic()
        self._counted = (now, writer.added)
        self._coming = 0.0  # events a second, of late
        self._gentle = _SHORT  # seconds that a gentle step should work
        self._due = now  # when the next one should be
        self._others_at = now
        self._before = self._commits = writer.commits

    def begin_anew(self) -> None:
        """What comes next is of another kind."""
        self.size, self._gentle, self._due = _FIRST, _SHORT, monotonic()

    def step_begins(self) -> None:
        """To be called before each step."""
        self._before = self._writer.commits

    async def step_ended(self, size: int, worked: float, paced: bool) -> None:
        """Rest. The step was over so many and worked for so many seconds; `paced`: they are as many as events come."""
        now, commits = monotonic(), self._writer.commits
        # Others have written, where there were commits between two steps, or more than its own for this one.
        if self._before != self._commits or commits > self._before + 1:
            self._others_at = now
        self._commits = commits
        haste = self._haste()
        if now - self._others_at > _ALONE:
            self._resize(size, worked, _LONGEST)
            await asyncio.sleep(0)
        elif haste is Haste.GENTLY:
            await self._rest(now, worked * _REST, size / self._rate(now) if paced else 0.0)
            self._resize(size, worked, self._gentle)
        else:
            self._resize(size, worked, _LONG)
            await asyncio.sleep(worked * _REST)

    def _resize(self, size: int, worked: float, goal: float) -> None:
        # Never more than twice as many as before: the first ones may have been small.
        self.size = max(_LEAST, min(_MOST, int(size * goal / max(worked, 1e-6)), self.size * 2))

    async def _rest(self, now: float, least: float, each: float) -> None:
        """Wait for so many seconds, half of them at least, and until a step is due where there is one every `each`
        seconds; shortly before, for a lull."""
        self._due = max(self._due, now - _PATIENCE) + each
        behind = each > 0.0 and self._due < now + least
        self._gentle = min(self._gentle * _LONGER, _LONG) if behind else max(self._gentle / _LONGER, _SHORT)
        end = max(self._due, now + least)
        patience = min((end - now) / 2, _PATIENCE)
        while (left := end - patience - monotonic()) > _AT_ONCE:
            await asyncio.sleep(_AT_ONCE)
            if self._haste() is not Haste.GENTLY:
                return
        await asyncio.sleep(max(0.0, left))
        await self._writer.lull(patience)

    def _rate(self, now: float) -> float:
        """How many are to be removed in a second, gently."""
        since, before = self._counted
        if now - since >= _COUNTED:
            self._coming = (self._writer.added - before) / (now - since)
            self._counted = now, self._writer.added
        return max(_SLOWEST, self._coming * _KEEPING_UP) * self.walks
