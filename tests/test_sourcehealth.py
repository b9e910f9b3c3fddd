"""Silence and refusals of a source."""

from __future__ import annotations

import json
from datetime import timedelta

from relay.notifier import Kind
from relay.sourcehealth import SourceHealth, Turn, restored
from tests.fakes import NOON

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def again(health: SourceHealth) -> SourceHealth:
    """After a restart."""
    return restored(json.loads(json.dumps(health.saved())))


def test_a_silence_is_told_once_when_it_opens_and_once_when_an_event_comes() -> None:
    health = SourceHealth(NOON)
    assert health.saw_event(NOON + MINUTE) is None
    assert health.silent(NOON + HOUR, HOUR) is None
    since = NOON + MINUTE
    reason = "the last event came at 2026-11-23 12:01:00 UTC, and one is expected every 1 h"
    assert health.silent(since + HOUR, HOUR) == Turn(Kind.SOURCE_SILENT, reason, since)
    assert health.silent(since + 2 * HOUR, HOUR) is None
    health = again(health)
    assert health.silent(since + 3 * HOUR, HOUR) is None
    assert health.silent_since == since
    assert health.saw_event(since + 4 * HOUR) == Turn(Kind.SOURCE_HEARD, "", since)
    assert health.saw_event(since + 4 * HOUR) is None
    assert health.silent_since is None


def test_where_nothing_was_ever_heard_it_counts_from_the_first_config() -> None:
    health = again(SourceHealth(NOON))
    assert health.silent(NOON + HOUR - MINUTE, HOUR) is None
    turn = health.silent(NOON + HOUR, HOUR)
    assert turn == Turn(Kind.SOURCE_SILENT, "no event ever came, and one is expected every 1 h", NOON)


def test_a_source_of_which_nothing_is_expected_is_never_silent() -> None:
    health = SourceHealth(NOON)
    assert health.silent(NOON + 1000 * HOUR, None) is None
    assert health.expected_by(None) is None
    assert health.expected_by(HOUR) == NOON + HOUR


def test_a_silence_ends_without_a_word_when_no_more_is_expected() -> None:
    health = SourceHealth(NOON)
    for less in (None, 10 * HOUR):
        assert health.silent(NOON + 2 * HOUR, HOUR) is not None
        assert health.silent(NOON + 2 * HOUR, less) is None
        assert health.silent_since is None
    assert health.saw_event(NOON + 3 * HOUR) is None


def test_a_clock_that_was_set_back_makes_no_silence() -> None:
    health = SourceHealth(NOON)
    health.saw_event(NOON + 10 * HOUR)
    assert health.silent(NOON, HOUR) is None


def test_five_refusals_in_a_row_are_told_once_until_an_event_is_accepted() -> None:
    health = SourceHealth(NOON)
    told = [health.saw_rejection(f"wrong {n}", NOON) for n in range(4)]
    health = again(health)
    told += [health.saw_rejection(f"wrong {n}", NOON) for n in range(4, 20)]
    assert told[4] == Turn(Kind.SOURCE_REJECTED, "5 in a row, the last one: wrong 4")
    assert [turn for turn in told if turn is not None] == [told[4]]
    assert (health.rejections, health.last_rejection) == (20, "wrong 19")
    health.saw_event(NOON)
    assert (health.rejections, health.last_rejection) == (0, None)
    assert [health.saw_rejection("wrong", NOON) is not None for _ in range(6)] == [False] * 4 + [True, False]


def test_an_event_between_refusals_starts_the_count_anew() -> None:
    health = SourceHealth(NOON)
    for _ in range(10):
        assert [health.saw_rejection("wrong", NOON) for _ in range(4)] == [None] * 4
        health.saw_event(NOON)


def test_all_of_it_outlives_a_restart() -> None:
    health = SourceHealth(NOON)
    health.saw_event(NOON + HOUR)
    health.saw_rejection("wrong", NOON + HOUR)
    health.silent(NOON + 9 * HOUR, HOUR)
    assert again(health) == health
