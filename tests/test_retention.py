"""When what is past its time is removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.retention import Retention
from relay.schema import Store as Section
from relay.store import Haste, LogQuery, Pruned, quickly
from relay.stores.sqlite import SqliteStore, open_store
from tests.contract.desk import Desk, delivered
from tests.fakes import ManualClock

DAY = timedelta(days=1)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = ManualClock()
    store = await open_store(tmp_path / "relay.db", clock=clock)

    async def never() -> SqliteStore:
        raise AssertionError

    yield Desk(store, clock, never)
    await store.close()


async def ended(desk: Desk) -> None:
    [delivery] = await desk.add("www")
    await desk.store.record(delivered(delivery))


async def test_a_clock_that_is_set_ahead_removes_no_history(desk: Desk) -> None:
    retention = Retention(desk.store, desk.clock, Section)
    await ended(desk)
    desk.clock.advance(400 * DAY.total_seconds())
    desk.clock.tick(-400 * DAY.total_seconds())  # by mistake: no time has passed
    assert await retention.would() == await retention.once() == Pruned()
    desk.clock.tick(31 * DAY.total_seconds())
    assert (await retention.would()).events == 1
    assert (await retention.once()).events == 1


async def test_what_the_config_says_now_counts_and_passes_go_on(desk: Desk) -> None:
    section = Section()
    retention = Retention(desk.store, desk.clock, lambda: section)
    await ended(desk)
    desk.clock.advance(2 * DAY.total_seconds())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(retention.run())
        section = Section(retention=DAY)
        async with asyncio.timeout(20):
            while (await desk.store.search(LogQuery())).items:
                desk.clock.advance(1)
                await asyncio.sleep(0)
        running.cancel()


async def test_a_pass_that_goes_on_gently_makes_haste_when_somebody_asks_for_one_and_ends_with_its_config(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = Section()
    retention = Retention(desk.store, desk.clock, lambda: section)
    asked: list[Haste] = []
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def prune(now: object, kept: object, bodies: object, told: object = None, haste: Any = quickly) -> Pruned:
        begun.set()
        asked.append(haste())
        await going_on.wait()
        asked.append(haste())
        return Pruned()

    monkeypatch.setattr(desk.store, "prune", prune)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(retention.run())
        await begun.wait()
        by_hand = group.create_task(retention.once())
        await asyncio.sleep(0)
        going_on.set()
        await by_hand
        assert asked == [Haste.GENTLY, Haste.QUICKLY, Haste.QUICKLY, Haste.QUICKLY]
        begun.clear()
        going_on.clear()
        asked.clear()
        desk.clock.advance(60)
        await begun.wait()
        section = Section(retention=DAY)
        begun.clear()
        going_on.set()
        await begun.wait()  # another one, at once
        running.cancel()
    assert asked[:3] == [Haste.GENTLY, Haste.NO_MORE, Haste.GENTLY]
