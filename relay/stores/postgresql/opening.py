"""Opening a database: for the daemon, for verbs that only read, and to look at it as a whole."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import psycopg

from relay.clock import Clock
from relay.ids import Ids
from relay.shared import Server
from relay.store import Unavailable, Unusable
from relay.stores._sql.writer import Writer
from relay.stores.postgresql import asking, schema
from relay.stores.postgresql.committer import Committer
from relay.stores.postgresql.connection import Connection, Session, connect, explain, place, refusal
from relay.stores.postgresql.membership import Full, Membership
from relay.stores.postgresql.reader import Reader
from relay.stores.postgresql.store import PostgresStore
from relay.stores.postgresql.survey import Survey

WAITING = 60.0
"""Seconds for a database that cannot be reached yet."""
_AGAIN = 0.5  # seconds between two tries


async def open_url(
    rest: str,
    clock: Clock,
    on_wait: Callable[[str], None] | None = None,
    on_migrate: Callable[[int, int], None] | None = None,
) -> PostgresStore:
    """Open the store that `store.url` names, `postgresql:` and what follows it; tables are made where there are none.

    A database that cannot be reached is waited for, a minute at most, since it may be started at the same time;
    `on_wait` is told why, once. Raises Unusable for what an operator must mend, and Unavailable after that.
    """
    url = f"postgresql:{rest}"
    where = place(url)
    until, told = clock.monotonic() + WAITING, False
    while True:
        try:
            return await _opened(url, clock, on_migrate)
        except Unusable as error:
            raise Unusable(f"cannot open the store {where}: {error}") from None
        except Full:
            raise
        except (psycopg.Error, Unavailable) as error:
            refused = _refusal(where, error)
            if isinstance(refused, Unusable) or clock.monotonic() >= until:
                raise refused from error
            if on_wait is not None and not told:
                on_wait(str(refused))
                told = True
        await clock.sleep(_AGAIN)


async def _opened(url: str, clock: Clock, on_migrate: Callable[[int, int], None] | None) -> PostgresStore:
    """All connections, or none: each that was made is given back where another one cannot be had. Only then does it
    say that it lives. Raises Unusable, Unavailable, psycopg.Error."""
    async with AsyncExitStack() as opening:
        session, ids, notes = await asyncio.to_thread(_open, url, on_migrate)
        opening.callback(session.raw.close)
        readers = []
        for role in ("claims", "logs", "health"):
            readers.append(await Reader.open(url, ids, role))
            opening.push_async_callback(readers[-1].close)
        counts = await readers[0].counts()
        member = Membership(url, f"{socket.gethostname()}:{os.getpid()}", clock)
        opening.callback(member.let_go)
        await asyncio.to_thread(_join, session.raw, member, ids)
        made: list[Committer] = []

        def begin(*values: Any) -> Committer:
            made.append(Committer(url, session, member, *values))
            return made[0]

        write = Writer(begin, counts)
        opening.pop_all()
    claims, logs, health = readers
    return PostgresStore(url, clock, ids, member, made[0], write, (claims, logs, health), notes)


def _open(url: str, on_migrate: Callable[[int, int], None] | None) -> tuple[Session, Ids, list[str]]:
    connection = connect(url, "writer", first=True)
    try:
        schema.migrate(connection, on_migrate)
        ids = Ids(schema.store_number(connection))
        return Session(connection), ids, [f"PostgreSQL: {each}" for each in asking.risks(connection)]
    except BaseException:
        connection.close()
        raise


def _join(connection: Connection, member: Membership, ids: Ids) -> None:
    member.reach()
    member.join(connection)
    ids.take_slot(member.slot)
    ids.pass_by(schema.last_id(connection))


def _refusal(where: str, error: psycopg.Error | Unavailable) -> Exception:
    if isinstance(error, Unavailable):
        return Unavailable(f"cannot open the store {where}: {error}")
    return refusal(f"cannot open the store {where}: {explain(error)}", error)


def server(rest: str) -> Server:
    """What the server says of itself: makes and changes nothing. Raises Unusable, Unavailable."""
    url = f"postgresql:{rest}"
    where = place(url)
    try:
        return asking.ask(url)
    except Unusable as error:
        raise Unusable(f"cannot use the store {where}: {error}") from None
    except psycopg.Error as error:
        raise _refusal(where, error) from error


def survey(rest: str) -> Survey:
    """Look at a store as a whole; raises as `open_reader` does."""
    return Survey(f"postgresql:{rest}")


async def open_reader(rest: str) -> Reader:
    """Read a store without a daemon, or beside one: makes and changes nothing. Raises Unusable."""
    url = f"postgresql:{rest}"
    where = place(url)

    def look() -> Ids:
        with connect(url, "reader", first=True) as connection:
            if schema.version(connection) != schema.VERSION:
                raise Unusable("relay has made no tables in it, or an older relay has: start relay once")
            return Ids(schema.store_number(connection), schema.last_id(connection))

    try:
        return await Reader.open(url, await asyncio.to_thread(look), "reader")
    except Unusable as error:
        raise Unusable(f"cannot open the store {where}: {error}") from None
    except psycopg.Error as error:
        raise _refusal(where, error) from error
