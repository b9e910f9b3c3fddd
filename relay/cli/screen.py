"""Tables as a terminal shows them, by rich: not imported where standard output is something else.

Where there is little room, ids are shortened first, for their beginnings will do as ids; then texts of which a part
tells most. Numbers and states are cut last of all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.cli import colour, term

_OF_STATES = ("status", "state", "result", "enabled", "held")
"""Columns whose words have colours of their own."""
_WHOLE = (*_OF_STATES, "attempts", "tries", "code", "events", "pending")
"""Columns that are cut last."""
_SHORT_ID = 14  # characters: the millisecond, which tells most of what one sees at a time apart
_NARROWEST = 8  # a column that is cut keeps at least so much

Shape = tuple[Sequence[str], Sequence[Sequence[object]]]
"""The header and the rows of a table."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]], flexible: Collection[str], room: int) -> list[str]:
    """The header and a line for each row, none wider than `room`."""
    cells = _cells(header, rows)
    sizes = fitted(header, _natural(header, cells), flexible, room, _apart(header, cells))
    drawn = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name, size in zip(cells[0], sizes, strict=True):
        drawn.add_column(Text(name), width=size, no_wrap=True, overflow="ellipsis")
    for row in cells[1:]:
        # As Text: to a plain string rich would say that [red] is markup and :skull: an emoji.
        drawn.add_row(
            *(
                # What is copied from the screen is to be an id: no ellipsis stands in it.
                Text(cell[:size] if name == "id" else cell, _style(name, cell))
                for name, cell, size in zip(header, row, sizes, strict=True)
            )
        )
    console = Console(
        width=room,
        force_terminal=colour.wanted(),
        color_system="standard" if colour.wanted() else None,
        highlight=False,
    )
    with console.capture() as shown:
        console.print(drawn)
    return [line.rstrip() for line in shown.get().splitlines()]


def best(shapes: Iterable[Shape], flexible: Collection[str], room: int) -> Shape:
    """The first of several shapes of a table that has room enough, or else the last."""
    shape: Shape = ((), ())
    for shape in shapes:
        header, rows = shape
        if total(least(header, _natural(header, _cells(header, rows)), flexible)) <= room:
            break
    return shape


def least(header: Sequence[str], natural: Sequence[int], flexible: Collection[str]) -> list[int]:
    """How narrow columns get without harm: an id keeps its beginning, what is flexible some letters."""
    return [
        min(size, _SHORT_ID if name == "id" else max(_NARROWEST, len(name)) if name in flexible else size)
        for name, size in zip(header, natural, strict=True)
    ]


def total(sizes: Sequence[int]) -> int:
    """The width of a line, with the gaps between its columns."""
    return sum(sizes) + 2 * (len(sizes) - 1)


def fitted(
    header: Sequence[str], natural: Sequence[int], flexible: Collection[str], room: int, apart: int = _SHORT_ID
) -> list[int]:
    """The widths of columns, at most `room` together: ids give way first, as far as `apart` characters tell them
    apart; then what is flexible, the widest most; then ids again; then from right to left what is no number."""
    sizes = list(natural)
    floors = least(header, natural, flexible)
    ids = [place for place, name in enumerate(header) if name == "id"]
    soft = [place for place, name in enumerate(header) if name in flexible]

    def excess() -> int:
        return total(sizes) - room

    def give(place: int, floor: int) -> None:
        sizes[place] -= max(0, min(excess(), sizes[place] - floor))

    for place in ids:
        give(place, apart)
    while excess() > 0:
        widest = max((place for place in soft if sizes[place] > floors[place]), key=sizes.__getitem__, default=None)
        if widest is None:
            break
        sizes[widest] -= 1
    for place in ids:
        give(place, _SHORT_ID)
    places = list(reversed(range(len(sizes))))
    for place in (*(place for place in places if header[place] not in _WHOLE), *places):
        give(place, 1)
    return sizes


def cut(text: str, room: int) -> str:
    """The text, or as much of it as so many columns have room for."""
    return text if cell_len(text) <= room else set_cell_size(text, room - 1).rstrip() + "…"


def padded(text: str, size: int) -> str:
    """The text in a column of this width."""
    return set_cell_size(cut(text, size), size)


def _cells(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[list[str]]:
    return [[name.upper() for name in header], *([term.plain(cell) for cell in row] for row in rows)]


def _natural(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return term.widths(header, cells, size=cell_len)


def _apart(header: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """How many characters tell the ids of a table apart."""
    if "id" not in header:
        return _SHORT_ID
    place = list(header).index("id")
    ids = sorted({row[place] for row in cells[1:]})
    shared = (next((n for n, (a, b) in enumerate(zip(*two, strict=False)) if a != b), 0) for two in pairwise(ids))
    return max(_SHORT_ID, 1 + max(shared, default=0))


def _style(column: str, cell: str) -> str:
    return colour.OF_WORD.get(cell, "") if column in _OF_STATES else ""
