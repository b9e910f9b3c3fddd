"""Moments and milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from relay.clock import SystemClock, from_ms, parse_rfc3339, rfc3339, to_ms


@pytest.mark.parametrize(
    "milliseconds", [0, 1, 999, 1000, -1, -999, -1000, -1001, 1_764_200_000_123, 253_402_300_799_999]
)
def test_a_moment_is_as_many_milliseconds_as_it_was_made_of(milliseconds: int) -> None:
    made = from_ms(milliseconds)
    assert made == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert made.tzinfo is UTC
    assert to_ms(made) == milliseconds


@pytest.mark.parametrize("milliseconds", [253_402_300_800_000, -62_135_596_800_001])
def test_what_no_calendar_has_is_no_moment(milliseconds: int) -> None:
    with pytest.raises(OverflowError):
        from_ms(milliseconds)


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00.000Z", "0999-12-31T23:59:59.999Z", "1969-12-31T23:59:59.001Z", "9999-12-31T23:59:59.999Z"],
)
def test_what_was_written_is_read_as_the_same(text: str) -> None:
    moment = parse_rfc3339(text)
    assert moment is not None
    assert rfc3339(moment) == text


def test_the_clock_says_the_same_in_milliseconds() -> None:
    clock = SystemClock()
    before, milliseconds, after = clock.now(), clock.now_ms(), clock.now()
    assert to_ms(before) <= milliseconds <= to_ms(after)
