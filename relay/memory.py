"""How many bytes of bodies are in memory to be sent, of each route and of all, and who may take more. Pure.

A route may have half of all there may be, so that one whose destination is slow leaves room for the others. Where all
is taken even so, those that have next to nothing get a little more, up to half as much again; past that everybody waits
until something has been sent. One body is always let in where there is none: it may be larger than all.
"""

from __future__ import annotations

CLAIMED = 8 << 20
"""Bytes that are read from the store at a time, at most."""


class Memory:
    """The account of all routes."""

    __slots__ = ("_most", "_share", "_small", "_top", "_worthwhile", "taken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = most // 2
        self._top = most + most // 2
        self._small = most // 64
        self._worthwhile = min(1 << 20, most // 8)
        self.taken = 0

    def fits(self, own: int, size: int) -> bool:
        """Whether a route that has `own` bytes may have so many more beside them."""
        return self.taken + size <= self._most and own + size <= self._share

    def room(self, own: int) -> tuple[int, bool]:
        """How many bytes a route that has `own` may read, none being no; and whether it must be the only one that does,
        for what it reads may be more than that by a body."""
        wide = min(CLAIMED, self._share - own, self._most - self.taken)
        if wide > 0 and wide >= self._worthwhile:
            return wide, False
        if self.taken <= 0:
            return 1, True
        if own < self._small and self.taken < self._top:
            return self._small - own, True
        return 0, True

    def crowded(self, size: int) -> bool:
        """Whether so many bytes more would be too many."""
        return self.taken > 0 and self.taken + size > self._top
