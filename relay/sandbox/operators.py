"""What templates do with operators, at a cost; and how values are printed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.runtime import Undefined

from relay.sandbox.costs import MOST_BITS, Each, checked, fits, work
from relay.work import TooMuch

SCALARS = (int, float, type(None))
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


def compare(left: Any, *rest: Any) -> Any:
    """`a < b < c`."""
    result = True
    for word, right in zip(rest[::2], rest[1::2], strict=True):
        result = compared(word, left, right)
        if not result:
            return result
        left = right
    return result


def compared(word: str, left: Any, right: Any) -> Any:
    """`a < b`, by Jinja's word for the operator."""
    spent = work.get()
    spent.spend(1)
    if not (isinstance(left, SCALARS) and isinstance(right, SCALARS)):
        spent.weigh(left)
        if isinstance(right, range):
            spent.spend(0 if isinstance(left, int) else len(right) >> 3)
        elif not (word in ("in", "notin") and isinstance(right, dict)):
            spent.weigh(right)
    return _COMPARE[word](left, right)


def concat(values: list[Any]) -> str:
    """`a ~ b`."""
    texts = [printed(value) for value in values]
    fits(sum(map(len, texts)))
    return "".join(texts)


def cut(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`a[1:2]`. Not weighed in depth: what is in the list is not touched."""
    size = len(value)
    work.get().spend(1 + (size >> 10 if isinstance(value, str) else size >> 3))
    return value[slice(start, stop, step)]


def printed(value: Any) -> str:
    """A value as it is printed."""
    if type(value) is str:
        work.get().spend(1 + (len(value) >> 10))
        return value
    if isinstance(value, Undefined):
        return str(value)  # raises
    if not isinstance(value, (str, *SCALARS, dict, list, tuple)):
        raise TypeError(f"a {kind(value)} cannot be printed (did you mean to add '| list' or '| join'?)")
    work.get().weigh(value)
    seen_through(value)
    return str(checked(str(value)))


def seen_through(value: Any) -> None:
    """Refuse what would print something of Python's, or an undefined value, inside of it. It has been weighed."""
    waiting = [value]
    while waiting:
        branch = waiting.pop()
        if isinstance(branch, (str, *SCALARS)):
            continue
        if isinstance(branch, dict):
            parts = [*branch, *branch.values()]
        elif isinstance(branch, (list, tuple)):
            parts = list(branch)
        else:
            printed(branch)  # raises
            continue
        waiting.extend(part for part in parts if not isinstance(part, (str, *SCALARS)))


def kind(value: object) -> str:
    """What a value is, for who wrote the template."""
    return "sequence that is worked out step by step" if isinstance(value, (Each, range)) else type(value).__name__


def add(left: Any, right: Any) -> Any:
    """`a + b`."""
    if isinstance(left, str) and isinstance(right, str):
        fits(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        work.get().spend((len(left) + len(right)) >> 3)
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    many, times = (right, left) if isinstance(left, int) else (left, right)
    if isinstance(many, str) and isinstance(times, int):
        fits(len(many) * times)
    elif isinstance(many, (list, tuple)) and isinstance(times, int):
        work.get().spend(max(0, len(many) * times))
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MOST_BITS:
        raise TooMuch("a number is too large")
    return left**right


_FORMAT = re.compile(r"%(?:\([^()]*\))?[-#0 +]*([0-9]*|\*)(?:\.([0-9]*|\*))?[a-zA-Z%]")


def modulo(left: Any, right: Any) -> Any:
    """`a % b`, of numbers or as a format."""
    if not isinstance(left, str):
        return left % right
    size = len(left)
    for number, match in enumerate(_FORMAT.finditer(left), 1):
        work.get().weigh(right)
        seen_through(right)
        for width in match.groups():
            if width == "*" or len(width or "") > 7:
                raise TooMuch("a text would be larger than 4 MiB")
            size += int(width or 0)
        fits(size)
        if number > 1000:
            raise TooMuch("a format has more than 1,000 places")
    return left % right


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": add,
    "-": operator.sub,
    "*": _multiply,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": _power,
    "%": modulo,
}
