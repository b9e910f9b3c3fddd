"""Time: the only module that asks what time it is."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS = tuple(timedelta(microseconds=part) for part in range(1000))
_MILLISECONDS = tuple(timedelta(milliseconds=part) for part in range(1000))


class Clock(Protocol):
    """What the rest of relay knows of time."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""
        ...

    def now_ms(self) -> int:
        """The same in milliseconds since 1970: `from_ms` of it costs half of what `now` cut to milliseconds costs."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that no operator sets."""
        ...

    def passed(self) -> float:
        """The same, with the time in which the machine slept."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this clock."""
        ...


class SystemClock:
    """The machine's clocks."""

    # Without a function of Python around them: an event asks for the time some eight times.
    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)
    # On Linux `time.monotonic` stands still while the machine sleeps.
    passed = staticmethod(partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime."""
    since = moment - _EPOCH  # to divide it would take a third longer
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def from_ms(milliseconds: int) -> datetime:
    """The aware UTC datetime of milliseconds since 1970."""
    # To make the timedelta each time would take three times as long.
    return _at_second(milliseconds // 1000) + _MILLISECONDS[milliseconds % 1000]


@lru_cache(64)
def _at_second(seconds: int) -> datetime:
    """Of the last seconds, as most moments are."""
    return _EPOCH + timedelta(seconds=seconds)


def whole_ms(moment: datetime) -> datetime:
    """The moment, cut to milliseconds."""
    # `replace` takes ten times as long, which would be one part in sixty of all that an event costs.
    part = moment.microsecond % 1000
    return moment - _PARTS[part] if part else moment


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T20:00:00.123Z`: UTC, milliseconds."""
    since = moment - _EPOCH
    return f"{_second(since.days, since.seconds)}{since.microseconds // 1000:03d}Z"


@lru_cache(64)
def _second(days: int, seconds: int) -> str:
    """A second's part of a text: most moments are of the last ones, and writing one anew takes five times as long."""
    # Not by strftime, which does not pad years below 1000 everywhere: zero times of programs are of the year 1.
    return f"{(_EPOCH + timedelta(days, seconds)).isoformat()[:19]}."


def parse_rfc3339(text: object) -> datetime | None:
    """A sender's time as an aware UTC datetime cut to milliseconds; None for what is not one, or says no zone."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not UTC:
            if moment.tzinfo is None:
                return None
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return whole_ms(moment)
