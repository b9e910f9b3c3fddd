"""A route's health, outcome by outcome."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from relay.delivery import Code, Delivered, Failure, Outcome, Refused, Retryable, Trigger
from relay.health import PausedBy, RouteHealth, RouteState, Tolerance, Turn, restored
from relay.ids import DeliveryId
from tests.fakes import NOON

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
THREE = Tolerance(unhealthy_after=3)


def down(code: Code = Code.CONNECT_ERROR, asked: datetime | None = None, counts: bool = True) -> Retryable:
    return Retryable(Failure(code, "no luck"), asked, counts)


def tell(
    health: RouteHealth,
    outcome: Outcome,
    now: datetime = NOON,
    status: int | None = None,
    trigger: Trigger = Trigger.INITIAL,
    tolerance: Tolerance = THREE,
) -> Turn | None:
    return health.saw(outcome, status, trigger, DeliveryId(7), now, tolerance)


def unwell() -> RouteHealth:
    health = RouteHealth()
    assert [tell(health, down()) for _ in range(3)] == [None, None, Turn.UNHEALTHY]
    return health


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503, 599])
def test_statuses_that_say_that_it_cannot_be_used_count(status: int) -> None:
    health = RouteHealth()
    tell(health, down(Code.HTTP_STATUS), status=status)
    assert health.consecutive_failures == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Refused(Failure(Code.REFUSED, "HTTP 422")), 422),
        (Refused(Failure(Code.TEMPLATE_ERROR, "line 1")), None),
        (down(Code.HTTP_STATUS), 301),
        (down(Code.HTTP_STATUS), 409),
        (down(counts=False), None),
    ],
)
def test_what_says_nothing_of_the_destination_neither_counts_nor_makes_well(outcome: Outcome, status: int) -> None:
    health = RouteHealth()
    tell(health, down())
    assert tell(health, outcome, status=status) is None
    assert health.consecutive_failures == 1


def test_a_success_begins_the_count_anew() -> None:
    health = RouteHealth()
    for outcome in (down(), down(), Delivered(), down(), down()):
        assert tell(health, outcome) is None
    assert (health.state, health.consecutive_failures) == (RouteState.HEALTHY, 2)


def test_probes_go_out_after_half_a_minute_and_then_ever_more_rarely_up_to_ten_minutes() -> None:
    health, now, waits = unwell(), NOON, []
    for _ in range(7):
        due = health.probe_due(now)
        assert due is not None
        waits.append((due - now) / SECOND)
        now = due
        tell(health, down(), now, trigger=Trigger.PROBE)
    assert waits == [30, 60, 120, 240, 480, 600, 600]
    assert tell(health, Delivered(), now, trigger=Trigger.PROBE) is Turn.RECOVERED
    assert (health.state, health.slots(8), health.probe_at) == (RouteState.HEALTHY, 1, None)


def test_a_probe_that_is_refused_leaves_the_next_one_due() -> None:
    health = unwell()
    now = NOON + MINUTE
    tell(health, Refused(Failure(Code.REFUSED, "HTTP 422")), now, 422, Trigger.PROBE)
    assert health.state is RouteState.UNHEALTHY
    assert health.probe_due(now) == NOON + 30 * SECOND


def test_a_destination_that_says_when_to_come_back_is_not_probed_before() -> None:
    health = unwell()
    tell(health, down(Code.HTTP_STATUS, NOON + 5 * MINUTE), NOON, 503, Trigger.PROBE)
    assert health.probe_due(NOON) == NOON + 5 * MINUTE


@pytest.mark.parametrize("status", [201, 204, 302, 400, 503])
def test_where_any_answer_counts_the_route_is_paused_by_it(status: int) -> None:
    health = RouteHealth()
    prismic = Tolerance(unhealthy_after=5, disable_after=5, any_answer=True)
    turns = [tell(health, down(Code.HTTP_STATUS), status=status, tolerance=prismic) for _ in range(5)]
    assert turns == [None] * 4 + [Turn.PAUSED]


def test_where_any_answer_counts_it_is_still_no_outage() -> None:
    health = RouteHealth()
    tolerant = Tolerance(unhealthy_after=2, disable_after=None, any_answer=True)
    for outcome in (*[down(Code.HTTP_STATUS)] * 3, down(Code.INTERRUPTED)):
        assert tell(health, outcome, status=400, tolerance=tolerant) is None
    assert (health.state, health.consecutive_failures) == (RouteState.HEALTHY, 3)
    assert tell(health, down(Code.HTTP_STATUS), status=500, tolerance=tolerant) is Turn.UNHEALTHY


def test_a_clock_that_is_set_back_puts_no_probe_off() -> None:
    health = unwell()
    yesterday = NOON - timedelta(days=1)
    assert health.probe_due(yesterday) == yesterday + 30 * SECOND


def test_concurrency_grows_from_one_with_each_success() -> None:
    health = unwell()
    health.resume(NOON)
    grown = []
    for _ in range(4):
        grown.append(health.slots(3))
        tell(health, Delivered())
    assert grown == [1, 2, 3, 3]


def test_410_and_too_many_failures_pause_and_only_a_person_or_another_destination_lifts_it() -> None:
    gone, broken = RouteHealth(), RouteHealth()
    gone.aimed("a", NOON)
    assert tell(gone, Refused(Failure(Code.GONE, "HTTP 410")), status=410) is Turn.PAUSED
    assert [tell(broken, down(), tolerance=Tolerance(5, 2)) for _ in range(2)] == [None, Turn.PAUSED]
    for health in (gone, broken):
        tell(health, Delivered())
        assert (health.state, health.slots(8), health.by_itself) == (RouteState.PAUSED, 0, True)
    assert gone.aimed("b", NOON)
    assert broken.resume(NOON)
    assert gone.state is broken.state is RouteState.HEALTHY


def test_what_a_person_paused_no_destination_lifts() -> None:
    health = RouteHealth()
    health.aimed("a", NOON)
    assert health.pause("a content freeze", NOON)
    assert not health.pause("again", NOON)
    assert not health.aimed("b", NOON)
    tell(health, Delivered())
    assert (health.state, health.by_itself) == (RouteState.PAUSED, False)


def test_all_that_matters_outlives_a_restart() -> None:
    for health in (RouteHealth(), unwell()):
        tell(health, down(), NOON, trigger=Trigger.PROBE)
        assert restored(health.saved()) == health


@pytest.mark.parametrize(
    ("by", "reason", "said"),
    [
        (PausedBy.HAND, "by hand (kim)", "paused by hand (kim)"),
        (PausedBy.HAND, "content freeze", "paused by hand (content freeze)"),
        (PausedBy.RESTORED, "restored from a backup", "paused (restored from a backup)"),
        (PausedBy.GONE, "HTTP 410", None),
        (PausedBy.FAILURES, "20 failures in a row", None),
    ],
)
def test_a_pause_that_a_person_is_to_end_is_told_from_those_of_relay(
    by: PausedBy, reason: str, said: str | None
) -> None:
    health = RouteHealth()
    assert health.kept_by_people is None
    health.pause(reason, NOON, by)
    assert health.kept_by_people == said
    health.resume(NOON)
    assert health.kept_by_people is None
