"""The methods of Python's that templates may call, at a cost."""

from __future__ import annotations

from types import BuiltinMethodType
from typing import Any, cast

from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.sandbox import safe_range
from jinja2.utils import Cycler, Joiner, Namespace

from relay.sandbox.costs import checked, fits, sized, work

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        {"capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii"}
        | {"isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust", "lower"}
        | {"lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition"}
        | {"rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"}
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
_SPLITTING = frozenset({"rsplit", "split", "splitlines"})
OBJECTS = (Macro, LoopContext, BlockReference, Cycler, Joiner)
MAKERS = (safe_range, dict, Cycler, Joiner, Namespace)


def run(method: BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method of a text, mapping or list."""
    owner, name, spent = cast(Any, method.__self__), method.__name__, work.get()
    if isinstance(owner, dict):
        spent.spend(2 if name == "get" else 2 + (len(owner) >> 3))
        found = method(*args, **kwargs)
        return found if name == "get" else list(found)
    spent.weigh(owner)
    if name == "join" and args:
        args = (sized(args[0]), *args[1:])
        fits(len(owner) * len(args[0]))
    for arg in (*args, *kwargs.values()):
        spent.weigh(arg)
    if name in _PADDING and args and isinstance(args[0], int):
        fits(args[0])
    elif name == "replace" and len(args) > 1:
        fits(replaced(owner, args[0], args[1]))
    elif name in _SPLITTING:
        spent.spend(len(owner) >> 3)
    return checked(method(*args, **kwargs))


def replaced(text: str, old: str, new: str) -> int:
    """How long a text can be after a replacement."""
    return len(text) + text.count(old) * max(0, len(new) - len(old))
