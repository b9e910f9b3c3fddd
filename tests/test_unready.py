"""Deliveries whose payload no helper rendered: they do not count, and do not come too often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from relay.delivery import Code, Delivery, Failure, Retryable, Trigger, Unready
from relay.event import Change, Description, Event
from relay.ids import DeliveryId, EventId
from relay.unready import MOST_ENDED, Rounds
from tests.fakes import NOON

NONE = Unready(Failure(Code.INTERRUPTED, "no helper can be started"), begun=False)
ENDED = Unready(Failure(Code.INTERRUPTED, "its helper was ended by signal 9"), begun=True)


def delivery(number: int = 1) -> Delivery:
    what = Description("entry.publish", (Change("page", "published", "publish", "7"),))
    event = Event(EventId(1), "blog", "strapi", NOON, what, (), b"{}", b"")
    return Delivery(DeliveryId(number), "www", event, NOON, NOON)


def pause(outcome: Retryable) -> float:
    assert outcome.retry_after is not None
    assert not outcome.counts
    return (outcome.retry_after - NOON).total_seconds()


def test_what_finds_no_helper_waits_longer_each_time_and_never_counts() -> None:
    rounds, one = Rounds(), delivery()
    pauses = [pause(rounds.again(one, NONE, NOON)) for _ in range(50)]
    assert pauses[:9] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert set(pauses[9:]) == {300}


def test_what_has_its_helper_ended_again_and_again_counts_in_the_end() -> None:
    rounds, one = Rounds(), delivery()
    for _ in range(20):
        assert not rounds.again(one, NONE, NOON).counts, "that nobody ended"
    for _ in range(MOST_ENDED):
        assert not rounds.again(one, ENDED, NOON).counts
    for _ in range(3):
        assert rounds.again(one, ENDED, NOON) == Retryable(ENDED.failure)
    assert not rounds.again(one, NONE, NOON).counts
    assert not rounds.again(delivery(2), ENDED, NOON).counts, "another one"


def test_a_retry_by_hand_and_a_rendering_begin_anew() -> None:
    rounds, one = Rounds(), delivery()
    for _ in range(MOST_ENDED + 1):
        rounds.again(one, ENDED, NOON)
    by_hand = replace(one, trigger=Trigger.MANUAL, attempts=30)
    assert pause(rounds.again(by_hand, ENDED, NOON)) == 2
    for _ in range(MOST_ENDED):
        rounds.again(one, ENDED, NOON)
    rounds.over(one)
    assert pause(rounds.again(one, ENDED, NOON)) == 2


def test_only_so_many_are_remembered() -> None:
    rounds = Rounds()
    for number in range(5000):
        rounds.again(delivery(number), ENDED, NOON)
    assert len(rounds._known) == 1000
    assert rounds.again(delivery(4999), ENDED, NOON).retry_after == NOON + timedelta(seconds=4)
