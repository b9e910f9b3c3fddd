"""By what repeats are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from relay import dedup
from tests.fakes import NOON

HOUR = timedelta(hours=1)


def test_keys_of_what_has_a_time_follow_each_other_as_the_times_do() -> None:
    moments = [NOON + timedelta(milliseconds=number) for number in range(300)]
    keys = [dedup.of_source("blog", dedup.known_by(b"body", window=HOUR, at=at)).key for at in moments]
    assert keys == sorted(keys)
    assert {len(key) for key in keys} == {16}


def test_a_time_before_all_times_is_a_time_too() -> None:
    long_ago = datetime(1960, 1, 1, tzinfo=UTC)
    assert dedup.known_by(b"body", window=HOUR, at=long_ago).key[:6] == bytes(6)


def test_neither_sources_nor_parts_run_into_each_other() -> None:
    marks = [
        dedup.of_source(name, dedup.known_by(*parts, window=HOUR, at=at))
        for name in ("a", "b")
        for parts in ((b"ab", b"c"), (b"a", b"bc"))
        for at in (None, NOON)
    ]
    assert len({mark.key for mark in marks}) == len(marks)


def test_a_mark_is_what_it_was_under_the_relay_before() -> None:
    """Those that are stored must be known again after an upgrade."""
    mark = dedup.of_source("bl\u00f6g", dedup.known_by(b"one", b"two", window=HOUR, at=NOON))
    assert mark.key.hex() == "01a20846fe00a59710adc541a56da143"
    assert dedup.of_source("a", dedup.known_by(b"one", window=HOUR)).key.hex() == "9f53f3473312dd7903076dc9b3126af1"
