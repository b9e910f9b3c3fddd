"""The queries: on a connection that cannot write, each short, none longer than five seconds.

The server is told how long a query may take, and ends it by itself. Should it not even do that, as one that is stopped
or out of reach, the connection is cut off a moment later. What is broken is made anew at the next query: nothing has to
be restarted because a server was.

No more than one query runs at a time on a connection; who waits for longer than a query may take is told so.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf
from time import monotonic
from typing import Any, ClassVar, Literal

import psycopg
from psycopg import pq

from relay.ids import Ids
from relay.store import Counts, StoreStatus, Unavailable, Unusable
from relay.stores._sql import reader
from relay.stores._sql.clauses import Walk
from relay.stores.postgresql.connection import connect_async, explain, place
from relay.stores.postgresql.dialect import translated
from relay.stores.postgresql.walking import Led

_GRACE = 1.0  # seconds after which a server that should have ended a query is not waited for any more
_SLACK = 0.25  # seconds by which the limit that the server knows may be too long or too short
_CLOSING = "relay is shutting down"

# A query is planned for the values it has. What the planner knows of tables may be old: reading one whole is never
# right, though it may seem so for a moment; nor is gathering all rows of a key where the first of them are wanted.
_SETTINGS = {
    "default_transaction_read_only": "on",
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
}
_SET = "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())

_TALLIES = """
    SELECT route, sum(pending)::bigint, sum(held)::bigint FROM tally GROUP BY route
    HAVING sum(pending) <> 0 OR sum(held) <> 0
"""
_ABOUT = "SELECT pg_database_size(current_database()), current_setting('server_version')"

_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Reader(reader.Reader):
    """One connection that cannot write."""

    walk: ClassVar[Walk] = Led()

    def __init__(self, url: str, ids: Ids, role: str) -> None:
        super().__init__(ids)
        self._lock = _Turns()
        self._url = url
        self._role = role
        self._connection: _Connection | None = None
        self._closed = False
        self._inside: _Connection | None = None
        """The connection whose snapshot is being read."""
        self._limit = inf
        """Seconds, as the server knows it."""

    @classmethod
    async def open(cls, url: str, ids: Ids, role: str) -> Reader:
        """Connect. Raises psycopg.Error, Unavailable, Unusable."""
        made = cls(url, ids, role)
        async with made._lock:
            await made._new(reader.QUERY_SECONDS)
        return made

    async def close(self) -> None:
        """End the connection, and what is being asked with it. Idempotent."""
        self._closed = True
        if self._connection is not None:
            if self._lock.locked():
                _cut(self._connection)  # whoever asks lets go of it
            else:
                await self._let_go()

    async def _ask(self, sql: str, values: Sequence[Any] = (), deadline: float | None = None) -> list[Any]:
        if deadline is None:
            deadline = monotonic() + reader.QUERY_SECONDS
        while True:
            connection, fresh = await self._ready(deadline - monotonic())
            try:
                found = await self._run(connection, translated(sql), values, deadline)
                if self._closed and self._inside is None:  # meanwhile, and nobody comes after this
                    await self._let_go()
                return found
            except psycopg.Error as error:
                if self._closed:
                    raise Unavailable(_CLOSING) from None
                # It may have been lost long before; with a new one the query is as good as new.
                if fresh or self._inside is not None or self._connection is not None or monotonic() > deadline:
                    raise Unavailable(explain(error)) from error

    async def _run(self, connection: _Connection, sql: str, values: Sequence[Any], deadline: float) -> list[Any]:
        """Raises Unavailable where it takes too long, psycopg.Error otherwise."""
        left = deadline - monotonic()
        if left <= 0:
            if self._closed and self._inside is None:
                await self._let_go()
            raise Unavailable(_late())
        cut = asyncio.get_running_loop().call_later(left + _GRACE, _cut, connection)
        try:
            if abs(left - self._limit) > min(_SLACK, left / 4):
                await connection.execute(f"SET statement_timeout = {max(1, round(left * 1000))}")
                self._limit = left
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(sql, values or None)
                return await cursor.fetchall() if cursor.description is not None else []
        except BaseException as error:
            # One that is given up is ended by the driver, or its connection is.
            idle = connection.info.transaction_status is pq.TransactionStatus.IDLE
            if self._inside is None and (self._closed or not idle):
                await self._let_go()
            if isinstance(error, psycopg.errors.QueryCanceled) and monotonic() >= deadline - 2 * _SLACK:
                raise Unavailable(_late()) from None
            if isinstance(error, psycopg.Error) and monotonic() >= deadline + _GRACE:
                raise Unavailable(f"the database cannot be used: it did not answer within {left:.0f} s") from None
            raise
        finally:
            cut.cancel()

    async def _ready(self, left: float) -> tuple[_Connection, bool]:
        """A connection that works, as far as anybody knows, and whether it is a new one."""
        if self._inside is not None:
            if self._inside.closed:
                raise Unavailable(_CLOSING if self._closed else "the database cannot be used: the connection was lost")
            return self._inside, False
        if self._connection is not None and not self._connection.closed:
            return self._connection, False
        return await self._connect(left), True

    async def _connect(self, left: float) -> _Connection:
        try:
            return await self._new(left)
        except psycopg.Error as error:
            raise Unavailable(explain(error)) from error
        except Unusable as error:
            raise Unavailable(str(error)) from error

    async def _new(self, left: float) -> _Connection:
        """Raises psycopg.Error, Unavailable, Unusable."""
        await self._let_go()
        if self._closed:
            raise Unavailable(_CLOSING)
        try:
            async with asyncio.timeout(left):
                self._connection = await connect_async(self._url, self._role)
                self._limit = inf
                await self._connection.execute(_SET)
        except TimeoutError:
            await self._let_go()
            raise Unavailable(f"the database cannot be used: no connection within {left:.0f} s") from None
        except BaseException:
            await self._let_go()
            raise
        if self._closed:  # meanwhile
            await self._let_go()
            raise Unavailable(_CLOSING)
        return self._connection

    async def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[None]:
        async with self._lock:
            await self._ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if self._connection is None:
                raise Unavailable(_CLOSING)
            self._inside, limit = self._connection, self._limit
            try:
                yield
            finally:
                await self._leave(limit)

    async def _leave(self, limit: float) -> None:
        connection, self._inside = self._inside, None
        assert connection is not None
        if connection.closed:
            await self._let_go()
            return
        try:
            # Whatever was set within is undone.
            await self._run(connection, "ROLLBACK", (), monotonic() + reader.QUERY_SECONDS)
            self._limit = limit
        except (psycopg.Error, Unavailable):
            await self._let_go()  # what was found has been found
        else:
            if self._closed:
                await self._let_go()

    # -- the whole ---------------------------------------------------------------------------------------------------

    async def counts(self) -> dict[str, Counts]:
        """Pending and held deliveries by route, as all relays on this database have counted them."""
        tallies = await self.ask(_TALLIES)
        return {route: Counts(max(0, pending), max(0, held)) for route, pending, held in tallies}

    async def status(self) -> StoreStatus:
        """See Store.status."""
        counts = (await self.counts()).values()
        oldest, first_due = await self.oldest_pending(), await self.first_due()
        [(size, version)] = await self.ask(_ABOUT)
        return StoreStatus(
            backend="postgresql",
            version=version.partition(" ")[0],  # 15.18 (Debian 15.18-0+deb12u1)
            pending=sum(each.pending for each in counts),
            held=sum(each.held for each in counts),
            oldest_pending=oldest,
            oldest_due=min(first_due.values(), default=None),
            size_bytes=size,
            space=None,  # of the server's disk nothing is known
            oldest_by_route=first_due,
            location=place(self._url),
        )


class _Turns(asyncio.Lock):
    """Nobody waits for longer than a query may take: what comes faster than it is answered must not pile up."""

    async def acquire(self) -> Literal[True]:
        if not self.locked():
            return await super().acquire()
        try:
            async with asyncio.timeout(reader.QUERY_SECONDS):
                return await super().acquire()
        except TimeoutError:
            raise Unavailable("the database is busy with other queries: try again later") from None


def _late() -> str:
    return f"the query took longer than {reader.QUERY_SECONDS:g} s: narrow it down"


def _cut(connection: _Connection) -> None:
    """Whoever waits for an answer is told at once that there will be none."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as same:
        same.shutdown(socket.SHUT_RDWR)
