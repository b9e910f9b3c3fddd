"""What every store must promise where somebody sets the clock back: stored times never go back, what waits does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest

from relay.delivery import Mark
from relay.store import Unavailable
from relay.stores._sql import setback
from relay.window import Grouping, batch, debounce
from tests.contract.desk import SECOND, Desk, again
from tests.fakes import NOON

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DEBOUNCE = debounce(10 * SECOND, 25 * SECOND, (), timedelta())
BATCH = batch(99, 25 * SECOND, timedelta())
MARK = Mark(b"entry 7", b"v1", 60 * SECOND)


async def set_back(desk: Desk, by: timedelta, seen: bool) -> int:
    """Somebody sets the clock back, while a relay runs or while none does."""
    desk.clock.step(-by)
    if not seen:
        await desk.reopen()
    return await desk.store.set_back()


@pytest.mark.parametrize("grouping", [DEBOUNCE, BATCH])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_window_is_bounded_by_its_age_while_the_clock_is_behind(
    desk: Desk, grouping: Grouping, restarted: bool
) -> None:
    await desk.tell()  # the newest entry of the store
    desk.groupings["www"] = grouping
    desk.clock.step(-DAY)
    if restarted:
        await desk.reopen()
    began = desk.clock.now()
    carrier = await desk.tell()
    for seconds in (9, 9, 6):
        desk.wait(seconds)
        await desk.tell()
        if restarted:
            await desk.reopen()
    [found] = await desk.store.windows()
    assert (found.id, found.opened_at, found.due_at) == (carrier.id, began, began + 25 * SECOND)


async def test_a_window_of_a_replayed_event_is_open_from_when_that_was_replayed(desk: Desk) -> None:
    old = await desk.tell(route="other")
    desk.wait(3600)
    desk.groupings["www"] = DEBOUNCE
    carrier = await desk.replay(old.event)
    desk.wait(3)
    await desk.tell()
    [found] = await desk.store.windows()
    assert (found.id, found.opened_at) == (carrier.id, NOON + HOUR)
    assert found.due_at == desk.clock.now() + 10 * SECOND


@pytest.mark.parametrize("seen", [True, False])
async def test_a_window_that_was_open_goes_out_in_time_and_takes_no_more(desk: Desk, seen: bool) -> None:
    desk.groupings["www"] = DEBOUNCE
    carrier = await desk.tell()
    assert await set_back(desk, HOUR, seen) == 1
    assert await desk.store.windows() == []
    other = await desk.tell()
    desk.wait(10)
    assert await desk.claimed() == [carrier.id, other.id]


async def test_a_window_that_another_clock_opened_ahead_of_this_one_waits_for_its_event_alone(desk: Desk) -> None:
    desk.groupings["www"] = DEBOUNCE
    carrier = await desk.tell()
    desk.clock.step(-HOUR)
    began = desk.clock.now()
    for _ in range(3):
        await desk.tell()
        desk.wait(4)
    [found] = await desk.store.windows()
    assert (found.id, found.due_at) == (carrier.id, began + 10 * SECOND)


@pytest.mark.parametrize("seen", [True, False])
async def test_what_was_set_by_a_clock_that_was_ahead_is_moved_once(desk: Desk, seen: bool) -> None:
    soon, late = (await desk.add("www"))[0], (await desk.add("www"))[0]
    await desk.store.record(again(soon, NOON + 60 * SECOND))
    await desk.store.record(again(late, NOON + 2 * HOUR))
    before = NOON - DAY  # it is taken for NOON and a second, when they were recorded
    assert await set_back(desk, DAY, seen) == 2
    assert await desk.store.next_due("www", before) == before + 59 * SECOND
    assert await desk.store.next_due("www", before + 59 * SECOND) == before + 2 * HOUR - SECOND
    desk.wait(30)
    assert await desk.store.set_back() == 0
    assert await desk.store.next_due("www", before) == before + 59 * SECOND


async def test_a_step_ahead_and_back_leaves_all_as_it_was(desk: Desk) -> None:
    [waits, due] = await desk.add("www", "due")
    await desk.store.record(replace(again(waits, NOON + 2 * HOUR), at=NOON))
    desk.clock.step(HOUR)
    since = desk.clock.now()
    [later] = await desk.add("www")
    await desk.store.record(replace(again(later, since + 60 * SECOND), at=since))
    desk.clock.step(-HOUR)
    assert await desk.store.set_back() == 1, "only what came in between"
    assert await desk.store.next_due("www", NOON) == NOON + 60 * SECOND
    assert await desk.store.next_due("www", NOON + 60 * SECOND) == NOON + 2 * HOUR
    [found] = await desk.claim("due")
    assert (found.id, found.due, found.first_due) == (due.id, NOON, NOON)


@pytest.mark.parametrize("seen", [True, False])
async def test_max_age_stands_still_for_what_is_held_though_the_clock_is_set_back(desk: Desk, seen: bool) -> None:
    [delivery] = await desk.add("www")
    desk.wait(60)
    await desk.pause()
    await set_back(desk, HOUR, seen)
    desk.wait(2 * 3600)
    await desk.resume()
    [found] = await desk.claim()
    assert found.id == delivery.id
    assert timedelta() <= desk.clock.now() - found.first_due <= 60 * SECOND


async def test_what_is_born_held_while_the_clock_is_behind_stands_still_as_well(desk: Desk) -> None:
    await desk.tell(route="other")
    await desk.pause()
    desk.clock.step(-DAY)
    await desk.tell()
    desk.wait(3600)
    await desk.resume()
    [found] = await desk.claim()
    assert found.first_due == desk.clock.now()


@pytest.mark.parametrize("seen", [True, False])
async def test_a_repeat_is_known_no_longer_than_it_was_to_be(desk: Desk, seen: bool) -> None:
    async def repeated() -> bool:
        event = desk.about()
        return (await desk.store.add(event, [desk.owed(event)], MARK)).duplicate

    assert not await repeated()
    await set_back(desk, DAY, seen)
    desk.wait(59)
    assert await repeated()
    await set_back(desk, timedelta(), seen)  # a restart more changes nothing
    assert await repeated()
    desk.wait(1)
    assert not await repeated()


async def test_a_long_known_repeat_is_moved_once_however_often_relay_starts(desk: Desk) -> None:
    async def repeated() -> bool:
        event = desk.about()
        return (await desk.store.add(event, [desk.owed(event)], replace(MARK, window=DAY))).duplicate

    assert not await repeated()
    desk.clock.step(-12 * HOUR)
    for _ in range(4):
        await desk.reopen()
        await desk.store.set_back()
        desk.wait(3600)
    desk.wait(19 * 3600)
    assert await repeated()
    desk.wait(3600)
    assert not await repeated()


async def test_time_that_has_passed_before_the_clock_was_set_back_has_passed(desk: Desk) -> None:
    [delivery] = await desk.add("www")
    await desk.store.record(again(delivery, NOON + HOUR))
    desk.wait(40 * 60)
    desk.clock.step(-DAY)
    assert await desk.store.set_back(DAY) == 1
    due = await desk.store.next_due("www", desk.clock.now())
    assert due is not None
    left = due - desk.clock.now()
    # Where there may be several relays, each with a clock of its own, it waits anew.
    assert left == (HOUR - SECOND if desk.store.shared is not None else 20 * 60 * SECOND)
    for _ in range(2):
        assert await desk.store.set_back(DAY) == 0
    assert await desk.store.next_due("www", desk.clock.now()) == due


class Failing:
    """A store that fails in one of the steps in which it moves things, before or after it was done."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch, step: int, done: bool) -> None:
        writer = desk.store._writer  # type: ignore[attr-defined]
        self._call, self._left, self._done = writer.call, step, done
        monkeypatch.setattr(writer, "call", self)

    async def __call__(self, command: Any, **options: Any) -> Any:
        if getattr(command, "func", None) not in (setback.set_back, setback.move_repeats):
            return await self._call(command, **options)
        self._left -= 1
        if self._left != -1:
            return await self._call(command, **options)
        if self._done:
            await self._call(command, **options)
        raise Unavailable("the connection is gone")


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("step", range(16))
async def test_a_set_back_that_is_broken_off_is_gone_on_with(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, step: int, done: bool
) -> None:
    monkeypatch.setattr(setback, "AT_ONCE", 1)
    marks = [replace(MARK, key=b"%d" % number) for number in range(3)]
    for mark in marks:
        event = desk.about()
        owed = desk.owed(event, "marked")
        await desk.store.add(event, [owed], mark)
        await desk.store.record(again(owed.delivery, NOON + 3 * DAY))
    desk.paused.add("other")
    [held] = await desk.add("other")
    await desk.settle("marked", "other")
    desk.clock.step(timedelta(seconds=-30))  # repeats would still be known if they were moved twice
    with monkeypatch.context() as patch:
        Failing(desk, patch, step, done)
        with suppress(Unavailable):
            await desk.store.set_back()
    if step % 2:
        await desk.reopen()
    await desk.store.set_back()
    now = desk.clock.now()
    assert await desk.store.next_due("marked", now) == now + 3 * DAY - SECOND
    desk.paused.clear()
    await desk.settle("marked", "other")
    assert await desk.claimed("other") == [held.id]
    for seconds, known in ((59, True), (1, False)):
        desk.wait(seconds)
        for mark in marks:
            event = desk.about()
            assert (await desk.store.add(event, [desk.owed(event, "marked")], mark)).duplicate is known


async def test_what_is_set_by_the_clock_as_it_is_now_is_left_as_it_is_while_others_are_moved(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    [held, waits] = await desk.add("www", "zzz")
    desk.paused.add("www")
    await desk.settle("www", "zzz")
    await desk.store.record(again(waits, NOON + 2 * DAY))
    desk.wait(DAY.total_seconds())
    desk.clock.step(-DAY + 60 * SECOND)  # it was held by then, by the clock as it is now
    real = desk.store._set_back  # type: ignore[attr-defined]
    walked = list[object]()

    async def walk(part: setback.Walk, by: timedelta) -> int:
        if not walked:
            desk.wait(20)
            desk.paused.clear()
            await desk.settle("www", "zzz")
            await desk.store.record(replace(again(waits, desk.clock.now() + 30 * SECOND, 2), at=desk.clock.now()))
        walked.append(part)
        return cast(int, await real(part, by))

    monkeypatch.setattr(desk.store, "_set_back", walk)
    await desk.store.set_back()
    assert walked
    [found] = await desk.claim()
    assert (found.id, desk.clock.now() - found.first_due <= 60 * SECOND) == (held.id, True)
    assert await desk.store.next_due("zzz", desk.clock.now()) == desk.clock.now() + 30 * SECOND


async def test_a_set_back_ends_whatever_comes_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setback, "AT_ONCE", 10)
    [first] = await desk.add("www")
    desk.clock.step(-DAY)
    real, steps = desk.store._writer.call, list[object]()  # type: ignore[attr-defined]

    async def call(command: Any, **options: Any) -> Any:
        if getattr(command, "func", None) is setback.set_back:
            steps.append(command)
            assert len(steps) < 50, "it follows what comes"
            await desk.add("www")
        return await real(command, **options)

    monkeypatch.setattr(desk.store._writer, "call", call)  # type: ignore[attr-defined]
    await desk.store.set_back()
    assert first.id in await desk.claimed()


async def test_what_repeats_were_moved_by_one_walk_is_known_to_an_older_one_too(desk: Desk) -> None:
    """Two relays: one has begun before, and knows of fewer events."""

    async def walk(upto: int) -> None:
        step = partial(setback.move_repeats, clock=desk.clock, upto=upto)
        while await desk.store._writer.call(step):  # type: ignore[attr-defined]
            pass

    older = desk.store.ids.newest
    event = desk.about()
    await desk.store.add(event, [desk.owed(event)], MARK)
    desk.clock.step(-30 * SECOND)
    await walk(desk.store.ids.newest)
    desk.clock.step(-SECOND)  # its own clock is a little behind the other's
    await walk(older)
    await walk(desk.store.ids.newest)
    for seconds, known in ((59, True), (1, False)):
        desk.wait(seconds)
        event = desk.about()
        assert (await desk.store.add(event, [desk.owed(event)], MARK)).duplicate is known


async def test_what_is_held_where_the_walk_has_been_is_moved_as_well(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    [delivery] = await desk.add("www")
    await desk.pause()
    desk.clock.step(-DAY)
    real = desk.store._set_back  # type: ignore[attr-defined]
    walked = list[object]()

    async def walk(part: setback.Walk, by: timedelta) -> int:
        if len(walked) == 1:  # what is pending was looked at
            await desk.resume()
        walked.append(part)
        return cast(int, await real(part, by))

    monkeypatch.setattr(desk.store, "_set_back", walk)
    assert await desk.store.set_back() == 1
    assert await desk.claimed() == [delivery.id]


async def test_a_start_while_the_clock_is_behind_leaves_windows_open_that_were_opened_since(desk: Desk) -> None:
    await desk.tell()  # by the clock that was ahead
    desk.clock.step(-DAY)
    desk.groupings["www"] = DEBOUNCE
    carrier = await desk.tell()
    await desk.reopen()
    await desk.store.set_back()
    await desk.tell()
    [found] = await desk.store.windows()
    assert (found.id, len(found.events)) == (carrier.id, 2)


async def test_what_is_held_while_it_is_to_be_moved_is_moved_all_the_same(desk: Desk) -> None:
    [delivery] = await desk.add("www")
    await desk.store.record(again(delivery, NOON + DAY + 60 * SECOND))
    desk.clock.step(-DAY)
    await desk.reopen()
    await desk.pause()
    await desk.store.set_back()
    await desk.resume()
    due = await desk.store.next_due("www", desk.clock.now())
    assert due is not None
    assert due < NOON + 61 * SECOND
