"""JSON as senders write it: strict where Python's own parser is lax, and never an exception but Malformed.

orjson already refuses NaN, infinities, `1e999`, a byte order mark, bytes that are not UTF-8 and nesting past 1,024
levels. Two things it does otherwise than senders need: it refuses the lone surrogate escapes that JavaScript
writes, and it rounds integers past 64 bits. Bodies that may hold one of these take the standard parser, hardened.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

# Every digit as 0 and all else as a space: finding a run of digits so takes a tenth of what a pattern takes.
_AS_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_INTEGER = b"0" * 19
_FOURTHS = b"0000"  # at every fourth place there are four digits in a row where there are nineteen side by side
_HALF = re.compile("[\ud800-\udfff]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Malformed(ValueError):
    """The body is not what its type needs; the text says what it is instead."""


def parse(body: bytes) -> Any:
    """The document in a body; of repeated keys the last one counts. Raises Malformed."""
    # A fourth of the body tells of nearly all that no such integer is in it. By find: `in` costs an exception that
    # nobody sees.
    fourths = body[::4].translate(_AS_DIGITS)
    if fourths.find(_FOURTHS) < 0 or body.translate(_AS_DIGITS).find(_LONG_INTEGER) < 0:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if _SURROGATE.search(body) is None:
                raise Malformed(f"the body is not JSON: {error}") from None
    return _parse_slowly(body)


def _parse_slowly(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError, and integers past 4,300 digits
        if "int_max_str_digits" in str(error):
            raise Malformed("the body is not JSON: a number has too many digits") from None
        raise Malformed(f"the body is not JSON: {error}") from None


def dumps(value: object, indent: bool = False) -> bytes:
    """A value as JSON. Half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD. Raises Malformed."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2) if indent else orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError):
        return _dump_slowly(value, 2 if indent else None)


def _dump_slowly(value: object, indent: int | None) -> bytes:
    """As orjson, which refuses whole numbers past 64 bits, halves of surrogate pairs and depth past 254."""
    separators = (",", ": " if indent else ":")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=separators, indent=indent)
    except RecursionError:
        raise Malformed("the value is nested too deeply for JSON") from None
    except (TypeError, ValueError) as error:
        raise Malformed(f"not JSON: {error}") from None
    return whole(text).encode()


def canonical(value: object) -> bytes:
    """A value as JSON that is the same for the same value, whatever the order of its keys. Raises Malformed."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        try:
            return json.dumps(value, sort_keys=True, allow_nan=False).encode()
        except RecursionError:
            raise Malformed("the value is nested too deeply for JSON") from None
        except (TypeError, ValueError) as error:
            raise Malformed(f"not JSON: {error}") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def kind(value: object) -> str:
    """What a JSON value is, in words: `a list`, `the string "…"`."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a string"
    if value is None:
        return "null"
    return "a boolean" if isinstance(value, bool) else "a number"


def scalar_text(value: object) -> str | None:
    """A scalar as text: strings as they are, numbers and booleans as JSON writes them, all else None.

    Half a surrogate pair cannot be stored or sent as UTF-8; it becomes U+FFFD.
    """
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return orjson.dumps(value).decode()
    return None


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    if text.isascii():
        return text
    return _HALF.sub("\ufffd", text)


def said(value: object) -> str | None:
    """What a sender says in a scalar; None where it says nothing: null, an empty string, a list, an object."""
    if value is None:
        return None
    if type(value) is str and value.isascii():  # nearly all that is asked for, half a dozen times for each event
        return value or None
    return str(value) if type(value) is int else scalar_text(value) or None


def at(document: object, *keys: str) -> Any:
    """What lies at a path of keys; None where the path ends early."""
    for key in keys:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document
