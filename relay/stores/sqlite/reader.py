"""The queries: on connections that cannot write, each short, none longer than five seconds.

A reader that stays in one transaction keeps the writer's checkpoints from moving on, and the log grows; so a query
that takes too long is cut off. Claims have a connection of their own, so that a person who searches a year of logs
holds up nobody's deliveries.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

import aiosqlite
import orjson

from relay.clock import parse_rfc3339, to_ms
from relay.delivery import Delivery
from relay.ids import DeliveryId, Ids
from relay.space import space
from relay.store import StoreStatus, Unavailable
from relay.stores._sql import reader, rows
from relay.stores.sqlite import copying

_STEPS = 20_000  # of SQLite's machine between looks at the clock: about a millisecond

# The sum runs over what is claimed: bodies past the limit are not even read. The first one always is. A window that
# takes no more brings the bodies of all its events.
CLAIM = f"""
    WITH due AS MATERIALIZED (
        SELECT id, due, event_id, CASE open WHEN 0 THEN bytes ELSE 0 END AS bytes
        FROM delivery INDEXED BY delivery_pending
        WHERE state = 'pending' AND blocked = 0 AND route = ?1 AND retried = ?6 AND due <= ?2
            AND id NOT IN (SELECT value FROM json_each(?3))
        ORDER BY due, id LIMIT ?4
    ), fitting AS MATERIALIZED (
        SELECT id, size, sum(size) OVER (ORDER BY due, id) - size AS before
        FROM (
            SELECT due.id, due.due, max(size, bytes) AS size FROM due JOIN event ON event.id = due.event_id
        )
    )
    SELECT {rows.CLAIM_COLUMNS}, d."window", {reader.EVENT_E}, b.content, sha256(b.content) = e.sha256
    FROM fitting f JOIN delivery d ON d.id = f.id JOIN event e ON e.id = d.event_id
        LEFT JOIN body b ON b.event_id = e.id
    WHERE f.before = 0 OR f.before + f.size <= ?5
    ORDER BY d.due, d.id
"""  # noqa: S608 - our own columns


class Reader(reader.Reader):
    """One connection that cannot write."""

    def __init__(self, connection: aiosqlite.Connection, path: Path, ids: Ids) -> None:
        super().__init__(ids)
        self._connection = connection
        self._path = path
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
            await connection.create_function("sha256", 1, reader.digest, deterministic=True)
            # SQLite opens the log with the first query: now, and not when there may be no file descriptor left for it.
            await connection.execute_fetchall("SELECT 1 FROM sqlite_schema LIMIT 1")
            made = cls(connection, path, ids)
            await connection.set_progress_handler(made._late, _STEPS)
        except BaseException:
            await connection.close()
            raise
        return made

    async def close(self) -> None:
        """End the connection. Idempotent."""
        await self._connection.close()

    def _late(self) -> int:
        return monotonic() > self._deadline

    async def _ask(self, sql: str, values: Sequence[Any] = (), deadline: float | None = None) -> list[Any]:
        self._deadline = deadline if deadline is not None else monotonic() + reader.QUERY_SECONDS
        try:
            return list(await self._connection.execute_fetchall(sql, values))
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise Unavailable(f"the query took longer than {reader.QUERY_SECONDS:g} s: narrow it down") from None
            raise Unavailable(f"the database cannot be read: {error}") from error
        except ValueError:  # the connection is closed
            raise Unavailable("relay is shutting down") from None

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[None]:
        """Several queries that see the same state."""
        async with self._lock:
            await self._ask("BEGIN")
            try:
                yield
            finally:
                with suppress(sqlite3.ProgrammingError, ValueError):  # closed meanwhile: relay is shutting down
                    await self._connection.rollback()

    async def claim(
        self,
        route: str,
        retried: bool | None,
        now: datetime,
        limit: int,
        exclude: Collection[DeliveryId],
        most_bytes: int,
    ) -> list[Delivery]:
        """See Store.claim."""
        passed = orjson.dumps(list(exclude)).decode()
        found: list[Delivery] = []
        for kind in (False, True) if retried is None else (retried,):
            values = (route, to_ms(now), passed, limit, most_bytes, int(kind))
            for row in await self.ask(CLAIM, values):
                found.append(await self.whole(reader.claimed(row, route), row[rows.CLAIMED]))
        if retried is None:
            found = sorted(found, key=lambda delivery: (delivery.due, delivery.id))[:limit]
        return found

    async def restored(self) -> datetime | None:
        """See Store.restored."""
        found = await self.ask("SELECT value FROM meta WHERE key = ?", (copying.MARK,))
        return parse_rfc3339(found[0][0]) if found else None

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
        space=space(path),
        oldest_by_route=first_due,
        location=str(path),
    )
