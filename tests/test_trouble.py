"""What is said of a store that cannot be written: enough, and no more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.stores.sqlite import open_store
from relay.trouble import Trouble
from tests.fakes import ManualClock, until
from tests.test_dispatcher import Sending, routes

GONE = "the database cannot be written: disk I/O error"
FULL = "no space: 3 MiB are left"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log says, in order."""
    lines: list[str] = []
    monkeypatch.setattr("relay.journal.store_trouble", lines.append)
    monkeypatch.setattr("relay.journal.store_recovered", lambda: lines.append("recovered"))
    return lines


async def test_a_window_that_cannot_be_taken_for_minutes_is_told_once_a_minute(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "relay.db"
    seen_by_store = ManualClock()
    store = await open_store(path, clock=seen_by_store)
    sending = Sending(store, routes("r", more="batch: {max: 5, wait: 1s}"), most_bytes=1_000_000)
    clock, trouble, tries = sending.clock, sending.dispatcher.trouble, 0
    failed = trouble.failed

    def counted(reason: str) -> None:
        nonlocal tries
        tries += 1
        failed(reason)

    async with sending.notices, sending.dispatcher:
        await sending.dispatcher.follow(sending.routes)
        await sending.owe(b"{}", "r")
        path.rename(path.with_name("moved.db"))
        trouble.failed = counted  # type: ignore[method-assign]
        for second in range(150):
            clock.advance(1)
            sending.dispatcher._schedule._woken.set()
            await until(lambda: tries > second)  # noqa: B023
            await asyncio.sleep(0)  # the route rests now
        assert len(said) == 3
        assert len(set(said)) == 1
        path.with_name("moved.db").rename(path)
        seen_by_store.advance(2)
        clock.advance(2)
        await until(lambda: store.counts() == {})
        trouble.look(store.trouble())
        clock.advance(10)
        trouble.look(store.trouble())
        assert said[3:] == ["recovered"]
    await store.close()


def test_each_reason_is_told_when_it_begins_and_numbers_make_no_other(said: list[str]) -> None:
    trouble = Trouble(ManualClock())
    for reason in (FULL, FULL.replace("3", "2"), GONE, GONE):
        trouble.look(reason)
    assert said == [FULL, GONE]


def test_what_fails_now_and_then_is_not_over_and_what_begins_again_is_told_at_once(said: list[str]) -> None:
    clock = ManualClock()
    trouble = Trouble(clock)
    trouble.look(None)
    for _ in range(9):  # a small write succeeds where a larger one does not
        trouble.failed(FULL)
        clock.advance(5)
        trouble.look(None)
    assert said == [FULL]
    clock.advance(5)
    for _ in range(2):
        trouble.look(None)
    trouble.failed(FULL)
    assert said == [FULL, "recovered", FULL]
