"""A wall clock that is set: what of an age did not really pass, and what is to be moved."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relay.steps import Steps
from tests.fakes import NOON, ManualClock

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def stepped(clock: ManualClock, steps: Steps, by: timedelta) -> None:
    """The clock is set, and that is seen."""
    clock.step(by)
    steps.look()


def test_what_was_there_before_a_step_ahead_is_not_as_old_as_it_seems() -> None:
    clock = ManualClock()
    steps = Steps(clock)
    clock.advance(60)
    stepped(clock, steps, HOUR)
    assert steps.said() == HOUR
    assert steps.said() == timedelta(), "it is said once"
    assert steps.back is None
    assert steps.skipped(NOON, NOON) == HOUR
    delayed = clock.now() - 60 * SECOND
    assert steps.skipped(delayed, NOON) == HOUR, "it was due later than the clock said then"
    clock.advance(60)
    assert steps.skipped(clock.now(), clock.now()) == timedelta()


def test_two_steps_add_up() -> None:
    clock = ManualClock()
    steps = Steps(clock)
    stepped(clock, steps, HOUR)
    between = clock.now()
    clock.advance(60)
    stepped(clock, steps, 2 * HOUR)
    assert steps.skipped(NOON - SECOND, NOON - SECOND) == 3 * HOUR
    assert steps.skipped(between, between) == 2 * HOUR


@pytest.mark.parametrize("drift", [timedelta(seconds=1), timedelta(seconds=-1)])
def test_small_drifts_are_no_steps_however_many_they_are(drift: timedelta) -> None:
    clock = ManualClock()
    steps = Steps(clock)
    for _ in range(100):
        clock.advance(5)
        stepped(clock, steps, drift)
    assert (steps.said(), steps.back, steps.skipped(NOON, NOON)) == (timedelta(), None, timedelta())


def test_time_that_the_machine_slept_has_passed() -> None:
    clock = ManualClock()
    steps = Steps(clock)
    clock.advance(8 * 3600)  # on the clock that goes on meanwhile too
    steps.look()
    assert (steps.said(), steps.skipped(NOON, NOON)) == (timedelta(), timedelta())


def test_a_step_back_is_to_be_seen_to_once() -> None:
    clock = ManualClock()
    steps = Steps(clock)
    stepped(clock, steps, -HOUR)
    assert steps.back == HOUR
    clock.advance(5)
    steps.look()
    assert steps.back == HOUR, "nobody has"
    stepped(clock, steps, -2 * HOUR)
    assert steps.back == 3 * HOUR
    steps.seen_to(HOUR)
    assert steps.back == 2 * HOUR, "while something was done about the first"
    steps.seen_to(2 * HOUR)
    assert steps.back is None


@pytest.mark.parametrize("step", [10 * SECOND, HOUR])
def test_a_step_back_takes_back_one_ahead(step: timedelta) -> None:
    clock = ManualClock()
    steps = Steps(clock)
    stepped(clock, steps, step)
    clock.advance(5)
    stepped(clock, steps, -step)
    assert steps.skipped(NOON - SECOND, NOON - SECOND) == timedelta()
    assert steps.back == (HOUR if step == HOUR else None), "little is not worth moving anything"


def test_a_clock_that_is_behind_what_is_stored_at_the_start_was_set_back() -> None:
    assert Steps(ManualClock(), newest=NOON + HOUR).back == HOUR
    assert Steps(ManualClock(), newest=NOON + 29 * SECOND).back is None


def test_of_a_step_back_that_is_shorter_something_is_left() -> None:
    clock = ManualClock()
    steps = Steps(clock)
    stepped(clock, steps, 3 * HOUR)
    stepped(clock, steps, -HOUR)
    assert steps.skipped(NOON - SECOND, NOON - SECOND) == 2 * HOUR
    stepped(clock, steps, -6 * HOUR)
    assert steps.back == 7 * HOUR


def test_a_clock_that_was_behind_and_is_put_right_makes_nothing_younger_than_it_is() -> None:
    """Without a clock of its own a machine may begin in 1970, until NTP has answered."""
    clock = ManualClock(NOON - 1000 * HOUR)
    steps = Steps(clock, newest=NOON)
    born = clock.now()
    clock.advance(10)
    stepped(clock, steps, 1002 * HOUR)
    earlier = NOON - HOUR
    assert steps.skipped(earlier, earlier) == timedelta(), "it is of an earlier run: more than three hours old"
    assert steps.skipped(born, born) == 1002 * HOUR, "it has waited for ten seconds"
    assert steps.skipped(born + HOUR, born) == 1002 * HOUR, "it has a delay"


def test_what_was_seen_outlives_a_restart_unless_it_was_taken_back() -> None:
    clock = ManualClock()
    steps = Steps(clock)
    stepped(clock, steps, HOUR)
    saved = steps.saved()
    again = Steps(clock)
    again.restore(saved)
    assert again.skipped(NOON - SECOND, NOON - SECOND) == HOUR
    clock.step(-HOUR)
    again = Steps(clock)
    again.restore(saved)
    assert again.skipped(NOON - SECOND, NOON - SECOND) == timedelta()
    again.restore(None)
