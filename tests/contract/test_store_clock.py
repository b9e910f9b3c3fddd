"""What every store must promise where somebody sets the clock back: stored times never go back, what waits does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relay.window import Grouping, batch, debounce
from tests.contract.desk import SECOND, Desk
from tests.fakes import NOON

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DEBOUNCE = debounce(10 * SECOND, 25 * SECOND, (), timedelta())
BATCH = batch(99, 25 * SECOND, timedelta())


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


async def test_what_is_born_held_while_the_clock_is_behind_stands_still_as_well(desk: Desk) -> None:
    await desk.tell(route="other")
    await desk.pause()
    desk.clock.step(-DAY)
    await desk.tell()
    desk.wait(3600)
    await desk.resume()
    [found] = await desk.claim()
    assert found.first_due == desk.clock.now()
