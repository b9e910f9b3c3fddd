"""What a scalar of YAML 1.2's core schema means: `no`, `on`, `1:30` and `0123` are strings."""

from __future__ import annotations

import re
from typing import Any

from yaml.events import ScalarEvent

# A secret that is not quoted and begins with such a sign is taken for a name: so messages show none.
_SIGNS = {"alias": "*", "anchor": "&", "tag": "!"}
QUOTE = {name: f"(a value that begins with {sign} must be quoted)" for name, sign in _SIGNS.items()}
"""What to do about a name that was meant as a value, by what it is a name of."""
NO_TAG = f"this tag is not supported {QUOTE['tag']}"

CORE = "tag:yaml.org,2002:"
"""What the tags of the core schema begin with."""
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})
_LONGEST_INTEGER = 100


def plain(text: str) -> Any:
    """What a plain scalar is in the core schema."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= _LONGEST_INTEGER:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text):
            return int(text[2:], 8)
        if _HEXADECIMAL.fullmatch(text):
            return int(text[2:], 16)
        if _FLOAT.fullmatch(text):
            return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return float("nan") if text in _NAN else text


_TYPES: dict[str, tuple[type, ...]] = {"null": (type(None),), "bool": (bool,), "int": (int,), "float": (float, int)}


def scalar(event: ScalarEvent) -> Any:
    """The value of a scalar. Raises ValueError for a tag that is not of the core schema, or that does not fit."""
    text: str = event.value
    if event.tag is None:
        return plain(text) if event.implicit[0] else text
    if event.tag in ("!", CORE + "str"):
        return text
    name = event.tag.removeprefix(CORE)
    wanted = _TYPES.get(name) if event.tag.startswith(CORE) else None
    if wanted is None:
        raise ValueError(NO_TAG)
    value = plain(text)
    if not isinstance(value, wanted) or (isinstance(value, bool) and name != "bool"):
        raise ValueError(f"this is not what its tag !!{name} says")
    return float(text) if name == "float" else value
