"""Repeated requests: what is known of those that were accepted."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from relay.delivery import Mark
from relay.immutable import immutable
from relay.stores._sql.rows import Row

PRUNED_AT_ONCE = 256

LIVE = frozenset({"pending", "held", "merged", "delivered"})
"""States that show that an event is taken care of: its repeat is not sent again."""


@immutable
class Seen:
    """What is known of a key: the last event that was stored for it."""

    value: bytes
    event: int


def row(mark: Mark, event: int, now: int) -> Row:
    """A row of `seen`."""
    return mark.key, mark.value, event, until(mark, now)


def until(mark: Mark, now: int) -> int:
    """Up to when a repeat is known."""
    return now + _whole_ms(mark.window)


@lru_cache(64)
def _whole_ms(window: timedelta) -> int:
    return round(window.total_seconds() * 1000)
