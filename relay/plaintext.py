"""Text for terminals: aligned columns, and what others wrote made fit to be shown.

Nothing in it can move the cursor, turn the direction of writing or break a line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

_NARROWEST = 8  # a column that is cut keeps at least so much
_ALIGNED = 100  # what is wider is not waited for by the next column


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], flexible: Collection[str] = (), room: int | None = None
) -> str:
    """Aligned columns. Where there is only so much `room`, the flexible ones are cut first, the widest of them most.
    Where there is any, nothing is cut, and what is very wide stands out: one cell must not make all lines as long."""
    cells = [[name.upper() for name in header], *([_plain(cell) for cell in row] for row in rows)]
    widest = _ALIGNED if room is None else room
    widths = [min(widest, max(len(row[place]) for row in cells)) for place in range(len(header))]
    if room is not None:
        shrinking = [place for place, name in enumerate(header) if name in flexible]
        while sum(widths) + 2 * (len(widths) - 1) > room:
            place = max(shrinking, key=lambda place: widths[place], default=None)
            if place is None or widths[place] <= _NARROWEST:
                break
            widths[place] -= 1
    lines = []
    for row in cells:
        fitting = row if room is None else [cut(cell, size) for cell, size in zip(row, widths, strict=True)]
        line = "  ".join(cell.ljust(size) for cell, size in zip(fitting, widths, strict=True)).rstrip()
        lines.append(line if room is None else cut(line, room))
    return "\n".join(lines)


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


def printable(text: str) -> str:
    """Text with control and direction characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(value: object) -> str:
    """A cell: what a sender wrote cannot move the cursor or break the line."""
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return printable(",".join(map(str, value)))
    return printable(str(value))
