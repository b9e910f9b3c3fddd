"""The catalogue of faults and attacks is whole, and what it names exists."""

from __future__ import annotations

from collections import Counter

from tests.torture.catalogue import ROWS

WANTED = [
    f"{letter}{number}"
    for letter, last in (("D", 16), ("N", 9), ("I", 7), ("O", 9), ("S", 11))
    for number in range(1, last + 1)
]


def test_no_row_is_missing_or_there_twice() -> None:
    found = Counter(row.id for row in ROWS)
    assert sorted(found) == sorted(WANTED)
    assert max(found.values()) == 1


def test_each_row_says_what_is_done_and_what_must_hold() -> None:
    assert all(row.promise and row.fault and row.injected and row.must for row in ROWS)
