"""Who may take more bodies into memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.memory import CLAIMED, Memory

MIB = 1 << 20


def test_one_route_has_half_of_it_and_leaves_the_rest_to_the_others() -> None:
    memory = Memory(64 * MIB)
    assert memory.room(0) == (CLAIMED, False)
    memory.taken = 32 * MIB
    assert memory.room(32 * MIB) == (0, True)
    assert not memory.fits(32 * MIB, 1)
    assert memory.room(0) == (CLAIMED, False)
    assert memory.fits(0, 32 * MIB)
    assert not memory.fits(0, 32 * MIB + 1)


def test_where_all_is_taken_who_has_little_gets_a_little() -> None:
    memory = Memory(64 * MIB)
    memory.taken = 64 * MIB
    assert memory.room(0) == (MIB, True)
    assert memory.room(MIB // 2) == (MIB // 2, True)
    assert memory.room(MIB) == (0, True)
    memory.taken = 96 * MIB
    assert memory.room(0) == (0, True), "past half as much again everybody waits"


@pytest.mark.parametrize("most", [0, 1, 1000, 8 * MIB])
def test_one_is_let_in_where_there_is_none_however_little_there_may_be(most: int) -> None:
    assert Memory(most).room(0)[0] > 0


def test_it_is_crowded_only_where_something_is_there() -> None:
    memory = Memory(4 * MIB)
    assert not memory.crowded(CLAIMED)
    memory.taken = 1
    assert memory.crowded(CLAIMED)
    assert not memory.crowded(4 * MIB)


@given(
    st.integers(0, 64 * MIB),
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(1, MIB)), max_size=200),
)
def test_whatever_comes_and_goes_there_is_never_more_than_half_as_much_again_and_a_body(
    most: int, steps: list[tuple[int, bool, int]]
) -> None:
    memory, own = Memory(most), dict.fromkeys(range(10), 0)
    for route, takes, size in steps:
        if not takes:
            memory.taken -= own[route]
            own[route] = 0
        elif (room := memory.room(own[route])[0]) or memory.fits(own[route], size):
            read = max(room, size) if room else size  # one body always, also where it is larger
            own[route] += read
            memory.taken += read
        assert memory.taken == sum(own.values())
        assert memory.taken <= most + most // 2 + MIB
