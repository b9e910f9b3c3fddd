"""How the newest of many rows are found where the engine chooses the index by itself.

Asked for the first hundred of `shape = 7 ORDER BY id`, PostgreSQL may walk the primary key and wait to meet enough of
them on the way: the more of them it counts, the sooner it thinks to be done. Where all of them are old that takes the
whole table. So it is left no choice:

- of an index whose rows have the ids in order after a key, a range from (key, id) to (key, id) is asked for, in just
  the order of the index: that no other index has. (Of an equality it would know that the key does not matter.) Keys of
  one index are looked up one after another by one statement, which is planned once for any number of them.
- ids that a query finds are put in order, and each is looked at in turn until there are enough
- what other indexes find is found whole before it is put in order

`OFFSET 0` does nothing, but no query is planned across it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from relay.store import LogQuery
from relay.stores._sql.clauses import Clause, joined, order
from relay.stores._sql.rows import first_id
from relay.stores._sql.tables import ASIDE

_ALL = (1 << 63) - 1
_ONE = re.compile(r" IN \((\?|\d+)\)")
_HELD_BY = {"delivery_aside": f"({ASIDE})"}
"""What is said of all rows of an index, where it is more than that they have a key."""


class Led:
    """See `clauses.Walk`."""

    def groups(self, drivers: Sequence[Clause]) -> list[list[Clause]]:
        groups: dict[Any, list[Clause]] = {}
        for number, driver in enumerate(drivers):
            key = number if driver.key is None or driver.rest is not None else (driver.index, driver.key[0])
            groups.setdefault(key, []).append(driver)
        return list(groups.values())

    def first(
        self, table: str, column: str, group: Sequence[Clause], filters: Sequence[Clause], query: LogQuery
    ) -> tuple[str, list[Any]]:
        driver, (also, values) = group[0], _let_through(filters)
        way, most = order(query), query.limit + 1
        low, high = _bounds(query)
        if driver.key is not None:
            key, keys = driver.key[0], [each.key[1] for each in group if each.key is not None]
            rest, more = _let_through([] if driver.rest is None else [driver.rest])
            within = f"{_of_key(driver, column)} AND {rest} AND {also}"
            looked = (
                f"SELECT {column} AS id FROM {table} WHERE {within} ORDER BY {key} {way}, {column} {way} LIMIT {most}"  # noqa: S608
            )
            return (
                f"SELECT found.id FROM unnest(?{_type(keys)}) AS each(key) CROSS JOIN LATERAL ({looked}) found"  # noqa: S608
                f" ORDER BY found.id {way} LIMIT {most}",
                [keys, low, high, *more, *values],
            )
        if driver.ids is not None:
            ids = f"SELECT id FROM ({driver.ids}) those WHERE id BETWEEN ? AND ? ORDER BY id {way} OFFSET 0"  # noqa: S608
            looked = f"SELECT {column} FROM {table} WHERE {column} = known.id AND {also} OFFSET 0"  # noqa: S608
            return (
                f"SELECT known.id FROM ({ids}) known CROSS JOIN LATERAL ({looked}) found"  # noqa: S608
                f" ORDER BY known.id {way} LIMIT {most}",
                [*driver.values, low, high, *values],
            )
        given = [*driver.values, *values]
        if driver.index is not None and driver.sql != "TRUE":
            sql = f"SELECT {column} AS id FROM {table} WHERE {driver.sql} AND {also} OFFSET 0"  # noqa: S608
            return f"SELECT id FROM ({sql}) those ORDER BY id {way} LIMIT {most}", given  # noqa: S608
        sql = f"SELECT {column} AS id FROM {table} WHERE {driver.sql} AND {also} ORDER BY {column} {way} LIMIT {most}"  # noqa: S608
        return sql, given

    def some(self, group: Sequence[Clause], within: Sequence[Clause], most: int) -> tuple[str, list[Any]]:
        driver, (also, values) = group[0], _let_through(within)
        if driver.key is None or driver.rest is not None:
            sql = f"SELECT 1 FROM delivery d WHERE {driver.sql} AND {also} LIMIT {most}"  # noqa: S608
            return sql, [*driver.values, *values]
        keys = [each.key[1] for each in group if each.key is not None]
        looked = f"SELECT 1 FROM delivery d WHERE {_of_key(driver, 'd.id')} AND {also} LIMIT {most}"  # noqa: S608
        return (
            f"SELECT 1 FROM unnest(?{_type(keys)}) AS each(key) CROSS JOIN LATERAL ({looked}) found LIMIT {most}",  # noqa: S608
            [keys, 0, _ALL, *values],
        )


def _of_key(driver: Clause, column: str) -> str:
    """The rows of an index that have `each.key`, from one id to another."""
    assert driver.key is not None
    key = driver.key[0]
    held = _HELD_BY.get(driver.index or "", f"{key} IS NOT NULL")
    return f"{held} AND ({key}, {column}) >= (each.key, ?) AND ({key}, {column}) <= (each.key, ?)"


def _type(keys: Sequence[Any]) -> str:
    return "::text[]" if isinstance(keys[0], str) else "::bigint[]"


def _let_through(filters: Sequence[Clause]) -> tuple[str, list[Any]]:
    """Filters, none of which is an equality: an IN of one value would be."""
    sql, values = joined(filters)
    return _ONE.sub(r" = ANY (ARRAY[\1])", sql), values


def _bounds(query: LogQuery) -> tuple[int, int]:
    """The lowest and the highest id that a query may find."""
    low, high = 0, _ALL
    if query.since is not None:
        low = first_id(query.since)
    if query.until is not None:
        high = first_id(query.until) - 1
    if query.before is not None:
        low, high = (max(low, query.before + 1), high) if query.ascending else (low, min(high, query.before - 1))
    return low, high
