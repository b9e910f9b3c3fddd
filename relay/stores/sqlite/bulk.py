"""Many rows with one statement: it takes less than one for each, and Python's lock changes hands but once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import itemgetter

from relay.stores._sql.connection import Connection
from relay.stores._sql.rows import Row

SIZES = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
FILL = (1 << 63) - 1
"""What stands where a statement has room for more rows. No row has this id, and all have a lower one."""
_SPARE = 3  # of a size a third may be filled up: whatever is no larger than the largest is one statement


def pieces(rows: int) -> Iterator[tuple[int, int, int]]:
    """So many rows in pieces of few sizes, so that each statement over one is compiled once and kept: sizes, where each
    piece begins and how many rows it has. The last one may lack a few: to fill it up costs less than a statement
    more."""
    done = 0
    for size in SIZES:
        while rows - done >= size:
            yield size, done, size
            done += size
        lacking = size - (rows - done)
        if lacking < size and lacking * _SPARE <= size:
            yield size, done, rows - done
            return


class Statements(dict[int, str]):
    """A statement for each size, written when it is first needed."""

    def __init__(self, write: Callable[[int], str]) -> None:
        self._write = write

    def __missing__(self, size: int) -> str:
        self[size] = made = self._write(size)
        return made


Places = Sequence[Sequence[str]]
"""Where the value of each column is bound, as `?7`, row by row."""


class Many:
    """A statement over many rows of these columns. Those of one batch mostly have one value in the columns `shared`: it
    is bound once then, which is most of what it costs to bind a row (and for each NULL Python's module would look for
    who adapts it). `write` makes the statement for rows bound so, `write_any` the one for others.
    """

    __slots__ = ("_alike", "_any", "_counted", "_shared", "_single", "_single_width", "_width")

    def __init__(
        self,
        columns: str,
        shared: str,
        write: Callable[[Places], str],
        write_any: Callable[[Places], str] | None = None,
        counted: bool = False,
    ) -> None:
        names = [name.strip() for name in columns.split(",")]
        alike = [names.index(name.strip()) for name in shared.split(",")] if shared else []
        single = [place for place in range(len(names)) if place not in alike]
        self._width, self._single_width, self._counted = len(names), len(single), counted
        self._shared = _values(alike) if alike else None
        self._single = _values(single)
        every = range(len(names))
        self._any = Statements(lambda size: (write_any or write)(_places((), every, size)))
        self._alike = Statements(lambda size: write(_places(alike, single, size)))

    def __call__(self, connection: Connection, table: Sequence[Row]) -> int:
        """Run it; how many rows it inserted or changed. After the values stands, if `counted`, how many there are;
        the others of the statement's size are `FILL`."""
        if not table:
            return 0
        statements, values, width = self._any, table, self._width
        shared = self._shared_by(table)
        if shared:
            statements, values, width = self._alike, list(map(self._single, table)), self._single_width
        changed = 0
        for size, start, number in pieces(len(values)):
            bound = [*shared, *chain.from_iterable(values[start : start + number])]
            if number < size:
                bound += (FILL,) * (width * (size - number))
            if self._counted:
                bound.append(number)
            changed += connection.execute(statements[size], bound).rowcount
        return changed

    def _shared_by(self, table: Sequence[Row]) -> Row:
        """The one value of each shared column; nothing where there is another."""
        shared = self._shared
        if shared is None:
            return ()
        first = shared(table[0])
        for row in table:
            if shared(row) != first:
                return ()
        return first


def insert(into: str, columns: str, shared: str = "") -> Many:
    """Rows into a table.

    Words like `OR ROLLBACK INTO event` save SQLite a copy of each page that it touches, and have it undo the whole
    transaction where a row cannot be written.
    """

    def write(table: Places) -> str:
        rows = " UNION ALL ".join([f"SELECT {', '.join(row)}" for row in table])
        return f"INSERT {into} ({columns}) {rows} LIMIT ?"

    return Many(columns, shared, write, counted=True)


def _values(places: Sequence[int]) -> Callable[[Row], Row]:
    """What takes these values from a row."""
    if len(places) == 1:  # Python's own would not make a row of one
        (place,) = places
        return lambda row: (row[place],)
    return itemgetter(*places)


def _places(shared: Sequence[int], single: Sequence[int], size: int) -> Places:
    """The shared columns come first, then the others row by row."""
    table = []
    for row in range(size):
        names = {place: f"?{number}" for number, place in enumerate(shared, start=1)}
        first = 1 + len(shared) + row * len(single)
        names.update((place, f"?{number}") for number, place in enumerate(single, start=first))
        table.append([names[place] for place in sorted(names)])
    return table
