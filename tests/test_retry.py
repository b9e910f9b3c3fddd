"""The retry policies, as tables."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relay import retry
from relay.delivery import Code, Failure, Retryable
from tests.fakes import NOON

DOWN = Retryable(Failure(Code.HTTP_STATUS, "HTTP 500"))
DEFAULT = retry.exponential(timedelta(seconds=5), 4, timedelta(hours=12), attempts=10, jitter=0.2)


def middle() -> float:
    return 0.5


@pytest.mark.parametrize(
    ("number", "seconds"),
    [(1, 5), (2, 20), (3, 80), (4, 320), (5, 1280), (6, 5120), (7, 20480), (8, 43200), (9, 43200)],
)
def test_the_default_waits_four_times_as_long_each_time_up_to_twelve_hours(number: int, seconds: int) -> None:
    assert DEFAULT.after(DOWN, number, NOON, middle) == NOON + timedelta(seconds=seconds)


def test_the_last_attempt_is_followed_by_none() -> None:
    assert DEFAULT.after(DOWN, 9, NOON) is not None
    assert DEFAULT.after(DOWN, 10, NOON) is None


def test_a_schedule_of_n_delays_makes_n_plus_one_attempts() -> None:
    policy = retry.schedule((timedelta(seconds=1), timedelta(minutes=5)), jitter=0)
    assert policy.attempts == 3
    assert policy.after(DOWN, 1, NOON) == NOON + timedelta(seconds=1)
    assert policy.after(DOWN, 2, NOON) == NOON + timedelta(minutes=5)
    assert policy.after(DOWN, 3, NOON) is None


def test_fixed_waits_the_same_each_time() -> None:
    policy = retry.fixed(timedelta(minutes=10), attempts=3, jitter=0)
    assert [policy.after(DOWN, n, NOON) for n in (1, 2)] == [NOON + timedelta(minutes=10)] * 2
    assert policy.after(DOWN, 3, NOON) is None


def test_none_makes_one_attempt() -> None:
    assert retry.none().after(DOWN, 1, NOON) is None


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 4), (0.5, 5), (1.0, 6)])
def test_jitter_spreads_each_delay_both_ways(draw: float, seconds: int) -> None:
    assert DEFAULT.after(DOWN, 1, NOON, lambda: draw) == NOON + timedelta(seconds=seconds)


def test_an_absurd_factor_ends_at_the_longest_delay() -> None:
    policy = retry.exponential(timedelta(seconds=1), 1e300, timedelta(hours=1), attempts=1000, jitter=0)
    assert policy.after(DOWN, 999, NOON) == NOON + timedelta(hours=1)


def test_a_later_retry_after_wins_and_an_earlier_one_does_not() -> None:
    for asked, due in ((60, 60), (1, 5)):
        outcome = Retryable(DOWN.failure, retry_after=NOON + timedelta(seconds=asked))
        assert DEFAULT.after(outcome, 1, NOON, middle) == NOON + timedelta(seconds=due)


def test_retry_after_is_honoured_up_to_a_day() -> None:
    outcome = Retryable(DOWN.failure, retry_after=NOON + timedelta(days=400))
    assert DEFAULT.after(outcome, 1, NOON, middle) == NOON + timedelta(days=1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Mon, 23 Nov 2026 12:01:00 GMT", 60),
        ("1000000000000", 86400),
        ("99999999999999999999999999", 86400),
        ("Mon, 23 Nov 2026 11:00:00 GMT", None),  # past
        ("-1", None),
        ("0", None),
        ("soon", None),
        ("", None),
        ("١٢", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_all_else_is_ignored(value: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else NOON + timedelta(seconds=seconds)
    assert retry.parse_retry_after(value, NOON) == expected
