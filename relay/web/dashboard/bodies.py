"""Bodies and headers of strangers as parts of a page: folded JSON, or text, never more of it than a page bears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from relay import jsontext
from relay.immutable import immutable
from relay.web import shape
from relay.web.dashboard.wording import lines, size, visible

_LARGEST_PARSED = 1 << 20
_DEEPEST = 16
_MOST_NODES = 800
_LONGEST_VALUE = 400
_LONGEST_KEY = 120
_LONGEST_TEXT = 16_000
_MOST_HEADERS = 60
_OPEN_NODES = 40
"""A document with no more parts than so many is shown unfolded."""


class Room:
    """How much of strangers' content still fits on a page, in bytes of HTML."""

    def __init__(self, left: int = 200_000) -> None:
        self.left = left

    def line(self, text: str, most: int) -> Markup:
        """One line, cut where it is too long."""
        return self._taken(escape(visible(text[:most])), len(text) > most)

    def text(self, text: str, most: int) -> Markup:
        """Several lines, cut where they are too long."""
        return self._taken(lines(text[:most]), len(text) > most)

    def _taken(self, made: Markup, shortened: bool) -> Markup:
        if len(made) > self.left:
            return Markup("…")
        self.left -= len(made)
        return made + "…" if shortened else made


@immutable
class Body:
    """A body, ready to be shown."""

    note: str
    """What it is, in words."""
    tree: Markup | None = None
    text: Markup | None = None
    whole: bool = True
    """Whether all of it is shown."""


def headers(given: Sequence[tuple[str, str]], room: Room) -> list[tuple[Markup, Markup]]:
    """Header lines."""
    found = shape.pairs(given)
    shown = [(room.line(name, 100), room.line(value, 600)) for name, value in found[:_MOST_HEADERS]]
    if len(found) > _MOST_HEADERS:
        shown.append((Markup("…"), escape(f"and {len(found) - _MOST_HEADERS} more")))
    return shown


def body(content: bytes, room: Room, most: int = _LONGEST_TEXT) -> Body:
    """A body as JSON to unfold, as text, or as what it is."""
    if not content:
        return Body("no body")
    measure = size(len(content))
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return Body(f"{measure} that are not text", whole=False)
    shortened = len(text) > most
    note = f"{measure}, the first {size(most)} are shown" if shortened else measure
    document: Any = None
    if len(content) <= _LARGEST_PARSED and text.lstrip()[:1] in ("{", "["):
        try:
            document = jsontext.parse(content)
        except jsontext.Malformed:
            document = None
    if isinstance(document, dict | list) and document:
        tree = _Tree(room)
        made = tree.of(document)
        raw = room.text(text, most)
        return Body(f"JSON, {note}", tree=made, text=raw, whole=not shortened and tree.whole)
    return Body(note, text=room.text(text, most), whole=not shortened)


class _Tree:
    """A JSON document as nested lists that fold."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._nodes = _MOST_NODES
        self.whole = True

    def of(self, document: Any) -> Markup:
        unfolded = _parts(document, _OPEN_NODES) <= _OPEN_NODES
        return self._children(document, 0, unfolded)

    def _children(self, value: Any, depth: int, unfolded: bool) -> Markup:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        rows = []
        for shown, (key, child) in enumerate(items):
            if self._nodes <= 0 or self._room.left <= 2000:
                self.whole = False
                rows.append(Markup('<li class="cut">… {} more</li>').format(len(value) - shown))
                break
            self._nodes -= 1
            rows.append(self._row(str(key), child, depth, unfolded))
        return Markup("<ul>{}</ul>").format(Markup("").join(rows))

    def _row(self, key: str, child: Any, depth: int, unfolded: bool) -> Markup:
        name = self._room.line(key, _LONGEST_KEY)
        if isinstance(child, dict | list) and child:
            kind = f"{{{len(child)}}}" if isinstance(child, dict) else f"[{len(child)}]"
            if depth >= _DEEPEST:
                self.whole = False
                return Markup('<li><b>{}</b> <span class="cut">{} …</span></li>').format(name, kind)
            inner = self._children(child, depth + 1, unfolded)
            is_open = Markup(" open") if unfolded or depth == 0 else ""
            return Markup("<li><details{}><summary><b>{}</b> <i>{}</i></summary>{}</details></li>").format(
                is_open, name, kind, inner
            )
        return Markup("<li><b>{}</b> {}</li>").format(name, self._scalar(child))

    def _scalar(self, value: Any) -> Markup:
        if isinstance(value, str):
            if len(value) > _LONGEST_VALUE:
                self.whole = False
            return Markup('<span class="v-text">"{}"</span>').format(self._room.line(value, _LONGEST_VALUE))
        if value is None or isinstance(value, bool | dict | list):
            return Markup('<span class="v-word">{}</span>').format(jsontext.dumps(value).decode())
        text = jsontext.scalar_text(value) or ""
        return Markup('<span class="v-number">{}</span>').format(self._room.line(text, _LONGEST_VALUE))


def _parts(value: Any, enough: int) -> int:
    """How many parts a document has, counted no further than past `enough`."""
    found, waiting = 0, [value]
    while waiting and found <= enough:
        one = waiting.pop()
        if isinstance(one, dict | list):
            found += len(one)
            waiting.extend(one.values() if isinstance(one, dict) else one)
    return found
