"""The ring of minutes behind the dashboard's charts."""

from __future__ import annotations

from datetime import timedelta

from relay.pace import MINUTES, Minute, Pace
from tests.fakes import NOON


def counted(pace: Pace, minutes_later: int = 0) -> list[tuple[int, int, int]]:
    return [
        (minute.events, minute.delivered, minute.failed)
        for minute in pace.last_hour(NOON + timedelta(minutes=minutes_later))
    ]


def test_the_last_hour_is_sixty_minutes_with_the_present_one_last() -> None:
    minutes = Pace().last_hour(NOON + timedelta(seconds=30))
    assert [minute.at for minute in minutes] == [NOON - timedelta(minutes=back) for back in reversed(range(MINUTES))]
    assert [minute.events for minute in minutes] == [0] * MINUTES


def test_each_thing_is_counted_in_its_minute() -> None:
    pace = Pace()
    pace.accepted(NOON)
    pace.accepted(NOON + timedelta(seconds=59))
    pace.delivered(NOON + timedelta(seconds=60))
    pace.failed(NOON + timedelta(seconds=61))
    assert counted(pace, 1)[-2:] == [(2, 0, 0), (0, 1, 1)]


def test_what_is_older_than_an_hour_is_gone_and_its_place_counts_anew() -> None:
    pace = Pace()
    pace.accepted(NOON)
    assert counted(pace, MINUTES - 1)[0] == (1, 0, 0)
    assert sum(events for events, _, _ in counted(pace, MINUTES)) == 0
    pace.accepted(NOON + timedelta(minutes=MINUTES))
    assert counted(pace, MINUTES)[-1] == (1, 0, 0)


def test_a_clock_that_is_set_back_spoils_nothing_but_the_minutes_it_passes_again() -> None:
    pace = Pace()
    pace.accepted(NOON)
    pace.accepted(NOON - timedelta(minutes=2))
    assert counted(pace)[-3:] == [(1, 0, 0), (0, 0, 0), (1, 0, 0)]


def test_after_a_start_the_store_says_what_was_before() -> None:
    pace = Pace()
    number = int(NOON.timestamp()) // 60
    pace.seed(Minute(number - 1, events=3, delivered=2, failed=1))
    pace.seed(Minute(number, events=1))
    pace.accepted(NOON)
    assert counted(pace)[-2:] == [(3, 2, 1), (2, 0, 0)]
