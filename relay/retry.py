"""Retrying: when the next attempt is due, or that there is none. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from relay.delivery import Retryable
from relay.immutable import immutable

LONGEST_RETRY_AFTER = timedelta(hours=24)

Delay = Callable[[int], timedelta]
"""How long to wait after the n-th attempt, n from 1."""


@immutable
class RetryPolicy:
    """How often and how far apart. `attempts` counts the first one; `jitter` 0.2 spreads each delay by ±20 %."""

    attempts: int
    delay: Delay
    jitter: float = 0.0

    def after(
        self, outcome: Retryable, number: int, now: datetime, draw: Callable[[], float] = random.random
    ) -> datetime | None:
        """When to try again after the `number`-th attempt that counts; None to give up.

        A destination's `Retry-After` is honoured up to 24 h when it is later than the policy's own time.
        """
        if number >= self.attempts:
            return None
        spread = 1 + self.jitter * (2 * draw() - 1)
        due = now + self.delay(number) * spread
        if outcome.retry_after is not None:
            due = max(due, min(outcome.retry_after, now + LONGEST_RETRY_AFTER))
        return due


def exponential(first: timedelta, factor: float, longest: timedelta, attempts: int, jitter: float) -> RetryPolicy:
    """`first`, then `factor` times as long each time, never longer than `longest`."""

    def delay(number: int) -> timedelta:
        try:
            return min(first * factor ** (number - 1), longest)
        except OverflowError:
            return longest

    return RetryPolicy(attempts, delay, jitter)


def fixed(every: timedelta, attempts: int, jitter: float) -> RetryPolicy:
    """The same delay each time."""
    return RetryPolicy(attempts, lambda number: every, jitter)


def schedule(delays: tuple[timedelta, ...], jitter: float) -> RetryPolicy:
    """These delays, one after the other: n delays make n + 1 attempts."""
    return RetryPolicy(len(delays) + 1, lambda number: delays[number - 1], jitter)


def none() -> RetryPolicy:
    """One attempt and no other."""
    return RetryPolicy(1, lambda number: timedelta(0))


def parse_retry_after(value: str | None, now: datetime) -> datetime | None:
    """The moment that a `Retry-After` names (seconds or an HTTP date, RFC 9110 section 10.2.3).

    None for what is missing, past or garbage.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = min(int(value[:12]), int(LONGEST_RETRY_AFTER.total_seconds()))
        return now + timedelta(seconds=seconds) if seconds else None
    try:
        moment = parsedate_to_datetime(value)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment > now else None
