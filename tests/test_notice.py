"""What people read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relay.notice import Fact, Notice, lasted
from relay.notifier import Kind
from tests.fakes import NOON

LATER = NOON + timedelta(minutes=12)
BOTH = {Kind.DELIVERY_FAILED: 3, Kind.QUEUE_FULL: 1}
FAILED = ["See: relay logs --route www --status failed", "Send again: relay retry --route www --status failed"]
WAIT = "Its deliveries wait; one at a time is tried, and once one has arrived the others follow by themselves."
HELD = "Its deliveries are held, new ones too, until somebody resumes it."
LOST = "Not every sender tries again: what was refused may be lost. Do both sides have the same secret?"
SENDS = "Does it still send, and to this address? Are its requests refused?"


def fact(kind: Kind, reason: str = "", **given: object) -> Fact:
    return Fact(kind, "www", LATER, reason, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("notice", "lines"),
    [
        (
            Notice(fact(Kind.UNHEALTHY, "5 failures in a row, the last one: HTTP 503"), 1, LATER, since=LATER),
            [
                "Route www is unhealthy",
                "Its destination cannot be used since 2026-11-23 12:12:00 UTC: 5 failures in a row, the last one: "
                "HTTP 503.",
                WAIT,
                "See: relay logs --route www --status pending",
            ],
        ),
        (
            Notice(fact(Kind.UNHEALTHY, "HTTP 503"), 5, NOON, since=LATER, meanwhile=BOTH),
            [
                "Route www keeps failing: unhealthy now",
                "Its destination cannot be used since 2026-11-23 12:12:00 UTC: HTTP 503.",
                "It changed 5 times since 2026-11-23 12:00:00 UTC.",
                "So far 3 deliveries failed and one delivery found the queue full.",
                WAIT,
                "See: relay logs --route www --status pending",
            ],
        ),
        (
            Notice(fact(Kind.RECOVERED), 1, LATER, since=NOON, meanwhile=BOTH),
            [
                "Route www has recovered",
                "It sends again since 2026-11-23 12:12:00 UTC.",
                "It could not since 2026-11-23 12:00:00 UTC, for 12 min.",
                "What waits is being sent, slowly at first.",
                "Meanwhile 3 deliveries failed and one delivery found the queue full.",
                *FAILED,
            ],
        ),
        (
            Notice(fact(Kind.RECOVERED, "resumed by ci"), 2, NOON),
            [
                "Route www keeps failing: recovered now",
                "It sends again since 2026-11-23 12:12:00 UTC: resumed by ci.",
                "It changed 2 times since 2026-11-23 12:00:00 UTC.",
                "What waits is being sent, slowly at first.",
            ],
        ),
        (
            Notice(fact(Kind.PAUSED, "HTTP 410: the destination is gone for good"), 1, LATER, since=LATER),
            [
                "Route www is paused",
                "It sends nothing since 2026-11-23 12:12:00 UTC: HTTP 410: the destination is gone for good.",
                HELD,
                "Resume it: relay resume www",
            ],
        ),
        (
            Notice(fact(Kind.DELIVERY_FAILED, "HTTP 400: the destination refuses this event"), 1, LATER, ("dlv_1",)),
            [
                "A delivery of route www failed",
                "It was given up at 2026-11-23 12:12:00 UTC: HTTP 400: the destination refuses this event.",
                "See: relay show dlv_1",
                "Send it again: relay retry dlv_1",
            ],
        ),
        (
            Notice(fact(Kind.DELIVERY_FAILED, "HTTP 400"), 7, NOON, ("dlv_1", "dlv_2")),
            [
                "7 deliveries of route www failed",
                "They were given up between 2026-11-23 12:00:00 UTC and 2026-11-23 12:12:00 UTC: the last one: "
                "HTTP 400.",
                "They are dlv_1, dlv_2 and 5 more.",
                *FAILED,
            ],
        ),
        (
            Notice(fact(Kind.QUEUE_FULL), 2, NOON, ("dlv_1", "dlv_2")),
            [
                "The queue of route www is full",
                "2 deliveries were stored as failed between 2026-11-23 12:00:00 UTC and 2026-11-23 12:12:00 UTC, "
                "because too much waits (max_pending).",
                "They are dlv_1, dlv_2.",
                "Why does so much wait? relay logs --route www --status pending,held",
                *FAILED,
            ],
        ),
        (
            Notice(fact(Kind.SOURCE_SILENT, "no event ever came, and one is expected every 1 h"), 1, LATER, since=NOON),
            [
                "Source www is silent",
                "Nothing comes from it: no event ever came, and one is expected every 1 h.",
                SENDS,
                "See: relay logs --source www --status rejected",
            ],
        ),
        (
            Notice(fact(Kind.SOURCE_HEARD), 1, LATER, since=NOON),
            ["Source www sends again", "An event came at 2026-11-23 12:12:00 UTC, after 12 min."],
        ),
        (
            Notice(fact(Kind.SOURCE_REJECTED, "5 in a row, the last one: no signature"), 1, LATER),
            [
                "Requests to source www are refused",
                "Several in a row were refused, until 2026-11-23 12:12:00 UTC: 5 in a row, the last one: no signature.",
                LOST,
                "See: relay logs --source www --status rejected",
            ],
        ),
    ],
)
def test_a_notice_says_what_happened_since_when_why_how_often_and_what_to_do(notice: Notice, lines: list[str]) -> None:
    message = notice.message()
    assert [message.title, *message.text.splitlines()] == lines
    assert (message.kind, message.subject) == (notice.last.kind, "www")
    assert (message.at, message.count) == (LATER, notice.count)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("count", [1, 2])
def test_no_reason_breaks_a_line_or_makes_a_message_long(kind: Kind, count: int) -> None:
    evil = "a\r\nb\x00c\u2028d\ud800 \x1b[31m" + "x" * 10_000
    made = Notice(Fact(kind, "s" * 500, LATER, evil), count, NOON, since=NOON, meanwhile=BOTH)
    message = made.message()
    assert message.title.isprintable()
    assert all(line.isprintable() and "\ud800" not in line for line in message.text.split("\n"))
    assert len(message.text.split("\n")) <= 8
    assert len(message.title) + len(message.text) < 1500
    message.text.encode()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (10**5, "1 d 3 h"),
    ],
)
def test_durations_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert lasted(timedelta(seconds=seconds)) == text
