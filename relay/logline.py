"""One fact is one line: of bounded length, and with nothing in it that a terminal would obey.

Names, models, ids, reasons and answers are what strangers wrote. What cannot be printed is escaped, so that nothing
moves the cursor, ends the line or turns the direction of text; what is too long is cut. Only a traceback has lines of
its own on a terminal, indented so that none of them looks like a fact.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping, Sequence
from typing import Any

import orjson

# What journald takes for one line (LineMax=) is 48 KiB: these keep every line below, however it has to be escaped.
_LONGEST_VALUE = 500  # characters
_LONGEST_LIST = 16_000  # bytes
_LONGEST_OF_SEVERAL = 4_000  # of each list in a mapping, as of what changed in a config
_LONGEST_TRACEBACK = 8_000

_DELETE = 0x7F  # as a number: bytes that are looked for in bytes cost Python an exception that nobody sees


def as_json(line: object) -> bytes:
    """JSON in which nothing is raw that a terminal would obey: people read it there too, as journalctl shows it."""
    try:
        data = orjson.dumps(line, default=str)
    except TypeError:  # half a surrogate pair, as in a header whose bytes are no text
        return json.dumps(line, default=str).encode()
    if data.isascii() and _DELETE not in data:
        return data
    text = data.decode()
    return data if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text).encode()


def at_once(line: object) -> bytes | None:
    """The JSON of a line in which nothing is to be cut or escaped, and its end; None where something may be. Of a
    moment the same comes as `isoformat` with a Z makes, for half the price."""
    try:
        # A copy: what orjson 3.12 makes keeps 4 KiB or more, however short it is, and thousands of lines may wait.
        data = orjson.dumps(line, option=orjson.OPT_UTC_Z) + b"\n"
    except TypeError:
        return None
    return data if len(data) <= _LONGEST_VALUE + 1 and data.isascii() and _DELETE not in data else None


def bounded(line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut what is long. Secrets are masked before: none is cut in two."""
    for key, value in line.items():
        if isinstance(value, str):
            if key == "exception":
                line[key] = _traceback(value)
            elif len(value) > _LONGEST_VALUE:
                line[key] = _cut(value)
        elif isinstance(value, (list, tuple)):
            line[key] = _cut_list(value)
        elif isinstance(value, dict):
            line[key] = {
                name: _cut_list(part, _LONGEST_OF_SEVERAL) if isinstance(part, list) else part
                for name, part in value.items()
            }
    return line


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… ({len(text)} characters)"


def _cut_list(parts: Sequence[Any], room: int = _LONGEST_LIST) -> list[Any]:
    kept: list[Any] = []
    for part in parts:
        shown = _cut(part if isinstance(part, str) else str(part))
        room -= len(shown) + 4 if shown.isascii() and shown.isprintable() else 12 * len(shown) + 4
        if room < 0:
            return [*kept, f"… and {len(parts) - len(kept)} more"]
        kept.append(shown)
    return kept


def _traceback(text: str) -> str:
    """A traceback keeps its lines and its end, which says what was raised."""
    shown = "\n".join(map(printable, text.split("\n")))
    if len(shown) > _LONGEST_TRACEBACK:
        half = _LONGEST_TRACEBACK // 2
        shown = f"{shown[:half]}\n… ({len(shown)} characters)\n{shown[-half:]}"
    return shown


def printable(text: str) -> str:
    """The text with what cannot be printed escaped: control and direction characters, halves of surrogate pairs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def for_terminal(line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What is shown on a terminal as text: the same, for what is not JSON."""
    for key, value in line.items():
        if key == "exception":
            line[key] = "\n".join(f"    {each}" for each in value.split("\n"))
        elif isinstance(value, str):
            line[key] = printable(value)
    return line
