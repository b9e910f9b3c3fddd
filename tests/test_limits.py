"""Bounds on what comes in."""

from __future__ import annotations

from relay.fields import Rate
from relay.limits import ByteBudget, FailuresByAddress, TokenBucket, whole_seconds
from tests.fakes import ManualClock


def test_a_bucket_lets_one_seconds_worth_burst_and_then_the_rate() -> None:
    clock = ManualClock()
    bucket = TokenBucket(Rate(10, 1), clock.monotonic)
    assert [bucket.take() for _ in range(10)] == [0.0] * 10
    assert bucket.take() > 0
    clock.advance(0.25)
    assert [bucket.take() == 0 for _ in range(3)] == [True, True, False]


def test_a_slow_rate_still_lets_one_through() -> None:
    clock = ManualClock()
    bucket = TokenBucket(Rate(6, 60), clock.monotonic)
    assert bucket.take() == 0
    assert bucket.take() == 10.0
    clock.advance(10)
    assert bucket.take() == 0


def test_what_was_not_used_is_not_saved_up() -> None:
    clock = ManualClock()
    bucket = TokenBucket(Rate(2, 1), clock.monotonic)
    clock.advance(3600)
    assert [bucket.take() == 0 for _ in range(3)] == [True, True, False]


def test_each_address_fails_at_its_own_rate_and_only_so_many_are_remembered() -> None:
    clock = ManualClock()
    failures = FailuresByAddress(now=clock.monotonic)
    assert [failures.take("1.1.1.1") == 0 for _ in range(11)] == [True] * 10 + [False]
    assert failures.take("2.2.2.2") == 0
    for number in range(10_000):
        failures.take(f"address {number}")
    assert failures.take("1.1.1.1") == 0, "the oldest address was forgotten"


def test_a_budget_gives_no_more_than_it_has() -> None:
    budget = ByteBudget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.take(4)
    budget.give_back(6)
    assert budget.take(6)


def test_retry_after_is_never_less_than_a_second() -> None:
    assert [whole_seconds(value) for value in (0.0, 0.2, 1.0, 1.01)] == [1, 1, 1, 2]


def test_who_has_one_address_of_an_ipv6_network_has_them_all_and_one_rate() -> None:
    failures = FailuresByAddress(Rate(2, 1), now=lambda: 0.0)
    assert [failures.take(f"2001:db8::{n}") > 0 for n in range(4)] == [False, False, True, True]
    assert failures.take("2001:db8:0:1::1") == 0
    assert failures.take("::ffff:192.0.2.1") == 0
