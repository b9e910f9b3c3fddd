"""Tables as a terminal shows them, by rich: not imported where standard output is something else."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.cli import colour, term

_OF_STATES = ("status", "state", "result", "enabled", "held")
"""Columns whose words have colours of their own."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]], flexible: Collection[str], room: int) -> list[str]:
    """The header and a line for each row, none wider than `room`."""
    cells = [[name.upper() for name in header], *([term.plain(cell) for cell in row] for row in rows)]
    widths = _squeezed(term.widths(header, cells, flexible, room, cell_len), room)
    drawn = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name, size in zip(cells[0], widths, strict=True):
        drawn.add_column(Text(name), width=size, no_wrap=True, overflow="ellipsis")
    for row in cells[1:]:
        # As Text: to a plain string rich would say that [red] is markup and :skull: an emoji.
        drawn.add_row(*(Text(cell, _style(name, cell)) for name, cell in zip(header, row, strict=True)))
    console = Console(
        width=room,
        force_terminal=colour.wanted(),
        color_system="standard" if colour.wanted() else None,
        highlight=False,
    )
    with console.capture() as shown:
        console.print(drawn)
    return [line.rstrip() for line in shown.get().splitlines()]


def cut(text: str, room: int) -> str:
    """The text, or as much of it as so many columns have room for."""
    return text if cell_len(text) <= room else set_cell_size(text, room - 1).rstrip() + "…"


def _style(column: str, cell: str) -> str:
    return colour.OF_WORD.get(cell, "") if column in _OF_STATES else ""


def _squeezed(widths: list[int], room: int) -> list[int]:
    """Where nothing more can give way, what stands to the right does: what is to the left are ids and names."""
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    for place in reversed(range(len(widths))):
        taken = max(0, min(excess, widths[place] - 1))
        widths[place] -= taken
        excess -= taken
    return widths
