"""From the filters of `/logs` to SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.delivery import State
from relay.store import LogQuery
from relay.stores.sqlite import rows

ITEMS = f"SELECT {rows.ITEM_COLUMNS} FROM delivery d JOIN event e ON e.id = d.event_id"  # noqa: S608
_OF_EVENT = ("type", "model", "stage", "action", "event", "entry_id")
_States = frozenset(State)


def kinds(query: LogQuery) -> set[str]:
    """Which kinds of items a query can find."""
    asked = set(query.status)
    kinds = set()
    if not asked or asked & _States:
        kinds.add("delivery")
    if not query.route:
        if "unmatched" in asked:
            kinds.add("unmatched")
        if "rejected" in asked and not any(getattr(query, name) for name in (*_OF_EVENT, "event_id")):
            kinds.add("rejected")
    return kinds


class _Conditions:
    """A WHERE clause in the making."""

    def __init__(self, query: LogQuery, id_column: str, source_column: str) -> None:
        self.clauses: list[str] = []
        self.values: list[Any] = []
        self._order = f" ORDER BY {id_column} {'ASC' if query.ascending else 'DESC'} LIMIT {query.limit + 1}"
        self.any_of(source_column, query.source)
        if query.since is not None:
            self.add(f"{id_column} >= ?", rows.first_id(query.since))
        if query.until is not None:
            self.add(f"{id_column} < ?", rows.first_id(query.until))
        if query.before is not None:
            self.add(f"{id_column} {'>' if query.ascending else '<'} ?", query.before)

    def add(self, clause: str, value: object) -> None:
        self.clauses.append(clause)
        self.values.append(value)

    def any_of(self, column: str, values: Sequence[Any]) -> None:
        if len(values) == 1:
            self.add(f"{column} = ?", values[0])
        elif values:
            self.clauses.append(f"{column} IN ({', '.join('?' * len(values))})")
            self.values.extend(values)

    def of_event(self, query: LogQuery) -> None:
        for name in _OF_EVENT:
            self.any_of(f"e.{name}", getattr(query, name))

    def select(self, select: str) -> tuple[str, list[Any]]:
        where = f" WHERE {' AND '.join(self.clauses)}" if self.clauses else ""
        return select + where + self._order, self.values


def deliveries(query: LogQuery) -> tuple[str, list[Any]]:
    where = _Conditions(query, "d.id", "e.source")
    where.of_event(query)
    where.any_of("d.event_id", query.event_id)
    where.any_of("d.route", query.route)
    states = [word for word in query.status if word in _States]
    if len(set(states)) == 1:
        # Spelt out, so that SQLite can use an index that holds only this state.
        where.clauses.append(f"d.state = '{State(states[0]).value}'")
    else:
        where.any_of("d.state", states)
    return where.select(ITEMS)


def unmatched(query: LogQuery) -> tuple[str, list[Any]]:
    where = _Conditions(query, "e.id", "e.source")
    where.clauses.append("e.matched = 0")
    where.of_event(query)
    where.any_of("e.id", query.event_id)
    return where.select(f"SELECT {rows.UNMATCHED_COLUMNS} FROM event e")  # noqa: S608


def rejected(query: LogQuery) -> tuple[str, list[Any]]:
    where = _Conditions(query, "id", "source")
    return where.select(f"SELECT {rows.REJECTION_COLUMNS} FROM rejection")  # noqa: S608
