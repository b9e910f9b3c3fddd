"""Followers of the log: each gets what its filters want, as it happens, through a queue of its own that is bounded.

One that does not keep up loses what its queue cannot hold, and is told so: nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from relay.delivery import LogItem
from relay.store import Store

MOST_FOLLOWERS = 100
_MOST_WAITING = 5000

Wanted = Callable[[LogItem], bool]


class TooMany(Exception):
    """So many follow already that one more is refused."""


class Follower:
    """Somebody who follows: what happened and has not been seen yet."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._items: deque[LogItem] = deque()
        self._lost = 0
        self._news = asyncio.Event()
        self.ended = False
        """Nothing more comes: relay stops."""

    async def next(self, seconds: float) -> tuple[list[LogItem], int]:
        """What happened since the last time, oldest first, and how much of it was lost; nothing when for so long
        nothing happened, or it has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return [], 0
        items, lost = list(self._items), self._lost
        self._items.clear()
        self._lost = 0
        if not self.ended:
            self._news.clear()
        return items, lost

    def tell(self, items: Sequence[LogItem], more: bool) -> None:
        """Something happened."""
        for item in items:
            if self._wanted(item):
                if len(self._items) >= _MOST_WAITING:
                    self._items.popleft()
                    self._lost += 1
                self._items.append(item)
        self._lost += more
        if self._items or self._lost:
            self._news.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = True
        self._news.set()


class Followers:
    """All who follow. While there is none, the store is asked for nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers: set[Follower] = set()
        self._changing = asyncio.Lock()
        self._watching = False
        self._ended = False

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._followers)

    @asynccontextmanager
    async def follow(self, wanted: Wanted) -> AsyncIterator[Follower]:
        """Follow what `wanted` takes, from now on. Raises TooMany, Unavailable."""
        if len(self._followers) >= MOST_FOLLOWERS:
            raise TooMany(f"{MOST_FOLLOWERS} follow the log already")
        follower = Follower(wanted)
        self._followers.add(follower)
        try:
            async with self._changing:
                if not self._watching:
                    await self._store.watch(self._tell)
                    self._watching = True
            if self._ended:
                follower.end()
            yield follower
        finally:
            self._followers.discard(follower)
            async with self._changing:
                if not self._followers and self._watching:
                    self._watching = False
                    await self._store.watch(None)

    def end(self) -> None:
        """Relay stops: everyone's log ends here."""
        self._ended = True
        for follower in self._followers:
            follower.end()

    def _tell(self, items: Sequence[LogItem], more: bool) -> None:
        for follower in self._followers:
            follower.tell(items, more)
