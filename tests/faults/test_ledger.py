"""The oracle of crashes: what comes again must have been in flight at one."""

from __future__ import annotations

import pytest

from tests.torture.ledger import CONCURRENCY, arrived, without

MANY = [(str(number), number) for number in range(3 * CONCURRENCY)]


@pytest.mark.parametrize(
    ("requests", "crashes", "kept"),
    [
        pytest.param(MANY, [], True, id="nothing comes again"),
        pytest.param([*MANY[:8], *MANY[:8]], [8], True, id="all in flight at a crash come again"),
        pytest.param([*MANY[:8], *MANY[:8], *MANY[:8]], [8, 16], True, id="and again after the next"),
        pytest.param([*MANY[:8], *MANY[8:16], *MANY[:8]], [8, 16], True, id="after a crash in which nothing came"),
        pytest.param([*MANY[:9], *MANY[:9]], [9], False, id="more than were in flight"),
        pytest.param([MANY[0], MANY[0]], [], False, id="without a crash"),
        pytest.param([MANY[0], MANY[0]], [2], False, id="a crash only afterwards"),
        pytest.param([MANY[0], MANY[1], MANY[1]], [1, 3], False, id="crashes before and after, but none between"),
        pytest.param([MANY[0], ("other", 0)], [1], False, id="the same event with another id"),
    ],
)
def test_repeats_without_a_crash_between_or_more_than_in_flight_are_seen(
    requests: list[tuple[str, int]], crashes: list[int], kept: bool
) -> None:
    assert arrived(requests, crashes).kept is kept


def test_what_is_sent_after_the_power_has_gone_does_not_count() -> None:
    """Relay heard of a sync that had ended, and the disk had not: what it sent then nobody sends without power."""
    sent = [("a", 1), ("b", 2), ("b", 2), ("a", 1), ("c", 3)]
    kept, crashes = without(sent, [3], [(1, 3)])
    assert (kept, crashes) == ([("a", 1), ("a", 1), ("c", 3)], [1])
    assert arrived(kept, crashes).repeats == 1
