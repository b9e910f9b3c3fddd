"""Who is told how often: facts at minutes, notices at minutes."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.notice import Fact, Notice
from relay.notifier import Kind
from relay.quota import Quota
from tests.fakes import NOON

UNHEALTHY, RECOVERED, PAUSED = Kind.UNHEALTHY, Kind.RECOVERED, Kind.PAUSED
FAILED, FULL = Kind.DELIVERY_FAILED, Kind.QUEUE_FULL


class Story:
    """Tells facts to a quota, minute by minute, and keeps what is told."""

    def __init__(self) -> None:
        self.quota = Quota()
        self.told: list[tuple[float, Notice]] = []
        self._minute = 0.0

    def until(self, minute: float) -> None:
        """Let time pass; what falls due is told."""
        while (due := self.quota.next_due()) is not None and due <= minute * 60:
            notices = self.quota.due(due)
            assert notices, "what is due is told"
            self.told += [(due / 60, notice) for notice in notices]
        self._minute = minute

    def at(self, minute: float, kind: Kind, subject: str = "www", *ids: str) -> Story:
        self.until(minute)
        fact = Fact(kind, subject, NOON + timedelta(minutes=minute), f"at {minute:g}", ids)
        notice = self.quota.saw(fact, minute * 60)
        if notice is not None:
            self.told.append((minute, notice))
        return self

    def ended(self) -> list[tuple[float, Kind, int]]:
        """Minute, kind and count of each notice, an hour later."""
        self.until(self._minute + 60)
        assert self.quota.next_due() is None
        return [(minute, notice.last.kind, notice.count) for minute, notice in self.told]


@pytest.mark.parametrize("kind", [FAILED, FULL, Kind.SOURCE_REJECTED])
def test_the_first_is_told_at_once_and_what_follows_in_one_notice_when_ten_minutes_are_over(kind: Kind) -> None:
    story = Story()
    for minute in range(10):
        story.at(minute, kind, "www", f"dlv_{minute}")
    assert story.ended() == [(0, kind, 1), (10, kind, 9)]
    last = story.told[-1][1]
    assert (last.first_at, last.last.at) == (NOON + timedelta(minutes=1), NOON + timedelta(minutes=9))
    assert last.ids == ("dlv_1", "dlv_2", "dlv_3", "dlv_4", "dlv_5")


def test_ten_minutes_after_a_notice_the_next_is_told_at_once() -> None:
    assert Story().at(0, FAILED).at(10, FAILED).at(15, FAILED).at(31, FAILED).ended() == [
        (0, FAILED, 1), (10, FAILED, 1), (20, FAILED, 1), (31, FAILED, 1),
    ]  # fmt: skip


def test_kinds_and_subjects_do_not_wait_for_each_other() -> None:
    story = Story().at(0, FAILED).at(0, FULL).at(0, FAILED, "blog").at(0, Kind.SOURCE_REJECTED)
    assert [(minute, notice.last.subject) for minute, notice in story.told] == [
        (0, "www"), (0, "www"), (0, "blog"), (0, "www"),
    ]  # fmt: skip


def test_an_outage_is_one_notice_when_it_opens_and_one_when_it_closes_and_one_if_the_queue_is_full() -> None:
    story = Story().at(0, UNHEALTHY)
    for minute in range(1, 120):
        story.at(minute, FAILED).at(minute, FULL)
    story.at(120, RECOVERED)
    assert story.ended() == [(0, UNHEALTHY, 1), (1, FULL, 1), (120, RECOVERED, 1)]
    closing = story.told[-1][1]
    assert closing.meanwhile == {FAILED: 119, FULL: 118}
    assert closing.since == NOON


def test_an_outage_of_a_minute_is_told_at_once_too() -> None:
    assert Story().at(0, UNHEALTHY).at(1, RECOVERED).ended() == [(0, UNHEALTHY, 1), (1, RECOVERED, 1)]


def test_an_outage_is_told_although_a_failure_just_was() -> None:
    story = Story().at(0, FAILED).at(1, FAILED).at(2, FAILED).at(3, UNHEALTHY).at(4, RECOVERED)
    assert story.ended() == [(0, FAILED, 1), (3, UNHEALTHY, 1), (4, RECOVERED, 1)]
    assert story.told[1][1].meanwhile == {FAILED: 2}, "what was held back goes with it"
    assert story.told[2][1].meanwhile == {}


def test_a_pause_closes_the_outage_and_ends_the_silence_about_failures() -> None:
    story = Story().at(0, UNHEALTHY).at(5, FAILED).at(6, PAUSED).at(7, FAILED).at(8, FULL).at(600, RECOVERED)
    assert story.ended() == [(0, UNHEALTHY, 1), (6, PAUSED, 1), (7, FAILED, 1), (8, FULL, 1), (600, RECOVERED, 1)]
    assert story.told[1][1].meanwhile == {FAILED: 1}
    assert story.told[-1][1].since == NOON


def test_a_route_that_flaps_is_told_once_when_it_opens_and_closes_and_then_summed_up() -> None:
    story = Story()
    for minute in range(0, 40, 2):
        story.at(minute, UNHEALTHY).at(minute, FAILED).at(minute + 1, RECOVERED)
    told = story.ended()
    for kind in (UNHEALTHY, RECOVERED):
        minutes = [minute for minute, told_kind, _ in told if told_kind is kind]
        assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(minutes)), told
    assert told[:2] == [(0, UNHEALTHY, 1), (1, RECOVERED, 1)]
    assert told[-1][1] is RECOVERED, "the last word is how it is"
    assert sum(count for _, _, count in told) == 40, "every turn is in some notice"
    assert sum(notice.meanwhile.get(FAILED, 0) for _, notice in story.told) == 20
    assert FAILED not in {kind for _, kind, _ in told}


def test_an_outage_that_opens_again_and_stays_is_told_when_the_rest_is_over() -> None:
    story = Story().at(0, UNHEALTHY).at(1, RECOVERED).at(2, UNHEALTHY).at(90, RECOVERED)
    assert story.ended() == [(0, UNHEALTHY, 1), (1, RECOVERED, 1), (10, UNHEALTHY, 1), (90, RECOVERED, 1)]
    assert story.told[2][1].since == story.told[3][1].since == NOON + timedelta(minutes=2)


def test_an_outage_within_the_rest_is_told_in_one_notice() -> None:
    story = Story().at(0, UNHEALTHY).at(1, RECOVERED).at(2, UNHEALTHY).at(3, FAILED).at(4, RECOVERED)
    assert story.ended() == [(0, UNHEALTHY, 1), (1, RECOVERED, 1), (11, RECOVERED, 2)]
    assert story.told[-1][1].meanwhile == {FAILED: 1}
    assert story.told[-1][1].since == NOON + timedelta(minutes=2)


def test_a_recovery_for_a_moment_leaves_the_outage_open() -> None:
    story = Story().at(0, UNHEALTHY).at(30, RECOVERED).at(31, UNHEALTHY).at(32, RECOVERED).at(33, UNHEALTHY)
    assert story.ended() == [(0, UNHEALTHY, 1), (30, RECOVERED, 1), (31, UNHEALTHY, 1), (41, UNHEALTHY, 2)]


def test_silence_and_its_end_are_told_like_an_outage() -> None:
    story = Story().at(0, Kind.SOURCE_SILENT).at(1, Kind.SOURCE_REJECTED).at(60, Kind.SOURCE_HEARD)
    assert story.ended() == [(0, Kind.SOURCE_SILENT, 1), (1, Kind.SOURCE_REJECTED, 1), (60, Kind.SOURCE_HEARD, 1)]
    assert story.told[-1][1].since == NOON


def test_a_source_and_a_route_of_one_name_are_two() -> None:
    story = Story().at(0, UNHEALTHY).at(1, Kind.SOURCE_SILENT).at(2, FAILED).at(3, RECOVERED)
    assert story.ended() == [(0, UNHEALTHY, 1), (1, Kind.SOURCE_SILENT, 1), (3, RECOVERED, 1)]


def test_an_outage_that_began_before_a_restart_is_closed_once() -> None:
    story = Story()
    story.quota.remember(UNHEALTHY, "www", NOON - timedelta(hours=2))
    assert story.at(1, FAILED).at(5, RECOVERED).ended() == [(5, RECOVERED, 1)]
    closing = story.told[0][1]
    assert (closing.since, closing.meanwhile) == (NOON - timedelta(hours=2), {FAILED: 1})


def test_an_end_whose_beginning_is_not_known_is_told() -> None:
    assert Story().at(0, RECOVERED).ended() == [(0, RECOVERED, 1)]


def test_nothing_is_remembered_of_who_is_well() -> None:
    story = Story().at(0, UNHEALTHY).at(1, RECOVERED).at(2, FAILED, "blog").at(3, FAILED, "blog")
    story.until(100)
    story.quota.due(6000)
    assert story.quota._subjects == {}


def test_what_is_not_told_yet_is_known_at_the_end() -> None:
    story = Story().at(0, FAILED).at(1, FAILED).at(2, FAILED).at(3, PAUSED).at(4, RECOVERED).at(5, PAUSED)
    rest = {notice.last.kind: notice.count for notice in story.quota.rest()}
    assert rest == {FAILED: 2, PAUSED: 1}
    assert story.quota.rest() == []


STATES = {UNHEALTHY, RECOVERED, PAUSED, Kind.SOURCE_SILENT, Kind.SOURCE_HEARD}
facts = st.tuples(st.floats(0, 400), st.sampled_from(Kind), st.sampled_from(["www", "blog"]))


@given(st.lists(facts, max_size=60))
def test_whatever_comes_no_kind_is_told_twice_in_ten_minutes_and_nothing_is_lost(
    given: list[tuple[float, Kind, str]],
) -> None:
    story = Story()
    given.sort()
    for minute, kind, subject in given:
        story.at(minute, kind, subject)
    story.ended()
    minutes, told, states = defaultdict(list), Counter[Kind](), {}
    for minute, notice in story.told:
        fact = notice.last
        minutes[fact.kind, fact.subject].append(minute)
        if fact.kind in STATES:
            states[fact.kind.about, fact.subject] = fact.kind
        else:
            told[fact.kind] += notice.count
        told.update(notice.meanwhile)
    assert all(later - earlier >= 9.999 for row in minutes.values() for earlier, later in itertools.pairwise(row))
    last = {(kind.about, subject): kind for _, kind, subject in given if kind in STATES}
    assert states == last, "the last notice says how it is"
    for known in story.quota._subjects.values():
        told.update(known.meanwhile)  # of an outage that is still open
    kinds = Counter(kind for _, kind, _ in given if kind not in STATES)
    assert told == kinds
