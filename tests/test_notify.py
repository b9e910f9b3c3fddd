"""Facts come in, messages go out: by whom, when, and what happens when they cannot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from relay import journal
from relay.client import HttpTransport
from relay.egress import Egress
from relay.notifier import Means, Message, NotSent, types
from relay.notify import Kind, Notices
from relay.secret import Redactor
from tests.fakes import NOON, ManualClock, until
from tests.harness import sink
from tests.notifiers.post_office import post_office

MINUTE = 60.0


class Listener:
    """A notifier that keeps what it is told, or does as told."""

    def __init__(self, answer: Callable[[Message], object] = lambda message: None) -> None:
        self.answer = answer
        self.tries: list[Message] = []
        self.heard: list[Message] = []

    async def send(self, message: Message) -> None:
        self.tries.append(message)
        said = self.answer(message)
        if isinstance(said, asyncio.Future):
            said = await said
        if isinstance(said, BaseException):
            raise said
        self.heard.append(message)

    @property
    def kinds(self) -> list[tuple[Kind, int]]:
        return [(message.kind, message.count) for message in self.heard]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the journal says, each line as its fields."""
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(journal, "_log", journal.Log(0, said.append))
    return said


def not_sent(lines: list[dict[str, Any]]) -> list[tuple[str, str, int, str]]:
    return [
        (line["notifier"], line["kind"], line["count"], line["reason"])
        for line in lines
        if line["event"] == "notice_not_sent"
    ]


def say(notices: Notices, kind: Kind = Kind.DELIVERY_FAILED, subject: str = "www", *to: str, **more: Any) -> None:
    notices.tell(to or ("ops",), kind, subject, **{"reason": "HTTP 503", "at": NOON, **more})


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_each_kind_of_message_comes_once_for_one_outage(lines: list[dict[str, Any]]) -> None:
    clock, ops = ManualClock(), Listener()
    async with Notices(clock) as notices:
        notices.follow({"ops": ops})
        say(notices, Kind.UNHEALTHY)
        for _ in range(50):
            clock.advance(MINUTE)
            say(notices, Kind.DELIVERY_FAILED)
            say(notices, Kind.QUEUE_FULL)
            await turns()
        say(notices, Kind.RECOVERED, at=clock.now())
        say(notices, Kind.SOURCE_SILENT)
        say(notices, Kind.SOURCE_REJECTED)
        clock.advance(60 * MINUTE)
        say(notices, Kind.SOURCE_HEARD)
        await until(lambda: len(ops.heard) == 6)
    assert ops.kinds == [
        (Kind.UNHEALTHY, 1), (Kind.QUEUE_FULL, 1), (Kind.RECOVERED, 1), (Kind.SOURCE_SILENT, 1),
        (Kind.SOURCE_REJECTED, 1), (Kind.SOURCE_HEARD, 1),
    ]  # fmt: skip
    assert "Meanwhile 50 deliveries failed and 49 deliveries found the queue full." in ops.heard[2].text
    assert "for 50 min" in ops.heard[2].text
    assert [line["event"] for line in lines] == ["notice_sent"] * 6
    assert {key: lines[2][key] for key in ("level", "notifier", "kind", "subject", "count")} == {
        "level": "info", "notifier": "ops", "kind": "recovered", "subject": "www", "count": 1,
    }  # fmt: skip


async def test_what_is_held_back_is_told_when_ten_minutes_are_over() -> None:
    clock, ops = ManualClock(), Listener()
    async with Notices(clock) as notices:
        notices.follow({"ops": ops})
        for n in range(4):
            say(notices, ids=[f"dlv_{n}"])
        await turns()
        clock.advance(5 * MINUTE)
        say(notices, subject="blog")
        say(notices, subject="blog")
        await turns()
        assert ops.kinds == [(Kind.DELIVERY_FAILED, 1)] * 2
        clock.tick(5 * MINUTE)  # also when the wall clock stands still
        await until(lambda: len(ops.heard) == 3)
        assert "They are dlv_1, dlv_2, dlv_3." in ops.heard[2].text
        clock.advance(5 * MINUTE)
        await until(lambda: len(ops.heard) == 4)
        assert [message.subject for message in ops.heard] == ["www", "blog", "www", "blog"]


async def test_a_notifier_that_hangs_delays_no_other() -> None:
    clock, ops = ManualClock(), Listener()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    hangs = Listener(lambda message: never)
    async with Notices(clock, drain=timedelta(0)) as notices:
        notices.follow({"ops": ops, "chat": hangs})
        for subject in "abc":
            say(notices, Kind.UNHEALTHY, subject, "chat", "ops")
        await until(lambda: len(ops.heard) == 3)
        assert len(hangs.tries) == 1


async def test_a_notifier_that_hangs_is_cut_off(monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]) -> None:
    monkeypatch.setattr("relay.notify._LONGEST_TRY", 0.01)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    clock, hangs = ManualClock(), Listener(lambda message: asyncio.shield(never))
    async with Notices(clock) as notices:
        notices.follow({"chat": hangs})
        say(notices, Kind.PAUSED, "www", "chat")
        for n in range(1, 4):
            while len(hangs.tries) < n:
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            clock.advance(10 * MINUTE)
        await until(lambda: lines)
    assert not_sent(lines) == [("chat", "paused", 1, "it did not end within 0.01 s")]


async def test_a_message_is_tried_three_times_with_growing_pauses_and_then_given_up(
    lines: list[dict[str, Any]],
) -> None:
    clock, ops = ManualClock(), Listener(lambda message: NotSent("HTTP 503"))
    async with Notices(clock) as notices:
        notices.follow({"ops": ops})
        say(notices)
        for seconds, tries in ((9, 1), (1, 2), (299, 2), (1, 3), (86_400, 3)):
            await turns()
            clock.advance(seconds)
            await turns()
            assert len(ops.tries) == tries
        assert not_sent(lines) == [("ops", "delivery_failed", 1, "HTTP 503")]
        assert lines[0]["level"] == "error"
        ops.answer = lambda message: None
        say(notices, Kind.PAUSED)
        await until(lambda: ops.heard)


async def test_what_arrives_with_the_second_try_is_said_to_be_sent(lines: list[dict[str, Any]]) -> None:
    clock, ops = ManualClock(), Listener(lambda message: NotSent("busy") if len(ops.tries) < 2 else None)
    async with Notices(clock) as notices:
        notices.follow({"ops": ops})
        say(notices)
        await turns()
        clock.advance(10)
        await until(lambda: ops.heard)
    assert [line["event"] for line in lines] == ["notice_sent"]


@pytest.mark.parametrize(("asks", "waits"), [(45, 45), (2, 10), (86_400, 900)])
async def test_a_service_that_asks_for_patience_is_left_alone(asks: int, waits: int) -> None:
    clock, ops = ManualClock(), Listener(lambda message: NotSent("HTTP 429", after=timedelta(seconds=asks)))
    async with Notices(clock, drain=timedelta(0)) as notices:
        notices.follow({"ops": ops})
        say(notices)
        await turns()
        clock.advance(waits - 1)
        await turns()
        assert len(ops.tries) == 1
        clock.advance(1)
        await until(lambda: len(ops.tries) == 2)


def _all_but_bob(message: Message) -> NotSent | None:
    """Of whom others than bob are told, who is told by the second try after that."""
    match message.done:
        case ():
            return NotSent("bob is busy", rest=replace(message, done=("ops",)))
        case ("ops",):
            return NotSent("bob is busy", rest=replace(message, done=("ops", "cy")))
    return None


async def test_another_try_goes_to_whom_is_left_also_over_a_reload() -> None:
    clock, before, after = ManualClock(), Listener(_all_but_bob), Listener(_all_but_bob)
    async with Notices(clock) as notices:
        notices.follow({"ops": before})
        say(notices)
        await until(lambda: len(before.tries) == 1)
        notices.follow({"ops": after})
        for _ in range(2):
            await turns()
            clock.advance(5 * MINUTE)
        await until(lambda: len(after.heard) == 1)
        say(notices, subject="blog")
        await until(lambda: len(after.tries) > 2)
    assert [message.done for message in before.tries + after.tries][:4] == [(), ("ops",), ("ops", "cy"), ()]


async def test_who_alone_cannot_be_told_holds_up_nobody(lines: list[dict[str, Any]]) -> None:
    clock, ops = ManualClock(), Listener(_all_but_bob)
    async with Notices(clock) as notices:
        notices.follow({"ops": ops})
        for n in range(102):
            say(notices, subject=f"r{n}")
            await until(lambda n=n: len(ops.tries) == n + 1)  # type: ignore[misc]
        await until(lambda: notices.dropped == 2)
        for _ in range(2):
            await turns()
            clock.advance(5 * MINUTE)
        await until(lambda: len(ops.heard) == 100)
    assert [message.subject for message in ops.heard] == [f"r{n}" for n in range(100)]
    assert not_sent(lines) == [
        ("ops", "delivery_failed", 1, "more than 100 messages wait for this notifier")
    ] * 2  # fmt: skip


@pytest.mark.parametrize("later", [0, 1, 20])
async def test_who_is_left_is_waited_for_no_longer_when_relay_stops_or_the_notifier_goes(
    lines: list[dict[str, Any]], later: int
) -> None:
    ops, gone = Listener(_all_but_bob), Listener(_all_but_bob)
    async with Notices(ManualClock()) as notices:
        notices.follow({"ops": ops, "gone": gone})
        say(notices, Kind.DELIVERY_FAILED, "www", "ops", "gone")
        while not (ops.tries and gone.tries):  # not a turn later, when it may pause already
            await asyncio.sleep(0)
        for _ in range(later):
            await asyncio.sleep(0)
        notices.follow({"ops": ops})
        await until(lambda: not_sent(lines))
    assert [(who, reason) for who, _, _, reason in not_sent(lines)] == [("gone", "bob is busy"), ("ops", "bob is busy")]


async def test_what_cannot_help_is_not_tried_again_and_a_bug_ends_nothing(lines: list[dict[str, Any]]) -> None:
    answers: list[object] = [NotSent("denied", again=False), RuntimeError("oops"), None]
    ops = Listener(lambda message: answers.pop(0))
    async with Notices(ManualClock()) as notices:
        notices.follow({"ops": ops})
        for subject in "abc":
            say(notices, subject=subject)
        await until(lambda: ops.heard)
    assert [reason for *_, reason in not_sent(lines)] == ["denied", "the notifier failed by a bug"]
    assert [message.subject for message in ops.heard] == ["c"]
    assert any(line["event"] == "internal_error" for line in lines)


async def test_a_queue_has_a_bound_and_the_oldest_go_first(lines: list[dict[str, Any]]) -> None:
    ops = Listener()
    async with Notices(ManualClock()) as notices:
        notices.follow({"ops": ops})
        for n in range(103):
            say(notices, subject=f"r{n}")
        await until(lambda: len(ops.heard) == 100)
        assert notices.dropped == 3
    assert [message.subject for message in ops.heard] == [f"r{n}" for n in range(3, 103)]
    assert not_sent(lines) == [
        ("ops", "delivery_failed", 1, "more than 100 messages wait for this notifier")
    ] * 3  # fmt: skip


async def test_telling_never_raises(monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]) -> None:
    async with Notices(ManualClock()) as notices:
        say(notices, Kind.PAUSED, "www", "nobody")
        monkeypatch.setattr(notices, "_quota", None)
        say(notices)
        monkeypatch.undo()
    say(notices)
    assert not_sent(lines) == [("nobody", "paused", 1, "there is no such notifier")]


async def test_an_outage_that_ends_while_nobody_is_to_be_told_is_over() -> None:
    ops = Listener()
    async with Notices(ManualClock()) as notices:
        notices.follow({"ops": ops})
        say(notices, Kind.UNHEALTHY)
        notices.tell((), Kind.RECOVERED, "www", at=NOON)
        say(notices)
        await until(lambda: len(ops.heard) == 2)
    assert ops.kinds == [(Kind.UNHEALTHY, 1), (Kind.DELIVERY_FAILED, 1)]


# -- reload and stop ---------------------------------------------------------------------------------------------------


async def test_a_reload_puts_a_new_notifier_in_the_place_of_the_old_one(lines: list[dict[str, Any]]) -> None:
    clock, old, new, other = ManualClock(), Listener(lambda message: NotSent("old")), Listener(), Listener()
    async with Notices(clock) as notices:
        notices.follow({"ops": old, "gone": Listener(lambda message: NotSent("gone"))})
        say(notices, Kind.UNHEALTHY, "a", "ops", "gone")
        say(notices, Kind.UNHEALTHY, "b", "ops", "gone")
        await turns()
        notices.follow({"ops": new, "chat": other})
        say(notices, Kind.UNHEALTHY, "c", "chat")
        await until(lambda: other.heard)
        clock.advance(10)
        await until(lambda: len(new.heard) == 2)
    assert len(old.tries) == 1
    assert [message.subject for message in new.heard] == ["a", "b"]
    assert sorted(not_sent(lines)) == [
        ("gone", "unhealthy", 1, "gone"),
        ("gone", "unhealthy", 1, "the notifier is no longer in the config"),
    ]


async def test_what_is_told_before_the_start_waits_for_it() -> None:
    ops = Listener()
    notices = Notices(ManualClock())
    notices.follow({"ops": ops})
    notices.remember(Kind.UNHEALTHY, "www", NOON - timedelta(hours=1))
    say(notices)
    say(notices, Kind.RECOVERED)
    async with notices:
        await until(lambda: ops.heard)
    assert ops.kinds == [(Kind.RECOVERED, 1)]
    assert "for 1 h" in ops.heard[0].text
    assert "Meanwhile one delivery failed" in ops.heard[0].text


async def test_leaving_tells_what_waits_and_says_what_it_could_not_tell(lines: list[dict[str, Any]]) -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ops, hangs, fails = Listener(), Listener(lambda message: never), Listener(lambda message: NotSent("HTTP 503"))
    async with Notices(ManualClock(), drain=timedelta(seconds=0.05)) as notices:
        notices.follow({"ops": ops, "hangs": hangs, "fails": fails})
        for subject in "ab":
            say(notices, Kind.PAUSED, subject, "ops", "hangs", "fails")
        say(notices, subject="c")
        say(notices, subject="c")
        say(notices, subject="c")
    assert [message.subject for message in ops.heard] == ["a", "b", "c"]
    assert sorted(not_sent(lines)) == [
        ("fails", "paused", 1, "HTTP 503"),
        ("fails", "paused", 1, "HTTP 503"),
        ("hangs", "paused", 1, "relay stops"),
        ("hangs", "paused", 1, "relay stops"),
        ("ops", "delivery_failed", 2, "relay stops"),
    ]
    say(notices, Kind.PAUSED, "d")
    await notices.stop()
    assert len(ops.heard) == 3


async def test_a_pause_between_tries_does_not_hold_up_the_end(lines: list[dict[str, Any]]) -> None:
    ops = Listener(lambda message: NotSent("HTTP 503"))
    async with asyncio.timeout(2):
        async with Notices(ManualClock(), drain=timedelta(seconds=60)) as notices:
            notices.follow({"ops": ops})
            say(notices)
            await until(lambda: ops.tries)
            await turns()
    assert not_sent(lines) == [("ops", "delivery_failed", 1, "HTTP 503")]


# -- with real parts ---------------------------------------------------------------------------------------------------


async def test_one_fact_goes_out_by_mail_and_webhook_and_shows_no_secret(lines: list[dict[str, Any]]) -> None:
    secret = "geheim-geheim-geheim"
    redact = Redactor([secret])
    async with contextlib.AsyncExitStack() as stack:
        there = await stack.enter_async_context(sink(lambda request: 404 if request.path.startswith("/bad") else 200))
        office = await stack.enter_async_context(post_office())
        transport = await stack.enter_async_context(HttpTransport(Egress.of(())))
        means = Means(transport, ManualClock(), Egress.of(()), redact)
        sections: dict[str, dict[str, Any]] = {
            "mail": {
                "type": "email", "smtp": f"smtp://127.0.0.1:{office.port}", "from": "a@example.com",
                "to": ["b@example.com"],
            },
            "hook": {"type": "webhook", "url": f"{there.url}/good"},
            "bad": {"type": "webhook", "url": f"{there.url}/bad?key={secret}"},
        }  # fmt: skip
        notices = await stack.enter_async_context(Notices(ManualClock()))
        built = {
            name: types()[given["type"]].Config.model_validate(given).build(means) for name, given in sections.items()
        }
        notices.follow(built, redact)
        say(notices, Kind.UNHEALTHY, "www", *sections, reason=f"5 failures in a row, the last one: {secret}")
        await until(lambda: len(lines) == 3)
    assert not_sent(lines) == [("bad", "unhealthy", 1, "HTTP 404")]
    assert "the last one: ***." in office.mails[0].get_content()
    assert secret.encode() not in there.received[0].body
    assert secret not in str(lines)
