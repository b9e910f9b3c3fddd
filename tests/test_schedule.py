"""Routes are looked at when something of them becomes due, and nothing of what is past is kept."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from relay.schedule import Schedule
from tests.fakes import NOON, ManualClock

FAR = NOON + timedelta(days=1)
STEP = timedelta(seconds=1)


@pytest.mark.parametrize("count", [1, 50])
def test_what_becomes_due_again_and_again_before_what_is_far_takes_no_more_room(count: int) -> None:
    schedule = Schedule(ManualClock())
    names = [f"r{number}" for number in range(count)]
    most = 0
    for cycle in range(10_000 // count):
        now = NOON + cycle * STEP
        for name in names:
            schedule.expect(FAR, name)
            schedule.expect(now, name)
        assert schedule.due(now) == {*names}
        most = max(most, len(schedule._due))
    for name in names:
        schedule.expect(FAR, name)
    assert most <= 2 * count
    assert schedule.due(FAR - STEP) == set()
    assert schedule.due(FAR) == {*names}
    assert schedule.due(FAR) == set()


def test_each_route_is_looked_at_at_the_earliest_moment_that_was_expected_since_the_last_time() -> None:
    chance = random.Random(1)
    schedule = Schedule(ManualClock())
    earliest: dict[str, int] = {}
    for second in range(3000):
        for _ in range(chance.randrange(4)):
            name, due = f"r{chance.randrange(6)}", second + chance.choice([1, 2, 5, 30, 1000])
            schedule.expect(NOON + due * STEP, name)
            earliest[name] = min(due, earliest.get(name, due))
        come = {name for name, due in earliest.items() if due <= second}
        assert schedule.due(NOON + second * STEP) == come
        for name in come:
            del earliest[name]
        assert len(schedule._due) <= 2 * 6
