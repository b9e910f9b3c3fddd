"""The tempo of pruning, by a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.store import Haste
from relay.stores._sql.writer import Writer
from relay.stores.sqlite import tempo
from relay.stores.sqlite.tempo import Tempo

COMMIT = 0.001  # seconds


class World:
    """A store to which events come evenly, and time that passes where it is waited for."""

    def __init__(self, coming: float) -> None:
        self.now = 1000.0
        self.commits = 0
        self.lulls = 0
        self.slept: list[float] = []
        self._coming = coming
        self._others = 0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        others = int((self.now - 1000.0) * self._coming)
        self.commits += others - self._others
        self._others = others

    @property
    def added(self) -> int:
        return self._others

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(seconds)

    async def lull(self, patience: float) -> None:
        """After the results of the next event, if it comes in time."""
        self.lulls += 1
        self.pass_by(min(patience, 1 / self._coming) if self._coming else patience)

    async def step(self, tempo: Tempo, size: int, worked: float, paced: bool = True) -> None:
        tempo.step_begins()
        self.pass_by(worked + COMMIT)
        self.commits += 1
        await tempo.step_ended(size, worked, paced)


@pytest.fixture
def world_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], World]:
    def make(coming: float) -> World:
        world = World(coming)
        monkeypatch.setattr(tempo, "monotonic", lambda: world.now)
        # Not asyncio's own: whatever else sleeps in this process would move the world's time.
        monkeypatch.setattr(tempo, "asyncio", SimpleNamespace(sleep=world.sleep))
        return world

    return make


def made(world: World, haste: Haste = Haste.GENTLY) -> Tempo:
    return Tempo(cast(Writer, cast(Any, world)), lambda: haste)


async def removed(world: World, tempo: Tempo, seconds: float, each: float, paced: bool = True) -> float:
    """How many are removed in a second, where each takes so many seconds."""
    began, number = world.now, 0
    while world.now - began < seconds:
        number += tempo.size
        await world.step(tempo, tempo.size, tempo.size * each, paced)
    return number / (world.now - began)


@pytest.mark.parametrize("coming", [60.0, 200.0, 1000.0])
async def test_gently_hardly_more_are_removed_than_come(world_of: Callable[[float], World], coming: float) -> None:
    """However early the lulls come for which steps wait."""
    world = world_of(coming)
    tempo = made(world)
    await removed(world, tempo, 20, 50e-6)
    assert await removed(world, tempo, 60, 50e-6) == pytest.approx(1.1 * coming, rel=0.02)
    assert tempo.size == 10, "half a millisecond"
    assert world.lulls


async def test_each_of_two_walks_over_all_that_comes_is_twice_as_fast(world_of: Callable[[float], World]) -> None:
    """One comes after the other: at the speed of one, each pass would take longer than the one before, for ever."""
    world = world_of(200.0)
    tempo = made(world)
    tempo.walks = 2
    await removed(world, tempo, 20, 50e-6)
    assert await removed(world, tempo, 60, 50e-6) == pytest.approx(440, rel=0.02)


async def test_where_few_come_some_are_removed_all_the_same(world_of: Callable[[float], World]) -> None:
    world = world_of(5.0)
    tempo = made(world)
    await removed(world, tempo, 20, 50e-6)
    assert await removed(world, tempo, 60, 50e-6) == pytest.approx(50, rel=0.02)


async def test_steps_become_longer_where_short_ones_fall_behind_and_short_again(
    world_of: Callable[[float], World],
) -> None:
    """Half a millisecond of each, and what it takes to begin one, would be some 700 a second here."""
    world = world_of(3000.0)
    tempo = made(world)

    async def one() -> int:
        size = tempo.size
        await world.step(tempo, size, 300e-6 + size * 20e-6)
        return size

    async def pace(seconds: float) -> float:
        began, number = world.now, 0
        while world.now - began < seconds:
            number += await one()
        return number / (world.now - began)

    await pace(20)
    assert await pace(60) == pytest.approx(3300, rel=0.05)
    assert 20 < tempo.size < 250
    world._coming = 200.0
    world._others = int((world.now - 1000.0) * 200.0)
    await pace(20)
    assert tempo.size == 10


async def test_after_a_time_alone_nothing_is_made_up_for(world_of: Callable[[float], World]) -> None:
    world = world_of(0.0)
    tempo = made(world)
    fast = await removed(world, tempo, 30, 50e-6)
    assert fast > 10_000
    assert tempo.size == 1000
    assert set(world.slept[100:]) == {0}
    world._coming = 100.0
    world._others = int((world.now - 1000.0) * 100.0)
    world.pass_by(0.1)
    await world.step(tempo, 10, 500e-6)
    assert tempo.size < 20
    assert await removed(world, tempo, 5, 50e-6) < 150


async def test_what_is_not_paced_rests_as_its_work_wants_it(world_of: Callable[[float], World]) -> None:
    world = world_of(100.0)
    tempo = made(world)
    await removed(world, tempo, 5, 1e-6, paced=False)
    assert tempo.size == 500, "half a millisecond"
    assert await removed(world, tempo, 20, 1e-6, paced=False) > 50_000


async def test_in_haste_steps_are_longer_and_wait_for_no_lull(world_of: Callable[[float], World]) -> None:
    world = world_of(200.0)
    tempo = made(world, Haste.QUICKLY)
    assert await removed(world, tempo, 20, 50e-6) > 1500
    assert tempo.size == 100, "five milliseconds"
    assert not world.lulls


async def test_a_long_rest_ends_where_haste_is_made(world_of: Callable[[float], World]) -> None:
    world = world_of(5.0)
    hastes = [Haste.GENTLY] * 4 + [Haste.QUICKLY]
    tempo = Tempo(cast(Writer, cast(Any, world)), lambda: hastes.pop(0))
    before = world.now
    await world.step(tempo, 1000, 0.01)
    assert world.now - before == pytest.approx(4.0, abs=0.1), "of twenty"
    assert not hastes
