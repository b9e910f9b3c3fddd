"""The queries that are the same on every engine."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from time import monotonic
from typing import Any, ClassVar

import orjson

from relay.clock import from_ms, to_ms
from relay.delivery import Attempt, Delivery, HeldReason, LogItem, Rejection, State, StoredEvent, Window
from relay.ids import DELIVERY, EVENT, DeliveryId, EventId, Ids, moment_ms
from relay.pace import Minute
from relay.store import Counts, DeliveryDetail, LogQuery, Page, Pruned
from relay.stores._sql import clauses, prunable, rows, search
from relay.stores._sql.tables import UNFINISHED_LANE, routes_with
from relay.window import MOST_DEBOUNCED, Collected, kind_of, opened_at

QUERY_SECONDS = 5.0
"""For which a query may go on."""

EVENT_E = rows.event_columns("e")

_NEXT_DUE = (
    "SELECT due FROM delivery INDEXED BY delivery_pending"
    " WHERE state = 'pending' AND blocked = 0 AND route = ? AND retried = ? AND due > ? ORDER BY due LIMIT 1"
)
# Two looks into the index for each route, however many deliveries wait.
_FIRST_DUE = f"""
    WITH RECURSIVE {routes_with("pending")}
    SELECT route,
        (SELECT due FROM delivery
            WHERE state = 'pending' AND route = found.route AND blocked = 0 AND retried = 0 ORDER BY due LIMIT 1),
        (SELECT due FROM delivery
            WHERE state = 'pending' AND route = found.route AND blocked = 0 AND retried = 1 ORDER BY due LIMIT 1)
    FROM found WHERE route IS NOT NULL
"""  # noqa: S608
# The sum: see the next one.
_BEFORE = f"""
    SELECT min(+id) FROM delivery WHERE route = (SELECT route FROM delivery WHERE id = ?1 AND blocked = 1)
        AND lane = (SELECT lane FROM delivery WHERE id = ?1 AND blocked = 1) AND {UNFINISHED_LANE} AND blocked = 0
"""  # noqa: S608
# Of the index of what waits, not the first in the table that does.
# The sum keeps PostgreSQL from walking all of the table in the order of ids for it.
_OLDEST_PENDING = "SELECT min(+id) FROM delivery INDEXED BY delivery_pending WHERE state = 'pending'"

# Bodies only where they are wanted: of a debounce window the last one alone is sent.
_COLLECTED = f"""
    SELECT d.id, {EVENT_E}, b.content, sha256(b.content) = e.sha256 FROM delivery d JOIN event e ON e.id = d.event_id
        LEFT JOIN body b ON b.event_id = e.id AND ?2
    WHERE d.id = ?1 OR d.id IN (SELECT id FROM delivery WHERE merged_into = ?1)
    ORDER BY d.id LIMIT ?3
"""  # noqa: S608
_BODY = "SELECT (SELECT content FROM body WHERE event_id = ?)"
_WINDOW_OF = 'SELECT "window" FROM delivery WHERE id = ?'
# A full one that is held by hand waits for somebody to see it.
_OPEN = """
    SELECT id FROM (
        SELECT id FROM delivery INDEXED BY delivery_window WHERE open = 1
        UNION SELECT id FROM delivery INDEXED BY delivery_hand WHERE held_reason = 'hand'
    ) found ORDER BY id LIMIT 1000
"""
_WINDOWS = (
    "SELECT id, route, due, state, event_id, (SELECT received_at FROM event WHERE event.id = delivery.event_id)"  # noqa: S608
    f" FROM delivery WHERE id IN ({_OPEN}) ORDER BY id"
)
_MERGED_INTO_WINDOWS = f"SELECT merged_into, event_id FROM delivery WHERE merged_into IN ({_OPEN}) ORDER BY id"  # noqa: S608
# Told by the indexes alone.
_PENDING_NUMBER = "SELECT count(*) FROM delivery INDEXED BY delivery_pending WHERE state = 'pending' AND route = ?"
_HELD_BY_REASON = (
    "SELECT held_reason, count(*) FROM delivery INDEXED BY delivery_held WHERE state = 'held' AND route = ?"
    " GROUP BY held_reason"
)
_HELD_BY_ROUTE = (
    "SELECT route, count(*) FROM delivery INDEXED BY delivery_held WHERE state = 'held' AND held_reason <> 'hand'"
    " GROUP BY route"
)
_AT_ONCE = 20_000
# So many at once: all of a million take longer than a query may, and than the loop may stand still for them. As the
# indexes have them, after the last one.
_PENDING_OF = (
    "SELECT blocked, retried, due, id FROM delivery INDEXED BY delivery_pending WHERE state = 'pending' AND route = ?1"
    " AND (blocked, retried, due, id) > (?2, ?3, ?4, ?5) ORDER BY blocked, retried, due, id LIMIT ?6"
)
_HELD_OF = (
    "SELECT held_reason, id FROM delivery INDEXED BY delivery_held WHERE state = 'held' AND route = ?1"
    " AND (held_reason, id) > (?2, ?3) ORDER BY held_reason, id LIMIT ?4"
)
_COUNTED = 50_000
_EVENTS_BY_MINUTE = f"""
    SELECT id / {rows.PER_MS} / 60000 AS minute, count(*)
    FROM (SELECT id FROM event WHERE id >= ?1 ORDER BY id DESC LIMIT ?2) found GROUP BY minute
"""  # noqa: S608
_ENDED_BY_MINUTE = """
    SELECT updated_at / 60000 AS minute, state, count(*)
    FROM (SELECT updated_at, state FROM delivery WHERE id >= ?1 ORDER BY id DESC LIMIT ?2) found
    WHERE state IN ('delivered', 'failed') GROUP BY minute, state
"""
_KNOWN = "SELECT name, data FROM known WHERE kind = ?"


class Reader(ABC):
    """One connection for queries; one at a time."""

    walk: ClassVar[clauses.Walk] = clauses.Told()
    """How a search goes through the tables."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self._lock = asyncio.Lock()

    @abstractmethod
    async def _ask(self, sql: str, values: Sequence[Any] = (), deadline: float | None = None) -> list[Any]:
        """One query, for the holder of the lock; of several together the deadline is one. Raises Unavailable."""

    @abstractmethod
    def _snapshot(self) -> AbstractAsyncContextManager[None]:
        """Several queries that see the same state, one after another. Takes the lock."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection. Idempotent."""

    async def ask(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """One query, alone. Raises Unavailable."""
        async with self._lock:
            return await self._ask(sql, values)

    # -- the queue ---------------------------------------------------------------------------------------------------

    async def collected(self, delivery: Delivery) -> Delivery:
        """A delivery that was taken: a window with all its events."""
        found = await self.ask(_WINDOW_OF, (delivery.id,))
        return await self.whole(delivery, found[0][0] if found else None)

    async def whole(self, delivery: Delivery, window: str | None) -> Delivery:
        """With all its events, for the carrier of a window that takes no more."""
        if window is None or not delivery.reserved:
            return delivery
        kind = kind_of(window)
        found = await self.ask(_COLLECTED, (delivery.id, kind == "batch", MOST_DEBOUNCED))
        batched = kind == "batch"
        events = [rows.to_event(row[1:-2], row[-2] or b"", not batched or bool(row[-1])) for row in found]
        if len(events) == 1:
            events = [delivery.event]
        elif not batched:
            [(content,)] = await self.ask(_BODY, (events[-1].id,))
            intact = digest(content) == events[-1].sha256
            events[-1] = replace(events[-1], body=content or b"", sha256=events[-1].sha256 if intact else b"")
        delivery.event = events[-1]
        if not all(event.sha256 for event in events):
            delivery.event = replace(delivery.event, sha256=b"")  # one that rotted spoils the whole
        delivery.collected = Collected(kind, tuple(events), tuple(self.ids.text(EVENT, event.id) for event in events))
        return delivery

    async def next_due(self, route: str, after: datetime) -> datetime | None:
        """See Store.next_due."""
        moments = []
        for retried in (0, 1):
            moments += await self.ask(_NEXT_DUE, (route, retried, to_ms(after)))
        return from_ms(min(moment for (moment,) in moments)) if moments else None

    async def unfinished(self, route: str) -> list[int]:
        """What of a route is pending or held, oldest first."""
        found: list[int] = []
        async with self._snapshot():
            for query, first in ((_PENDING_OF, (-1, 0, 0, 0)), (_HELD_OF, ("", 0))):
                last: Sequence[Any] | None = first
                while last is not None:
                    some = await self._ask(query, (route, *last, _AT_ONCE))
                    found += [row[-1] for row in some]
                    last = some[-1] if len(some) == _AT_ONCE else None
        return sorted(found)

    async def windows(self) -> list[Window]:
        """See Store.windows."""
        async with self._snapshot():
            carriers = await self._ask(_WINDOWS)
            merged = await self._ask(_MERGED_INTO_WINDOWS)
        events: dict[int, list[EventId]] = {}
        for carrier, event in merged:
            events.setdefault(carrier, []).append(EventId(event))
        return [
            Window(
                id=DeliveryId(number),
                route=route,
                opened_at=opened_at(DeliveryId(number), EventId(event), from_ms(received)),
                due_at=from_ms(due),
                held=state == State.HELD,
                events=(EventId(event), *events.get(number, ())),
            )
            for number, route, due, state, event, received in carriers
        ]

    async def held(self, route: str) -> dict[str, int]:
        """How many deliveries of a route are held, by why."""
        return dict(await self.ask(_HELD_BY_REASON, (route,)))

    async def held_for(self, routes: Collection[str]) -> dict[str, int]:
        """How many deliveries are held for the sake of their routes: of these, and maybe of others."""
        if len(routes) != 1:
            return dict(await self.ask(_HELD_BY_ROUTE))
        [route] = routes
        return {route: sum([number for why, number in (await self.held(route)).items() if why != HeldReason.HAND])}

    async def pending(self, route: str) -> int:
        """How many deliveries of a route are pending."""
        [[number]] = await self.ask(_PENDING_NUMBER, (route,))
        return int(number)

    async def states(self, kind: str) -> dict[str, dict[str, Any]]:
        """See Store.states."""
        return {name: orjson.loads(data) for name, data in await self.ask(_KNOWN, (kind,))}

    async def pace(self, since: datetime) -> list[Minute]:
        """See Store.pace."""
        first = rows.first_id(since)
        minutes: dict[int, Minute] = {}
        for number, count in await self.ask(_EVENTS_BY_MINUTE, (first, _COUNTED)):
            minutes.setdefault(number, Minute(number)).events = count
        for number, state, count in await self.ask(_ENDED_BY_MINUTE, (first, _COUNTED)):
            setattr(minutes.setdefault(number, Minute(number)), state, count)
        oldest = to_ms(since) // 60_000
        return [minute for number, minute in sorted(minutes.items()) if number > oldest]

    # -- the logs ----------------------------------------------------------------------------------------------------

    async def search(self, query: LogQuery) -> Page:
        """See Store.search."""
        kinds = search.kinds(query)
        found: list[tuple[int, LogItem]] = []
        async with self._snapshot():
            ask = partial(self._ask, deadline=monotonic() + QUERY_SECONDS)
            if "delivery" in kinds:
                found += [
                    (row[0], rows.to_item(row, self.ids)) for row in await search.deliveries(query, ask, self.walk)
                ]
            if "unmatched" in kinds:
                unmatched = await search.unmatched(query, ask, self.walk)
                found += [(row[0], rows.to_unmatched_item(row, self.ids)) for row in unmatched]
            if "rejected" in kinds:
                rejected = await search.rejected(query, ask)
                found += [(row[0], rows.to_rejected_item(row, self.ids)) for row in rejected]
        found.sort(key=lambda pair: pair[0], reverse=not query.ascending)
        fit = search.fitting([item for _, item in found], query.limit)
        return Page([item for _, item in found[:fit]], found[fit - 1][0] if fit < len(found) else None)

    async def delivery(self, delivery: DeliveryId) -> DeliveryDetail | None:
        """See Store.delivery."""
        details = await self._details("d.id = ?", delivery)
        if not details:
            return None
        found = details[0]
        if found.item.status == State.PENDING:
            before = (await self.ask(_BEFORE, (delivery,)))[0][0]
            found = replace(found, behind=None if before is None else self.ids.text(DELIVERY, before))
        return found

    async def deliveries_of(self, event: EventId) -> list[DeliveryDetail]:
        """See Store.deliveries_of."""
        return await self._details("d.event_id = ?", event)

    async def _details(self, condition: str, value: int) -> list[DeliveryDetail]:
        async with self._snapshot():
            found = await self._ask(f"{search.ITEMS} WHERE {condition} ORDER BY d.id", (value,))
            made = await self._ask(
                f"SELECT d.id, {prefixed('a', rows.ATTEMPT_COLUMNS)} FROM delivery d"  # noqa: S608
                f" JOIN attempt a ON a.delivery_id = d.id WHERE {condition} ORDER BY d.id, a.n",
                (value,),
            )
            taken_in = await self._ask(
                f"SELECT m.merged_into, m.event_id FROM delivery d JOIN delivery m ON m.merged_into = d.id"  # noqa: S608
                f" WHERE {condition} ORDER BY m.id",
                (value,),
            )
        merged: dict[int, list[EventId]] = {}
        for carrier, event in taken_in:
            merged.setdefault(carrier, []).append(EventId(event))
        attempts: dict[int, list[Attempt]] = {}
        for row in made:
            attempts.setdefault(row[0], []).append(rows.to_attempt(row[1:]))
        return [
            DeliveryDetail(rows.to_item(row, self.ids), attempts.get(row[0], []), merged.get(row[0], []))
            for row in found
        ]

    async def event(self, event: EventId) -> StoredEvent | None:
        """See Store.event."""
        found = await self.ask(
            f"SELECT {EVENT_E}, b.content FROM event e LEFT JOIN body b ON b.event_id = e.id WHERE e.id = ?",  # noqa: S608
            (event,),
        )
        return rows.to_stored_event(found[0][:-1], found[0][-1], self.ids) if found else None

    async def rejection(self, rejection: int) -> Rejection | None:
        """See Store.rejection."""
        columns = rows.REJECTION_COLUMNS
        found = await self.ask(f"SELECT {columns} FROM rejection WHERE id = ?", (rejection,))  # noqa: S608
        return rows.to_rejection(found[0]) if found else None

    async def prunable(
        self,
        now: datetime,
        retention: timedelta,
        bodies: timedelta,
        told: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        """See LogReader.prunable."""
        return await prunable.count(self.ask, now, retention, bodies, told)

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
        return {
            route: from_ms(min(due for due in dues if due is not None))
            for route, *dues in await self.ask(_FIRST_DUE)
            if any(due is not None for due in dues)
        }

    async def oldest_pending(self) -> datetime | None:
        """When the longest waiting pending delivery was created. Walks the index of all that is pending."""
        found = (await self.ask(_OLDEST_PENDING))[0][0]
        return None if found is None else from_ms(moment_ms(found))


def digest(content: bytes | None) -> bytes:
    """Its SHA-256; nothing where there is nothing."""
    return b"" if content is None else sha256(content).digest()


def claimed(row: Sequence[Any], route: str) -> Delivery:
    """The delivery of a row of `CLAIM_COLUMNS`, its window, its event, the body and whether that is intact."""
    *columns, content, intact = row
    event = rows.to_event(columns[rows.CLAIMED + 1 :], content or b"", bool(intact))
    return rows.to_delivery(columns[: rows.CLAIMED], route, event)


def prefixed(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{column.strip()}" for column in columns.split(","))
