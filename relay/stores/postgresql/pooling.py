"""Whether a pooler stands between relay and the database, and gives each connection a session of its own.

One in session mode does. In transaction mode a connection has some session, often another one than before, for as long
as a transaction lasts: what was set, is listened to, prepared or locked there is lost, or met by whoever comes next.
A pooler shows by the key for cancelling, which is its own and not the session's; sharing, by one session that serves
two connections while both are open, or by two that serve one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.store import Unusable

if TYPE_CHECKING:
    from relay.stores.postgresql.connection import Connection

_ROUNDS = 5  # where a pool is busy, a connection may come upon the same session as before


def refuse_shared(connection: Connection, another: Callable[[], Connection]) -> None:
    """Raises Unusable where a connection, or `another` one beside it, has no session to itself."""
    if _session(connection) == connection.info.backend_pid:
        return
    with another() as second:
        ones, others = set(), set()
        for _ in range(_ROUNDS):
            ones.add(_session(connection))
            others.add(_session(second))
    if len(ones) > 1 or len(others) > 1 or ones & others:
        raise Unusable(
            "store.url: it leads to a pooler that shares sessions between connections (transaction mode): relay needs"
            " sessions of its own; set pool_mode = session for it, or connect to PostgreSQL itself"
        )


def _session(connection: Connection) -> int:
    found = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    assert found is not None
    return int(found[0])
