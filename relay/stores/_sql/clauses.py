"""Clauses of a search: parts of a WHERE with their values, and by which index one drives (see `search`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from relay.delivery import State
from relay.ids import id_range
from relay.immutable import immutable
from relay.store import LogQuery
from relay.stores._sql import rows

WAITS = {State.PENDING: "delivery_pending", State.HELD: "delivery_held"}
"""The states of what waits, and the indexes that hold them."""

OF_SEVERAL = "{id} IN (SELECT event_id FROM mention WHERE {clause})"
"""About events of several changes."""


@immutable
class Clause:
    """Part of a WHERE clause with its values. Where it drives, it says by which index: a search for the newest must not
    depend on what SQLite guesses of a table it knows nothing about."""

    sql: str
    values: tuple[Any, ...] = ()
    index: str | None = None
    key: tuple[str, str | int] | None = None
    """The column that has this value, where the index has the ids of each of its values in order."""
    rest: Clause | None = None
    """What it says beside that."""
    ids: str | None = None
    """The query for the ids that it says, where it says some."""


class Walk(Protocol):
    """How rows are found by what drives. Each engine has its own way to be told by which index."""

    def groups(self, drivers: Sequence[Clause]) -> list[list[Clause]]:
        """Those that one query serves together."""
        ...

    def first(
        self, table: str, column: str, group: Sequence[Clause], filters: Sequence[Clause], query: LogQuery
    ) -> tuple[str, list[Any]]:
        """The query for the first ids (a column of a table) of what a group leads to and others let through, in the
        order of the LogQuery and one more than it wants, with its values."""
        ...

    def some(self, group: Sequence[Clause], within: Sequence[Clause], most: int) -> tuple[str, list[Any]]:
        """The query for up to so many rows, of one column, of `delivery` that a group leads to."""
        ...


class Told:
    """SQLite's: it does as it is told."""

    def groups(self, drivers: Sequence[Clause]) -> list[list[Clause]]:
        return [[driver] for driver in drivers]

    def first(
        self, table: str, column: str, group: Sequence[Clause], filters: Sequence[Clause], query: LogQuery
    ) -> tuple[str, list[Any]]:
        [driver] = group
        also, values = joined(filters)
        where = f"{by_index(driver)} WHERE {driver.sql} AND {also}"
        sql = f"SELECT {column} AS id FROM {table} {where} ORDER BY {column} {order(query)} LIMIT {query.limit + 1}"  # noqa: S608
        return sql, [*driver.values, *values]

    def some(self, group: Sequence[Clause], within: Sequence[Clause], most: int) -> tuple[str, list[Any]]:
        [driver] = group
        also, values = joined(within)
        where = f"{by_index(driver)} WHERE {driver.sql} AND {also}"
        return f"SELECT 1 FROM delivery d {where} LIMIT {most}", [*driver.values, *values]  # noqa: S608


def order(query: LogQuery) -> str:
    return "ASC" if query.ascending else "DESC"


def selecting(select: str, clauses: Sequence[Clause], query: LogQuery, column: str) -> tuple[str, list[Any]]:
    where, values = joined(clauses)
    return f"{select} WHERE {where} ORDER BY {column} {order(query)} LIMIT {query.limit + 1}", values


def joined(clauses: Sequence[Clause]) -> tuple[str, list[Any]]:
    sql = " AND ".join(clause.sql for clause in clauses if clause.sql != "TRUE")
    return sql or "TRUE", [value for clause in clauses for value in clause.values]


def either(*clauses: Clause | None) -> Clause:
    some = [clause for clause in clauses if clause is not None]
    return Clause(f"({' OR '.join(each.sql for each in some)})", tuple(value for each in some for value in each.values))


def in_range(query: LogQuery, column: str) -> list[Clause]:
    clauses = []
    if query.since is not None:
        clauses.append(Clause(f"{column} >= ?", (rows.first_id(query.since),)))
    if query.until is not None:
        clauses.append(Clause(f"{column} < ?", (rows.first_id(query.until),)))
    if query.before is not None:
        clauses.append(Clause(f"{column} {'>' if query.ascending else '<'} ?", (query.before,)))
    return clauses


def event_with(sql: str) -> str:
    return f"EXISTS (SELECT 1 FROM event e WHERE e.id = d.event_id AND {sql})"  # noqa: S608


def by_index(driver: Clause) -> str:
    return "NOT INDEXED" if driver.index is None else f"INDEXED BY {driver.index}"


def equal(column: str, value: str | int, index: str | None = None) -> Clause:
    return Clause(f"{column} = ?", (value,), index, None if index is None else (column, value))


def among(column: str, values: Sequence[Any], index: str | None = None) -> Clause:
    return Clause(f"{column} IN ({', '.join('?' * len(values))})", tuple(values), index)


def any_of(query: LogQuery, name: str, column: str) -> Clause:
    values = getattr(query, name)
    return among(column, values) if values else Clause("TRUE")


def in_state(state: State) -> Clause:
    """Spelt out, so that SQLite can use an index that holds only some states."""
    return Clause(f"d.state = '{state.value}'", index="delivery_aside", key=("d.state", state.value))


def of_ids(select: str, values: tuple[Any, ...] = ()) -> Clause:
    """Those of a query for ids: they are put in order first."""
    return Clause(f"d.id IN ({select})", values, ids=select)


def that_wait(state: State) -> str:
    return f"SELECT id FROM delivery INDEXED BY {WAITS[state]} WHERE state = '{state.value}'"  # noqa: S608


def with_code(column: str, query: LogQuery) -> Clause:
    return either(*(Clause(f"{column} BETWEEN ? AND ?", both) for both in query.code))


def mentioning(column: str, query: LogQuery, index: str | None = None) -> Clause:
    entries = among("entry_id", query.entry_id)
    return Clause(OF_SEVERAL.format(id=column, clause=entries.sql), entries.values, index)


def beginning(column: str, text: str) -> Clause:
    """What begins with a text: everything from it up to the last that could."""
    return Clause(f"({column} >= ? AND {column} < ?)", (text, text + chr(0x10FFFF)))


def with_id(column: str, text: str, prefix: str) -> Clause | None:
    between = id_range(text, prefix)
    return None if between is None else Clause(f"{column} BETWEEN ? AND ?", between)


def pattern(text: str) -> str:
    """A pattern for LIKE that finds a text wherever it stands."""
    for special in "\\%_":
        text = text.replace(special, "\\" + special)
    return f"%{text}%"
