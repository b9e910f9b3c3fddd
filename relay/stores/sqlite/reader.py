"""The queries: on connections that cannot write, each short, none longer than five seconds.

A reader that stays in one transaction keeps the writer's checkpoints from moving on, and the log grows; so a query
that takes too long is cut off. Claims have a connection of their own, so that a person who searches a year of logs
holds up nobody's deliveries.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import aiosqlite
import orjson

from relay.clock import from_ms, to_ms
from relay.delivery import Attempt, Delivery, LogItem, Rejection, State, StoredEvent
from relay.ids import DeliveryId, EventId, Ids, moment_ms
from relay.store import Counts, DeliveryDetail, LogQuery, Page, StoreStatus, Unavailable
from relay.stores.sqlite import rows

QUERY_SECONDS = 5.0
CLAIM_BYTES = 8 << 20
_STEPS = 20_000  # of SQLite's machine between looks at the clock: about a millisecond

_EVENT_E = ", ".join(f"e.{column.strip()}" for column in rows.EVENT_COLUMNS.split(","))

# The sum runs over what is claimed: bodies past the limit are not even read. The first one always is.
CLAIM = f"""
    WITH due AS MATERIALIZED (
        SELECT id, due, event_id FROM delivery INDEXED BY delivery_pending
        WHERE state = 'pending' AND route = ?1 AND due <= ?2 AND id NOT IN (SELECT value FROM json_each(?3))
        ORDER BY due, id LIMIT ?4
    ), fitting AS MATERIALIZED (
        SELECT due.id, sum(size) OVER (ORDER BY due.due, due.id) - size AS before
        FROM due JOIN event ON event.id = due.event_id
    )
    SELECT {rows.CLAIM_COLUMNS}, {_EVENT_E}, b.content, sha256(b.content) = e.sha256
    FROM fitting f JOIN delivery d ON d.id = f.id JOIN event e ON e.id = d.event_id
        LEFT JOIN body b ON b.event_id = e.id
    WHERE f.before = 0 OR f.before + e.size <= ?5
    ORDER BY d.due, d.id
"""  # noqa: S608 - our own columns

_NEXT_DUE = (
    "SELECT due FROM delivery INDEXED BY delivery_pending"
    " WHERE state = 'pending' AND route = ? AND due > ? ORDER BY due LIMIT 1"
)
# One look into the index for each route, however many deliveries wait.
_FIRST_DUE = """
    WITH RECURSIVE waiting(route) AS (
        SELECT min(route) FROM delivery WHERE state = 'pending'
        UNION ALL
        SELECT (SELECT min(route) FROM delivery WHERE state = 'pending' AND route > waiting.route)
        FROM waiting WHERE waiting.route IS NOT NULL
    )
    SELECT route, (SELECT min(due) FROM delivery WHERE state = 'pending' AND route = waiting.route) FROM waiting
    WHERE waiting.route IS NOT NULL
"""
_OLDEST_PENDING = "SELECT min(id) FROM delivery INDEXED BY delivery_pending WHERE state = 'pending'"

_ITEMS = f"SELECT {rows.ITEM_COLUMNS} FROM delivery d JOIN event e ON e.id = d.event_id"  # noqa: S608
_OF_EVENT = ("type", "model", "stage", "action", "event", "entry_id")


class Reader:
    """One connection that cannot write."""

    def __init__(self, connection: aiosqlite.Connection, path: Path, ids: Ids) -> None:
        self.ids = ids
        self._connection = connection
        self._path = path
        self._lock = asyncio.Lock()
        self._deadline = 0.0

    @classmethod
    async def open(cls, path: Path, ids: Ids) -> Reader:
        """Connect to a file that is one of relay's, and of this version."""
        uri = f"{path.as_uri()}?mode=ro"
        connection = await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=5.0)
        try:
            for pragma in (
                "query_only = 1",
                "busy_timeout = 5000",
                "trusted_schema = OFF",
                "cell_size_check = ON",
                "temp_store = MEMORY",
                "mmap_size = 0",
                "wal_autocheckpoint = 0",
            ):
                await connection.execute_fetchall(f"PRAGMA {pragma}")
            await connection.create_function("sha256", 1, _sha256, deterministic=True)
            reader = cls(connection, path, ids)
            await connection.set_progress_handler(reader._late, _STEPS)
        except BaseException:
            await connection.close()
            raise
        return reader

    async def close(self) -> None:
        """End the connection. Idempotent."""
        await self._connection.close()

    def _late(self) -> int:
        return monotonic() > self._deadline

    async def _ask(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        """One query, for the holder of the lock."""
        self._deadline = monotonic() + QUERY_SECONDS
        try:
            return list(await self._connection.execute_fetchall(sql, values))
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise Unavailable(f"the query took longer than {QUERY_SECONDS:g} s: narrow it down") from None
            raise Unavailable(f"the database cannot be read: {error}") from error
        except ValueError:  # the connection is closed
            raise Unavailable("relay is shutting down") from None

    async def _query(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        async with self._lock:
            return await self._ask(sql, values)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[None]:
        """Several queries that see the same state."""
        async with self._lock:
            await self._ask("BEGIN")
            try:
                yield
            finally:
                await self._connection.rollback()

    # -- the queue ---------------------------------------------------------------------------------------------------

    async def claim(self, route: str, now: datetime, limit: int, exclude: Collection[DeliveryId]) -> list[Delivery]:
        """See Store.claim."""
        values = (route, to_ms(now), orjson.dumps(list(exclude)).decode(), limit, CLAIM_BYTES)
        return [_claimed(row, route) for row in await self._query(CLAIM, values)]

    async def next_due(self, route: str, after: datetime) -> datetime | None:
        """See Store.next_due."""
        found = await self._query(_NEXT_DUE, (route, to_ms(after)))
        return from_ms(found[0][0]) if found else None

    # -- the logs ----------------------------------------------------------------------------------------------------

    async def search(self, query: LogQuery) -> Page:
        """See Store.search."""
        kinds = _kinds(query)
        found: list[tuple[int, LogItem]] = []
        async with self._snapshot():
            if "delivery" in kinds:
                sql, values = _deliveries(query)
                found += [(row[0], rows.to_item(row, self.ids)) for row in await self._ask(sql, values)]
            if "unmatched" in kinds:
                sql, values = _unmatched(query)
                found += [(row[0], rows.to_unmatched_item(row, self.ids)) for row in await self._ask(sql, values)]
            if "rejected" in kinds:
                sql, values = _rejected(query)
                found += [(row[0], rows.to_rejected_item(row, self.ids)) for row in await self._ask(sql, values)]
        found.sort(key=lambda pair: pair[0], reverse=not query.ascending)
        more = len(found) > query.limit
        found = found[: query.limit]
        return Page([item for _, item in found], found[-1][0] if more else None)

    async def delivery(self, delivery: DeliveryId) -> DeliveryDetail | None:
        """See Store.delivery."""
        details = await self._details("d.id = ?", delivery)
        return details[0] if details else None

    async def deliveries_of(self, event: EventId) -> list[DeliveryDetail]:
        """See Store.deliveries_of."""
        return await self._details("d.event_id = ?", event)

    async def _details(self, condition: str, value: int) -> list[DeliveryDetail]:
        async with self._snapshot():
            found = await self._ask(f"{_ITEMS} WHERE {condition} ORDER BY d.id", (value,))
            made = await self._ask(
                f"SELECT d.id, {_prefixed('a', rows.ATTEMPT_COLUMNS)} FROM delivery d"  # noqa: S608
                f" JOIN attempt a ON a.delivery_id = d.id WHERE {condition} ORDER BY d.id, a.n",
                (value,),
            )
        attempts: dict[int, list[Attempt]] = {}
        for row in made:
            attempts.setdefault(row[0], []).append(rows.to_attempt(row[1:]))
        return [DeliveryDetail(rows.to_item(row, self.ids), attempts.get(row[0], [])) for row in found]

    async def event(self, event: EventId) -> StoredEvent | None:
        """See Store.event."""
        found = await self._query(
            f"SELECT {_EVENT_E}, b.content FROM event e LEFT JOIN body b ON b.event_id = e.id WHERE e.id = ?",  # noqa: S608
            (event,),
        )
        return rows.to_stored_event(found[0][:-1], found[0][-1], self.ids) if found else None

    async def rejection(self, rejection: int) -> Rejection | None:
        """See Store.rejection."""
        columns = rows.REJECTION_COLUMNS
        found = await self._query(f"SELECT {columns} FROM rejection WHERE id = ?", (rejection,))  # noqa: S608
        return rows.to_rejection(found[0]) if found else None

    # -- the whole ---------------------------------------------------------------------------------------------------

    async def counts(self) -> dict[str, Counts]:
        """Pending and held deliveries by route, counted."""
        counts: dict[str, Counts] = {}
        async with self._snapshot():
            for state in ("pending", "held"):
                query = f"SELECT route, count(*) FROM delivery WHERE state = '{state}' GROUP BY route"  # noqa: S608
                for route, number in await self._ask(query):
                    setattr(counts.setdefault(route, Counts()), state, number)
        return counts

    async def first_due(self) -> dict[str, datetime]:
        """The earliest `due` of each route's pending deliveries."""
        return {route: from_ms(due) for route, due in await self._query(_FIRST_DUE)}

    async def oldest_pending(self) -> datetime | None:
        """When the longest waiting pending delivery was created. Walks the index of all that is pending."""
        found = (await self._query(_OLDEST_PENDING))[0][0]
        return None if found is None else from_ms(moment_ms(found))

    async def status(self) -> StoreStatus:
        """See Store.status; everything is counted."""
        counts = (await self.counts()).values()
        return status(
            self._path,
            sum(each.pending for each in counts),
            sum(each.held for each in counts),
            await self.oldest_pending(),
            await self.first_due(),
        )


def status(
    path: Path, pending: int, held: int, oldest_pending: datetime | None, first_due: Mapping[str, datetime]
) -> StoreStatus:
    """The state of the store with its sizes on disk."""
    size = 0
    for name in (path, path.with_name(path.name + "-wal")):
        try:
            size += os.stat(name).st_size
        except OSError:
            continue
    return StoreStatus(
        backend="sqlite",
        version=sqlite3.sqlite_version,
        pending=pending,
        held=held,
        oldest_pending=oldest_pending,
        oldest_due=min(first_due.values(), default=None),
        size_bytes=size,
        free_bytes=free_bytes(path),
        oldest_by_route=first_due,
        location=str(path),
    )


def free_bytes(path: Path) -> int:
    """What is left on the disk for somebody without privileges; 0 when it cannot be told."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def _sha256(content: bytes | None) -> bytes:
    return b"" if content is None else sha256(content).digest()


def _claimed(row: Sequence[Any], route: str) -> Delivery:
    *columns, content, intact = row
    return rows.to_delivery(columns[:6], route, rows.to_event(columns[6:], content or b"", bool(intact)))


def _prefixed(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{column.strip()}" for column in columns.split(","))


# -- from filters to SQL ---------------------------------------------------------------------------------------------

_States = frozenset(State)


def _kinds(query: LogQuery) -> set[str]:
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


def _deliveries(query: LogQuery) -> tuple[str, list[Any]]:
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
    return where.select(_ITEMS)


def _unmatched(query: LogQuery) -> tuple[str, list[Any]]:
    where = _Conditions(query, "e.id", "e.source")
    where.clauses.append("e.matched = 0")
    where.of_event(query)
    where.any_of("e.id", query.event_id)
    return where.select(f"SELECT {rows.UNMATCHED_COLUMNS} FROM event e")  # noqa: S608


def _rejected(query: LogQuery) -> tuple[str, list[Any]]:
    where = _Conditions(query, "id", "source")
    return where.select(f"SELECT {rows.REJECTION_COLUMNS} FROM rejection")  # noqa: S608
