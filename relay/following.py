"""Followers of the log: each gets what its filters want, as it happens, through a queue of its own that is bounded.

One that does not keep up loses what its queue cannot hold, and is told so: nobody waits for it. What happened is put
into words once, however many follow.
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
_MOST_BYTES = 4 << 20  # that wait for one; what several wait for is in memory once

Wanted = Callable[[LogItem], bool]
Words = Callable[[LogItem], bytes]


class TooMany(Exception):
    """So many follow already that one more is refused."""


class Follower:
    """Somebody who follows: what happened and has not been seen yet."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._news = asyncio.Event()
        self.ended = False
        """Nothing more comes: relay stops."""

    async def next(self, seconds: float) -> tuple[list[bytes], int]:
        """What happened since the last time, in words, oldest first, and how much of it was lost; nothing when for so
        long nothing happened, or it has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return [], 0
        found, lost = list(self._waiting), self._lost
        self._waiting.clear()
        self._bytes = self._lost = 0
        if not self.ended:
            self._news.clear()
        return found, lost

    def tell(self, words: bytes) -> None:
        """Something happened that it wants."""
        self._waiting.append(words)
        self._bytes += len(words)
        while len(self._waiting) > _MOST_WAITING or (self._bytes > _MOST_BYTES and len(self._waiting) > 1):
            self._bytes -= len(self._waiting.popleft())
            self._lost += 1
        self._news.set()

    def lose(self) -> None:
        """More happened than can be told."""
        self._lost += 1
        self._news.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = True
        self._news.set()


class Followers:
    """All who follow. While there is none, the store is asked for nothing."""

    def __init__(self, store: Store, words: Words) -> None:
        self._store = store
        self._words = words
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
        for item in items:
            wanting = [follower for follower in self._followers if follower.wanted(item)]
            if wanting:
                words = self._words(item)
                for follower in wanting:
                    follower.tell(words)
        if more:
            for follower in self._followers:
                follower.lose()
