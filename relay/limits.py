"""Bounds on what comes in: token buckets for rates, a budget for bytes in flight."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from time import monotonic

from relay.address import parse_address
from relay.fields import Rate


class TokenBucket:
    """At most `rate` on average, with bursts of one second's worth (at least one)."""

    __slots__ = ("_at", "_burst", "_level", "_now", "_per_second")

    def __init__(self, rate: Rate, now: Callable[[], float] = monotonic, level: float | None = None) -> None:
        """Full, or with so many tokens to begin with."""
        self._per_second = rate.per_second
        self._burst = max(1.0, self._per_second)
        self._level = self._burst if level is None else level
        self._now = now
        self._at = now()

    def take(self) -> float:
        """0 when one more is within the rate, else the seconds until it would be."""
        moment = self._now()
        self._level = min(self._burst, self._level + (moment - self._at) * self._per_second)
        self._at = moment
        if self._level >= 1:
            self._level -= 1
            return 0.0
        return (1 - self._level) / self._per_second

    def wait(self) -> float:
        """What `take` would say, without taking anything."""
        level = min(self._burst, self._level + (self._now() - self._at) * self._per_second)
        return max(0.0, (1 - level) / self._per_second)


class FailuresByAddress:
    """A bucket for each address that failed to prove itself: what goes beyond is answered 429, not recorded singly."""

    _MOST_ADDRESSES = 10_000

    def __init__(self, rate: Rate = Rate(10, 1), now: Callable[[], float] = monotonic) -> None:  # noqa: B008 - immutable
        self._rate = rate
        self._now = now
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str) -> float:
        """0 while the address is within its rate of failures, else the seconds until it is again."""
        address = _whose(address)
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(self._rate, self._now)
            if len(self._buckets) > self._MOST_ADDRESSES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(address)
        return bucket.take()


def _whose(address: str) -> str:
    """The address, or of IPv6 the network of 64 bits: whoever has one of its addresses has them all."""
    if ":" not in address:
        return address
    parsed = parse_address(address)
    return f"{int(parsed) >> 64:x}::/64" if isinstance(parsed, IPv6Address) else address


class ByteBudget:
    """How many bytes of unverified bodies may be in memory at once, over all connections."""

    __slots__ = ("_taken", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0

    def take(self, size: int) -> bool:
        """Whether so many more fit; if so they are taken."""
        if self._taken + size > self.limit:
            return False
        self._taken += size
        return True

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self._taken -= size


def whole_seconds(seconds: float) -> int:
    """A wait as `Retry-After` says it: whole seconds, at least 1."""
    return max(1, math.ceil(seconds))
