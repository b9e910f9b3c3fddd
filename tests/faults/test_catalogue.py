"""The catalogue of faults and attacks is whole, and what it names exists."""

from __future__ import annotations

from collections import Counter

from tests.torture.catalogue import ROWS
from tests.torture.row import TOP

WANTED = [
    f"{letter}{number}"
    for letter, numbers in (
        ("D", (*range(1, 17), 18, 19, 20)),
        ("N", range(1, 10)),
        ("I", range(1, 8)),
        ("O", range(1, 11)),
        ("S", range(1, 12)),
    )
    for number in numbers
]


def test_no_row_is_missing_or_there_twice() -> None:
    found = Counter(row.id for row in ROWS)
    assert sorted(found) == sorted(WANTED)
    assert max(found.values()) == 1


def test_each_row_says_what_is_done_and_what_must_hold() -> None:
    assert all(row.promise and row.fault and row.injected and row.must for row in ROWS)


def test_the_rows_are_in_order() -> None:
    assert [row.id for row in ROWS] == WANTED


def test_ci_tries_them_and_takes_results_of_tests_from_where_make_leaves_them() -> None:
    assert "--junitxml=build/tests.xml" in (TOP / "Makefile").read_text()
    assert "--tested build/tests.xml" in (TOP / ".ci" / "run").read_text()


def test_the_page_says_how_to_run_them() -> None:
    page = (TOP / "docs" / "reliability.md").read_text()
    for option in ("--only", "--count", "--jobs", "--results", "--tested", "--untimed"):
        assert option in page, option
