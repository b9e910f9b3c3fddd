"""Config data as YAML text that `yamlfile` reads as the same data: always the same text for the same data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from yaml.reader import Reader

from relay.fields import Unresolved
from relay.yamlscalar import plain

_INDENT = "  "
_SAFE = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./@+~%=:-]*(?: [A-Za-z0-9_./@+~%=()-]+)*")
_LIKE_A_NUMBER = re.compile(r"[+.:eExXoO_-]*[0-9][0-9+.:eExXoO_-]*")
_WORDS = frozenset({"yes", "no", "on", "off"})  # booleans to readers of YAML 1.1
_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
_LONGEST_FLOW = 100


def reference(text: str) -> str:
    """A text whose `${…}` are meant, and are written as they stand."""
    return Unresolved(text)


def literal(text: str) -> str:
    """A text as a part of a `reference`: its own `${` mean nothing."""
    return text.replace("${", "$${")


def written(value: dict[str, Any]) -> str:
    """A mapping as YAML. Strings are literal, but for those that are `Unresolved`."""
    return "".join(f"{line}\n" for line in lines(value))


def lines(value: Any, depth: int = 0) -> Iterator[str]:
    """The lines of a mapping or a list that has something in it."""
    start = _INDENT * depth
    if isinstance(value, dict):
        for key, child in value.items():
            name = key if _may_be_plain(key, flow=True) else _quoted(key)  # keys hold no references
            yield from _entry(f"{start}{name}:", child, depth)
    else:
        for item in value:
            if isinstance(item, (dict, list)) and item:
                first, *rest = lines(item, depth + 1)
                yield f"{start}- {first.lstrip(' ')}"
                yield from rest
            else:
                yield f"{start}- {_scalar(item)}"


def _entry(head: str, value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, (dict, list)) and value:
        flow = _flow(value)
        if flow is not None and len(head) + len(flow) < _LONGEST_FLOW:
            yield f"{head} {flow}"
        else:
            yield head
            yield from lines(value, depth + 1)
        return
    block = _block(value)
    if block is None:
        yield f"{head} {_scalar(value)}"
        return
    mark, texts = block
    yield f"{head} {mark}"
    yield from (f"{_INDENT * (depth + 1)}{text}" if text else "" for text in texts)


def _flow(value: Any) -> str | None:
    """`[a, b]` for a list of single values; all else is easier to read in lines of its own."""
    if not isinstance(value, list) or any(isinstance(item, (dict, list)) for item in value):
        return None
    return "[" + ", ".join(_scalar(item, flow=True) for item in value) + "]"


def _block(value: Any) -> tuple[str, list[str]] | None:
    """A text of several lines as `|` shows it, if it can."""
    if not isinstance(value, str) or "\n" not in value.rstrip("\n"):
        return None
    text = value if isinstance(value, Unresolved) else literal(value)
    body = text.removesuffix("\n")
    rows = body.split("\n")
    odd = Reader.NON_PRINTABLE.search(text) or _CONTROL.search(text) or "\r" in text
    if odd or not rows[0] or not rows[-1] or any(row != row.rstrip() or row[:1] in (" ", "\t") for row in rows[:1]):
        return None
    if any(row != row.rstrip() for row in rows):
        return None
    return ("|" if text.endswith("\n") else "|-"), rows


def _scalar(value: Any, flow: bool = False) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case int() | float():
            return repr(value)
        case dict():
            return "{}"
        case list():
            return "[]"
    text = str(value) if isinstance(value, Unresolved) else literal(str(value))
    return text if _may_be_plain(text, flow) else _quoted(text)


def _may_be_plain(text: str, flow: bool) -> bool:
    if not _SAFE.fullmatch(text) or ": " in text or text.endswith(":") or (flow and ":" in text):
        return False
    if text.casefold() in _WORDS or _LIKE_A_NUMBER.fullmatch(text):
        return False
    return isinstance(plain(text), str)


def _quoted(text: str) -> str:
    # JSON's escapes are YAML's; what YAML lets nowhere stand is escaped too.
    shown = json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
    shown = _CONTROL.sub(lambda odd: f"\\u{ord(odd[0]):04x}", shown)
    return Reader.NON_PRINTABLE.sub(lambda odd: f"\\U{ord(odd[0]):08x}", shown)
