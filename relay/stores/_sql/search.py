"""From the filters of `/logs` to SQL: how the newest of what is wanted is found without walking the whole table.

A query is answered in two steps. First the ids: the filter that says most is taken for a *driver*, whose index has the
ids in order; each of its values is a branch of one compound SELECT, and all other filters are checked on the way. Then
the rows of the ids that were found. Drivers are an event, an entry, a state that few deliveries are in, what waits, an
HTTP status, shapes (see `shapes`), and where there is none of these the table itself, newest first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from relay.delivery import LogItem, State
from relay.ids import DELIVERY, EVENT, REJECTION, id_range
from relay.store import LogQuery
from relay.stores._sql import rows, shapes
from relay.stores._sql.clauses import (
    OF_SEVERAL,
    WAITS,
    Clause,
    Walk,
    among,
    any_of,
    beginning,
    either,
    equal,
    event_with,
    in_range,
    in_state,
    joined,
    mentioning,
    of_ids,
    order,
    pattern,
    selecting,
    that_wait,
    with_code,
    with_id,
)

Ask = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]
"""Runs a query."""

_Candidate = tuple[str, list[Clause]]
"""A filter that may drive, and its branches."""

ITEMS = f"SELECT {rows.ITEM_COLUMNS} FROM delivery d JOIN event e ON e.id = d.event_id"  # noqa: S608

ERRORS_IN = 50_000
"""In how many of the newest deliveries of the range the text of errors is looked for."""
PAGE_BYTES = 4 << 20
_ROWS_AT_ONCE = 100
_SMALL = 1000
_GATHERED = 20_000  # entries that begin alike: past so many they are common enough to be met on the way
_WAITING = 200_000  # what waits is sorted up to so many; past that it is met on the way
_COUNTED = 50_000  # to choose between two drivers
_FEW = 1000  # to none of which another one is worth counting
_BRANCHES = 200  # in one statement: SQLite takes 500
_OF_EVENT = ("type", "model", "stage", "action", "event")
_States = frozenset(State)
_ASIDE = (State.FAILED, State.CANCELLED, State.MERGED)
# The codes that there are within a range: one look into the index for each.
_CODES = """
    WITH RECURSIVE found(code) AS (
        SELECT min(code) FROM delivery INDEXED BY delivery_code WHERE code >= ?1
        UNION ALL
        SELECT (SELECT min(code) FROM delivery INDEXED BY delivery_code WHERE code > found.code)
        FROM found WHERE found.code < ?2
    )
    SELECT code FROM found WHERE code <= ?2
"""


def kinds(query: LogQuery) -> set[str]:
    """Which kinds of items a query can find."""
    asked = set(query.status)
    kinds = set()
    if not asked or asked & _States:
        kinds.add("delivery")
    if not query.route:
        if "unmatched" in asked and not query.code:
            kinds.add("unmatched")
        if "rejected" in asked and not any(getattr(query, name) for name in (*_OF_EVENT, "entry_id", "event_id")):
            kinds.add("rejected")
    return kinds


# -- deliveries ------------------------------------------------------------------------------------------------------


async def deliveries(query: LogQuery, ask: Ask, walk: Walk) -> list[Any]:
    """Up to `limit` + 1 rows of `ITEMS`, in the order of the query; fewer where they are too large for a page."""
    return await _rows(f"{ITEMS} WHERE d.id", "d.id", await _Deliveries(query, ask, walk).ids(), query, ask)


def fitting(items: Sequence[LogItem], limit: int) -> int:
    """How many of these make a page: as many as are wanted and no larger than `PAGE_BYTES`, but at least one."""
    room = PAGE_BYTES
    for place, item in enumerate(items[:limit]):
        said = item.error.message if item.error is not None else item.reason
        room -= _large((item.event, item.model, item.stage, item.action, item.entry_id, said))
        if room < 0:
            return max(1, place)
    return min(len(items), limit)


def _large(values: Iterable[Any]) -> int:
    """The size of what is not small: all else of a row is bounded."""
    return sum(len(value) for value in values if isinstance(value, str) and len(value) > _SMALL)


async def _rows(select: str, column: str, ids: Sequence[int], query: LogQuery, ask: Ask) -> list[Any]:
    """The rows of some ids, a few at a time, until they are more than `fitting` lets through: names that senders write
    may be a megabyte each."""
    found: list[Any] = []
    size = 0
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        some = orjson.dumps(ids[start : start + _ROWS_AT_ONCE]).decode()
        fetched = await ask(f"{select} IN (SELECT value FROM json_each(?)) ORDER BY {column} {order(query)}", (some,))  # noqa: S608
        found += fetched
        size += sum(_large(row) for row in fetched)
        if size > PAGE_BYTES:
            break
    return found


class _Deliveries:
    """The search for deliveries of one query."""

    def __init__(self, query: LogQuery, ask: Ask, walk: Walk) -> None:
        self._query = query
        self._ask = ask
        self._walk = walk
        self._states = [State(word) for word in dict.fromkeys(query.status) if word in _States]
        self._shapes: list[int] | None = None
        """Those that the filters leave; None where they leave all."""

    async def ids(self) -> list[int]:
        """The first ids, in the order of the query: at most one more than it wants."""
        self._shapes = await self._wanted_shapes()
        if self._shapes == []:
            return []
        candidates = [candidate async for candidate in self._candidates()]
        if self._query.q is None:
            if len(candidates) < 2:  # nothing is to be chosen
                driven_by, branches = candidates[0] if candidates else ("", [Clause("TRUE")])
            else:
                _, driven_by, branches = await self._smallest(candidates)
            return await self._first(branches, driven_by)
        meanings = [meaning async for meaning in self._any_of(self._query.q)]
        number, driven_by, branches = await self._smallest(candidates)
        if number < _COUNTED:
            # The other filters leave few: each of them is looked at.
            return await self._first(branches, driven_by, either(*(filter_ for _, filter_ in meanings)))
        found: set[int] = set()
        for branches, _ in meanings:
            found.update(await self._first(branches))
        return _ordered(found, self._query)

    # -- drivers -----------------------------------------------------------------------------------------------------

    async def _smallest(self, candidates: Sequence[_Candidate]) -> tuple[int, str, list[Clause]]:
        """How many deliveries the filter that drives leads to, the filter, and its branches: the one with the fewest,
        as far as it is worth counting. Those that tend to lead to few come first."""
        fewest, found = _COUNTED, candidates[0] if candidates else ("", [Clause("TRUE")])
        for candidate in candidates:
            number = await self._count(candidate[1])
            if number < fewest:
                fewest, found = number, candidate
            if number <= _FEW:
                break
        return fewest, *found

    async def _candidates(self) -> AsyncIterator[_Candidate]:
        query, states = self._query, self._states
        if query.event_id:
            yield "event_id", [among("d.event_id", query.event_id, "delivery_event")]
        if query.entry_id:
            entries = [equal("d.entry_id", entry, "delivery_entry") for entry in query.entry_id]
            yield "entry_id", [*entries, mentioning("d.event_id", query, "delivery_event")]
        if states and all(state in _ASIDE for state in states):
            yield "status", [in_state(state) for state in states]
        if query.code:
            yield "code", [equal("d.code", code, "delivery_code") for code in await self._codes()]
        if states and all(state in WAITS for state in states):
            waiting = " UNION ALL ".join(that_wait(state) for state in states)
            number = (await self._ask(f"SELECT count(*) FROM ({waiting} LIMIT {_WAITING}) found", ()))[0][0]  # noqa: S608
            if number < _WAITING:
                yield "status", [of_ids(waiting)]
        if self._shapes is not None:
            yield "shape", [self._of_shape(shape) for shape in self._shapes]
        if query.q is not None and (query.since is not None or query.until is not None):
            yield "range", [Clause("TRUE")]

    async def _count(self, branches: Sequence[Clause]) -> int:
        """How many deliveries a driver leads to, up to `_COUNTED`."""
        total = 0
        for group in self._walk.groups(branches):
            some, values = self._walk.some(group, in_range(self._query, "d.id"), _COUNTED - total)
            total += (await self._ask(f"SELECT count(*) FROM ({some}) found", values))[0][0]  # noqa: S608
            if total >= _COUNTED:
                break
        return total

    async def _any_of(self, q: str) -> AsyncIterator[tuple[list[Clause], Clause]]:
        """What `q` may mean: each with its branches, and as a filter of what something else drives."""
        for column, prefix, index in (("d.id", DELIVERY, None), ("d.event_id", EVENT, "delivery_event")):
            if (between := id_range(q, prefix)) is not None:
                meant = Clause(f"{column} BETWEEN ? AND ?", between, index)
                yield [meant], meant
        entries = beginning("entry_id", q)
        some = f"SELECT id FROM delivery INDEXED BY delivery_entry WHERE {entries.sql} LIMIT {_GATHERED}"  # noqa: S608
        number = (await self._ask(f"SELECT count(*) FROM ({some}) found", entries.values))[0][0]  # noqa: S608
        begins = beginning("d.entry_id", q)
        yield [of_ids(some, entries.values) if number < _GATHERED else begins], begins
        several = Clause(OF_SEVERAL.format(id="d.event_id", clause=entries.sql), entries.values, "delivery_event")
        yield [several], several
        named = beginning("event", q)
        found = await self._ask(f"SELECT id FROM shape WHERE {named.sql}", named.values)  # noqa: S608
        numbers = [number for (number,) in found]
        if numbers:
            one_of = Clause(f"d.shape IN ({', '.join(map(str, numbers))})")
            yield [equal("d.shape", number, "delivery_shape") for number in numbers], one_of
        if await self._others():
            event = beginning("e.event", q)
            other = self._without_shape(Clause(event_with(event.sql), event.values))
            yield [other], other
        within, values = joined(in_range(replace(self._query, before=None), "d.id"))
        oldest = f"SELECT d.id FROM delivery d WHERE {within} ORDER BY d.id DESC LIMIT 1 OFFSET {ERRORS_IN - 1}"  # noqa: S608
        floor = await self._ask(oldest, values)
        failed = "(d.id >= ? AND (d.error_message LIKE ? ESCAPE '\\' OR d.error_code = ?))"
        error = Clause(failed, (floor[0][0] if floor else 0, pattern(q), q))
        yield [error], error

    # -- filters -----------------------------------------------------------------------------------------------------

    def _filters(self, driven_by: str) -> list[Clause]:
        """All filters but the one that drives."""
        query = self._query
        clauses = in_range(query, "d.id")
        if query.event_id and driven_by != "event_id":
            clauses.append(among("d.event_id", query.event_id))
        if query.entry_id and driven_by != "entry_id":
            entry, mentioned = among("d.entry_id", query.entry_id), mentioning("d.event_id", query)
            clauses.append(Clause(f"({entry.sql} OR {mentioned.sql})", (*entry.values, *mentioned.values)))
        if self._states and driven_by != "status":
            clauses.append(among("d.state", [state.value for state in self._states]))
        if query.code and driven_by != "code":
            clauses.append(with_code("d.code", query))
        if self._shapes is not None and driven_by != "shape":
            known = [shape for shape in self._shapes if shape != shapes.OTHERS]
            one_of = Clause(f"d.shape IN ({', '.join(map(str, known))})") if known else None
            others = self._of_shape(shapes.OTHERS) if shapes.OTHERS in self._shapes else None
            clauses.append(either(one_of, others))
        return clauses

    def _of_shape(self, shape: int) -> Clause:
        if shape != shapes.OTHERS:
            return equal("d.shape", shape, "delivery_shape")
        query = self._query
        sql, values = joined([any_of(query, name, f"e.{name}") for name in ("source", *_OF_EVENT)])
        route = any_of(query, "route", "d.route")
        return self._without_shape(Clause(f"{route.sql} AND {event_with(sql)}", (*route.values, *values)))

    @staticmethod
    def _without_shape(rest: Clause) -> Clause:
        """Of those whose shape has no number of its own, the ones that a clause lets through."""
        sql, key = f"(d.shape = {shapes.OTHERS} AND {rest.sql})", ("d.shape", shapes.OTHERS)
        return Clause(sql, rest.values, "delivery_shape", key, rest)

    async def _wanted_shapes(self) -> list[int] | None:
        asked = [name for name in shapes.COLUMNS if getattr(self._query, name)]
        if not asked:
            return None
        where, values = joined([any_of(self._query, name, name) for name in asked])
        found = [number for (number,) in await self._ask(f"SELECT id FROM shape WHERE {where}", values)]  # noqa: S608
        return [*found, shapes.OTHERS] if await self._others() else found

    async def _others(self) -> bool:
        """Whether there are deliveries whose shape has no number of its own."""
        looked = f"SELECT EXISTS (SELECT 1 FROM delivery INDEXED BY delivery_shape WHERE shape = {shapes.OTHERS})"  # noqa: S608
        return bool((await self._ask(looked, ()))[0][0])

    async def _codes(self) -> list[int]:
        codes = {code for low, high in self._query.code for (code,) in await self._ask(_CODES, (low, high))}
        return sorted(codes)

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _first(self, branches: Sequence[Clause], driven_by: str = "", also: Clause | None = None) -> list[int]:
        """The first ids of all branches, in the order of the query."""
        filters = self._filters(driven_by) + ([] if also is None else [also])
        return await _newest(self._ask, self._walk, "delivery d", "d.id", branches, filters, self._query)


async def _newest(
    ask: Ask,
    walk: Walk,
    table: str,
    column: str,
    branches: Sequence[Clause],
    filters: Sequence[Clause],
    query: LogQuery,
) -> list[int]:
    """The first ids that any branch has and all filters let through, in the order of the query."""
    found: set[int] = set()
    groups = walk.groups(branches)
    for start in range(0, len(groups), _BRANCHES):
        selects, given = [], []
        for group in groups[start : start + _BRANCHES]:
            select, values = walk.first(table, column, group, filters, query)
            selects.append(f"SELECT id FROM ({select}) found")  # noqa: S608
            given += values
        sql = f"{' UNION ALL '.join(selects)} ORDER BY id {order(query)} LIMIT {query.limit + 1}"
        found.update(number for (number,) in await ask(sql, given))
    return _ordered(found, query)


def _ordered(found: Iterable[int], query: LogQuery) -> list[int]:
    return sorted(found, reverse=not query.ascending)[: query.limit + 1]


# -- events that no route wanted, requests that were refused ---------------------------------------------------------


async def unmatched(query: LogQuery, ask: Ask, walk: Walk) -> list[Any]:
    """Up to `limit` + 1 rows of `UNMATCHED_COLUMNS`, in the order of the query."""
    filters = [Clause("e.matched = 0"), *in_range(query, "e.id")]
    if query.event_id:
        filters.append(among("e.id", query.event_id))
    if query.q is not None:
        filters.append(
            either(with_id("e.id", query.q, EVENT), beginning("e.entry_id", query.q), beginning("e.event", query.q))
        )
    by_shape = [any_of(query, name, f"e.{name}") for name in ("source", *_OF_EVENT)]
    if query.entry_id:
        entries = [equal("e.entry_id", entry, "event_unmatched_entry") for entry in query.entry_id]
        branches = [*entries, mentioning("e.id", query)]
        filters += by_shape
    elif any(getattr(query, name) for name in ("source", *_OF_EVENT)):
        where, values = joined([any_of(query, name, name) for name in ("source", *_OF_EVENT)])
        found = await ask(f"SELECT id FROM shape WHERE route = '' AND {where}", values)  # noqa: S608
        branches = [equal("e.shape", number, "event_unmatched") for (number,) in found]
        sql, values = joined(by_shape)
        key, rest = ("e.shape", shapes.OTHERS), Clause(sql, tuple(values))
        branches.append(Clause(f"e.shape = {shapes.OTHERS} AND {sql}", rest.values, "event_unmatched", key, rest))
    else:
        branches = [Clause("TRUE", (), "event_unmatched_id")]
    ids = await _newest(ask, walk, "event e", "e.id", branches, filters, query)
    return await _rows(f"SELECT {rows.UNMATCHED_COLUMNS} FROM event e WHERE e.id", "e.id", ids, query, ask)  # noqa: S608


async def rejected(query: LogQuery, ask: Ask) -> list[Any]:
    """Up to `limit` + 1 rows of `REJECTED_COLUMNS`, in the order of the query."""
    clauses = [*in_range(query, "id"), any_of(query, "source", "source")]
    if query.code:
        clauses.append(with_code("status", query))
    if query.q is not None:
        reason = Clause("reason LIKE ? ESCAPE '\\'", (pattern(query.q),))
        clauses.append(either(with_id("id", query.q, REJECTION), reason))
    return await ask(*selecting(f"SELECT {rows.REJECTED_COLUMNS} FROM rejection", clauses, query, "id"))  # noqa: S608
