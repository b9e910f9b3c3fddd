"""Filters and tests, at a cost: Jinja's where that can be told beforehand, and our own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote_plus

from jinja2 import filters, pass_context, pass_environment, tests
from jinja2.runtime import Context
from markupsafe import escape

from relay import jsontext
from relay.sandbox.costs import checked, fits, sized, work
from relay.sandbox.methods import replaced
from relay.sandbox.operators import add, compared, modulo, printed
from relay.work import TooMuch


def _batch(value: Any, linecount: int, fill_with: Any = None) -> Any:
    work.get().spend(max(0, linecount))
    return filters.do_batch(value, linecount, fill_with)


def _center(value: Any, width: int = 80) -> str:
    fits(width)
    return str(value).center(width)


def _format(value: Any, *args: Any, **kwargs: Any) -> Any:
    return modulo(str(value), kwargs or args)


def _html(value: Any) -> str:
    return str(escape(str(value)))


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = str(s)
    step = len(width) if isinstance(width, str) else width
    fits(step)
    fits(len(text) + (text.count("\n") + 1) * step)
    return filters.do_indent(text, width, first, blank)


@pass_environment
def _join(environment: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    items = list(value)
    if attribute is not None:
        items = [filters.make_attrgetter(environment, attribute)(item) for item in items]
    d = printed(d)
    fits(len(d) * len(items))
    texts = [printed(item) for item in items]
    fits(sum(map(len, texts)) + len(d) * len(items))
    return d.join(texts)


def _list(value: Any) -> list[Any]:
    if isinstance(value, (str, range)):
        work.get().spend(len(value))
    elif isinstance(value, (list, tuple, dict)):
        work.get().spend(len(value) >> 3)
    return list(value)


_MARKDOWN = re.compile(r"([\\`*_~|<>\[\](){}#+\-.!:@])")


def _markdown(value: Any) -> str:
    """A text without a meaning in Markdown: every mark is escaped."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def _replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(s), printed(old), printed(new)
    fits(replaced(text, old, new))
    return text.replace(old, new, -1 if count is None else count)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > 20:
        raise TooMuch("a precision is larger than 20")
    if method == "common":
        return round(value, precision)
    if method not in ("ceil", "floor"):
        raise ValueError("round: expected common, ceil or floor")
    return (math.ceil if method == "ceil" else math.floor)(value * (10**precision)) / (10**precision)


_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def _slack(value: Any) -> str:
    """A text as Slack wants it: https://docs.slack.dev/messaging/formatting-message-text#escaping"""
    return str(value).translate(_SLACK)


@pass_environment
def _sum(environment: Any, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    get = filters.make_attrgetter(environment, attribute) if attribute is not None else None
    total = start
    for item in iterable:
        work.get().spend(1)
        total = checked(add(total, item if get is None else get(item)))
    return total


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON as it is, without HTML's escapes."""
    return jsontext.dumps(value, indent=indent is not None).decode()


def _urlencode(value: Any) -> str:
    """Text for a URL's query or a form; a mapping or pairs as `a=1&b=2`."""
    if not isinstance(value, (dict, list, tuple)):
        return quote_plus(printed(value), errors="replace")
    pairs = value.items() if isinstance(value, dict) else value
    return "&".join(f"{_urlencode(printed(name))}={_urlencode(printed(content))}" for name, content in pairs)


_OWN: dict[str, Callable[..., Any]] = {
    "batch": _batch,
    "center": _center,
    "e": _html,
    "escape": _html,
    "forceescape": _html,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "list": _list,
    "markdown": _markdown,
    "replace": _replace,
    "round": _round,
    "slack": _slack,
    "sum": _sum,
    "tojson": _tojson,
    "urlencode": _urlencode,
}
_JINJAS = frozenset(
    {"abs", "capitalize", "count", "d", "default", "dictsort", "filesizeformat", "first", "float", "groupby", "int"}
    | {"items", "last", "length", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select"}
    | {"selectattr", "slice", "sort", "string", "title", "trim", "truncate", "unique", "upper"}
)
_SHALLOW = frozenset(
    {"batch", "count", "d", "default", "first", "items", "join", "last", "length", "list", "map", "reject"}
    | {"rejectattr", "select", "selectattr", "slice", "sum"}
)
"""They do not look into what they are given, or count as they go."""
_TEXTUAL = frozenset(
    {"capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "markdown", "replace", "slack"}
    | {"string", "title", "trim", "truncate", "upper"}
)
"""They look at the text that a value prints."""
_HEAVY = {"dictsort": 16, "groupby": 16, "max": 4, "min": 4, "sort": 16, "title": 64, "unique": 4, "urlencode": 64}
"""How many times they look at it, or how much more slowly."""

_TESTS = frozenset(
    {"boolean", "defined", "divisibleby", "eq", "even", "false", "float", "ge", "gt", "in", "integer", "iterable", "le"}
    | {"lower", "lt", "mapping", "ne", "none", "number", "odd", "sequence", "string", "true", "undefined", "upper"}
    | {"==", "!=", ">", ">=", "<", "<=", "equalto", "greaterthan", "lessthan"}
)
_COMPARING = {
    "==": "eq",
    "!=": "ne",
    ">": "gt",
    ">=": "gteq",
    "<": "lt",
    "<=": "lteq",
    "equalto": "eq",
    "lessthan": "lt",
    "greaterthan": "gt",
    "eq": "eq",
    "ne": "ne",
    "gt": "gt",
    "ge": "gteq",
    "lt": "lt",
    "le": "lteq",
    "in": "in",
}


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that spends before it works and whose result is looked at."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    shallow, textual, times = name in _SHALLOW, name in _TEXTUAL, _HEAVY.get(name, 1)

    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        spent = work.get()
        spent.spend(2)
        if not shallow:
            value = sized(value)
            spent.weigh(value, times)
            for arg in (*args, *kwargs.values()):
                spent.weigh(arg, times)
        if textual and not isinstance(value, str):
            value = printed(value)
        match passed:
            case "context":
                args = (context, value, *args)
            case "eval_context":
                args = (context.eval_ctx, value, *args)
            case "environment":
                args = (context.environment, value, *args)
            case _:
                args = (value, *args)
        return checked(function(*args, **kwargs))

    return pass_context(run)


def _tested(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A test that spends before it looks."""
    word = _COMPARING.get(name)

    def run(context: Context, value: Any, *args: Any) -> Any:
        if word is not None:
            return compared(word, value, *args)
        work.get().spend(1 + (len(value) >> 10 if isinstance(value, str) else 0))
        return function(value, *args)

    return pass_context(run)


def every_filter() -> dict[str, Callable[..., Any]]:
    """All that templates may use, by name."""
    every = {name: filters.FILTERS[name] for name in _JINJAS} | _OWN
    return {name: _guarded(name, function) for name, function in every.items()}


def every_test() -> dict[str, Callable[..., Any]]:
    """All that templates may ask, by name."""
    known = cast(dict[str, Callable[..., Any]], tests.TESTS)
    return {name: _tested(name, known[name]) for name in _TESTS}
