"""Text for terminals: aligned columns, and what others wrote made fit to be shown.

Nothing in it can move the cursor, turn the direction of writing or break a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

_WIDEST = 200  # of a cell: one long name must not make all lines of a table as long
_LONGEST = 2_000  # of a line of text


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns."""
    cells = [[name.upper() for name in header], *([plain(cell) for cell in row] for row in rows)]
    sizes = widths(header, cells)
    return "\n".join("  ".join(map(str.ljust, row, sizes)).rstrip() for row in cells)


def widths(header: Sequence[str], cells: Sequence[Sequence[str]], size: Callable[[str], int] = len) -> list[int]:
    """How wide each column is."""
    return [max(size(row[place]) for row in cells) for place in range(len(header))]


def cut(text: str, room: int) -> str:
    """The text, or as much of it as there is room for."""
    return text if len(text) <= room else text[: room - 1] + "…"


def columns(pairs: Iterable[tuple[str, str]], indent: str = "  ") -> list[str]:
    """Lines of names and values, the values aligned."""
    known = list(pairs)
    size = max((len(name) for name, _ in known), default=0)
    return [f"{indent}{name.ljust(size)}  {value}".rstrip() for name, value in known]


def paragraph(text: str, indent: str, room: int = 100, most: int | None = None) -> list[str]:
    """Foreign text of several lines, each fit to be shown, broken at `room`; at most so many lines."""
    size = room - len(indent)
    lines = []
    for line in text.splitlines() or [""]:
        shown = printable(line)
        lines += [shown[place : place + size] for place in range(0, len(shown), size)] or [""]
    if most is not None and len(lines) > most:
        lines = [*lines[: most - 1], "…"]
    return [(indent + line).rstrip() for line in lines]


def printable(text: str, most: int = _LONGEST) -> str:
    """Text with control and direction characters escaped, and cut where a stranger wrote without end."""
    if len(text) > most:
        text = f"{text[:most]}… ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(value: object) -> str:
    """A cell: what a sender wrote cannot move the cursor or break the line."""
    if value is None:
        return "-"
    return printable(cut(",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value), _WIDEST))
