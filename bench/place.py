"""What each bench is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, str | float | int | None]
Bench = Callable[["Place"], Coroutine[Any, Any, "Table"]]


class Skipped(Exception):
    """It cannot be measured here; the text says why, and what to install."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What must hold of a figure."""

    text: str
    value: float
    wanted: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        return f"{'met   ' if self.met else 'MISSED'} {self.text}: {shown(self.value)}, wanted {bound} {self.wanted:g}"


@dataclass(slots=True)
class Table:
    """The figures of one bench: a row for each thing that was measured."""

    title: str
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """As it is printed: also a table of Markdown."""
        columns = list(dict.fromkeys(column for row in self.rows for column in row))
        cells = [[shown(row.get(column)) for column in columns] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        number = [all(not isinstance(row.get(column), str) for row in self.rows) for column in columns]

        def line(row: Sequence[str]) -> str:
            each = zip(row, widths, number, strict=True)
            return "| " + " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in each) + " |"

        rule = "|" + "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, number, strict=True)) + "|"
        table = [line(columns), rule, *map(line, cells)] if self.rows else []
        return "\n".join([f"## {self.title}", "", *table, "", *self.notes, *map(str, self.goals)]).rstrip() + "\n"


def shown(value: str | float | int | None) -> str:
    """A cell: three digits that count are enough."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bench may write, how often and how long it measures, and how much of the full amount it takes."""

    folder: Path
    rounds: int = 5
    seconds: float = 5.0
    scale: float = 1.0

    def amount(self, full: int) -> int:
        """So many, at this scale."""
        return max(10, round(full * self.scale))

    def sub(self, name: str) -> Path:
        """A folder of its own for a part."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder


async def in_turns(rounds: int, parts: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, list[T]]:
    """Measure each part once a round, each second round the other way about: what the machine does beside hits all."""
    found: dict[str, list[T]] = {name: [] for name in parts}
    for number in range(rounds):
        for name in sorted(parts, key=list(parts).index, reverse=bool(number % 2)):
            found[name].append(await parts[name]())
    return found
