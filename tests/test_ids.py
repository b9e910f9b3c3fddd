"""Identity: ids grow, and their texts are ULIDs that say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ids import DELIVERY, EVENT, PREFIXES, REJECTION, STORE_SPACE, Ids, UnknownId, draw_store, moment_ms

NOW = 1_795_435_200_000
ids_of_63_bits = st.integers(0, (1 << 63) - 1)
stores = st.integers(0, STORE_SPACE - 1)


def test_ids_grow_within_a_millisecond_and_over_it() -> None:
    ids = Ids(1)
    drawn = [ids.draw(NOW + number // 1000) for number in range(5000)]
    assert drawn == sorted(set(drawn))
    assert [moment_ms(number) - NOW for number in drawn[::1000]] == [0, 1, 2, 3, 4]


def test_ids_grow_also_when_the_clock_is_set_back() -> None:
    ids = Ids(1)
    first = ids.draw(NOW)
    assert ids.draw(NOW - 3_600_000) == first + 1
    assert Ids(1, last=first).draw(NOW - 1) == first + 1


def test_ids_follow_the_wall_clock_unless_told() -> None:
    ids = Ids(1)
    assert ids.draw() < ids.draw()


def test_two_copies_of_a_store_hardly_draw_the_same_id() -> None:
    assert len({Ids(1).draw(NOW) for _ in range(20)}) > 10


@given(store=stores, number=ids_of_63_bits, prefix=st.sampled_from(PREFIXES))
def test_a_text_means_its_id(store: int, number: int, prefix: str) -> None:
    ids = Ids(store)
    text = ids.text(prefix, number)
    assert len(text) == 30
    assert ids.number(text) == ids.number(prefix + text[4:].lower(), prefix) == (prefix, number)


@given(store=stores, one=ids_of_63_bits, other=ids_of_63_bits)
def test_texts_sort_as_their_ids_do(store: int, one: int, other: int) -> None:
    ids = Ids(store)
    assert (one < other) == (ids.text(EVENT, one) < ids.text(EVENT, other))


def test_a_text_is_a_ulid_with_its_time_in_front() -> None:
    # https://github.com/ulid/spec: 48 bits of milliseconds are the first ten letters.
    number = Ids(0).draw(1_469_918_176_385)
    assert Ids(0).text(DELIVERY, number).startswith("dlv_01ARYZ6S41")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evt_",
        "evt_01J",
        "xyz_" + "0" * 26,
        "evt_" + "0" * 27,
        "evt_" + "U" + "0" * 25,  # U is not in the alphabet
        "evt_" + "é" + "0" * 25,
        "evt_" + "Z" * 26,  # past 128 bits
        "evt_" + "7" + "Z" * 25,
        "0" * 30,
    ],
)
def test_what_is_not_an_id_is_refused(text: str) -> None:
    with pytest.raises(UnknownId):
        Ids(5).number(text)


def test_another_stores_id_is_refused() -> None:
    text = Ids(5).text(EVENT, 12345)
    with pytest.raises(UnknownId, match="of this store"):
        Ids(6).number(text)


def test_an_id_of_another_kind_is_refused() -> None:
    ids = Ids(5)
    with pytest.raises(UnknownId):
        ids.number(ids.text(EVENT, 1), DELIVERY, REJECTION)


def test_a_stores_number_has_59_bits() -> None:
    assert all(0 <= draw_store() < STORE_SPACE for _ in range(100))
