"""Values compare, hash and show themselves as any dataclass would have it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest

from relay.immutable import immutable

T = TypeVar("T")


def _point(kind: Callable[[type[T]], type[T]]) -> Callable[..., object]:
    class Point:
        x: int
        y: tuple[int, ...] = ()
        note: str | None = field(default=None, compare=False)
        hidden: str = field(default="", repr=False)

    return kind(Point)  # type: ignore[arg-type]


POINTS = _point(immutable), _point(dataclass(frozen=True, slots=True))


@immutable
class Nothing:
    """A value with no parts."""


@immutable
class One:
    """A value with one."""

    part: object


@immutable
class Another:
    """The same, of another class."""

    part: object


@immutable
class Own:
    """One that says itself what is equal, and how it is shown."""

    part: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and self.part % 10 == other.part % 10

    def __hash__(self) -> int:
        return self.part % 10

    def __repr__(self) -> str:
        return "<own>"


@pytest.mark.parametrize(
    "other", [(1, (2,)), (1, (2,), "a note"), (1, (3,)), (2, (2,)), (1, (2,), None, "hidden"), (1,)]
)
def test_values_are_equal_and_hashed_as_those_of_a_dataclass(other: tuple[object, ...]) -> None:
    ours, theirs = [(make(1, (2,)), make(*other)) for make in POINTS]
    assert (ours[0] == ours[1]) is (theirs[0] == theirs[1])
    assert (ours[0] != ours[1]) is (theirs[0] != theirs[1])
    assert (hash(ours[0]) == hash(ours[1])) is (hash(theirs[0]) == hash(theirs[1]))
    assert repr(ours[1]) == repr(theirs[1])


def test_values_of_two_classes_are_not_equal() -> None:
    others: tuple[object, ...] = Another(1), (1,), 1
    assert all(One(1) != other for other in others)
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert repr(Nothing()) == "Nothing()"


def test_what_cannot_be_hashed_makes_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(One([]))


def test_a_class_may_say_itself_what_is_equal() -> None:
    assert Own(1) == Own(11)
    assert hash(Own(1)) == hash(Own(11))
    assert repr(Own(1)) == "<own>"


def test_values_are_copied_with_changes_and_go_from_one_process_to_another() -> None:
    assert replace(One(1), part=2) == One(2)
    assert pickle.loads(pickle.dumps(One((1, "a")))) == One((1, "a"))


def test_values_have_nothing_but_their_parts() -> None:
    with pytest.raises(AttributeError):
        One(1).other = 2  # type: ignore[attr-defined]
