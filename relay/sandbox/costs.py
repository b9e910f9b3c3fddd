"""What one rendering may spend, and how large what it makes may become."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from jinja2.runtime import Undefined
from markupsafe import Markup

from relay.work import MOST_TEXT, TooMuch, Work

MOST_BITS = 4096  # of a whole number

work: ContextVar[Work] = ContextVar("work")


def fits(size: int) -> None:
    """Raises TooMuch for a text of so many characters that it may not be made."""
    if size > MOST_TEXT:
        raise TooMuch("a text would be larger than 4 MiB")


def checked(value: Any) -> Any:
    """A result, if it is not too large (TooMuch); an iterator so that each of its items costs."""
    if isinstance(value, str):
        fits(len(value))
        return str(value) if isinstance(value, Markup) else value
    if isinstance(value, int):
        if value.bit_length() > MOST_BITS:
            raise TooMuch("a number is too large")
    elif isinstance(value, Iterator):
        return Each(value)
    return value


class Each:
    """An iterator, each step of which costs."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Each:
        return self

    def __next__(self) -> Any:
        work.get().spend(1)
        return next(self._items)


def each(value: Any) -> Any:
    """What a loop runs over."""
    return value if isinstance(value, (Undefined, Each)) else Each(iter(value))


def sized(value: Any) -> Any:
    """A value that can be weighed: what an iterator still holds, as a list."""
    return list(value) if isinstance(value, Each) else value
