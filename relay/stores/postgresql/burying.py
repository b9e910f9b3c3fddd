"""The row of a process that is dead is removed, and what it still holds is taken from it."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import psycopg

from relay.stores.postgresql.connection import Connection

_MARKS = 0x72656C7A  # "relz"
_UP_TO = 0x7FFFFFFF  # what a mark has room for
# Each transaction of a process holds the process's row, so that nobody takes it for dead in the midst of it; and a mark
# with its number: who holds a row cannot be found out of the row, where others lock it as well.
HOLD = f"""
    SELECT (pg_advisory_xact_lock_shared({_MARKS}, ($1 & {_UP_TO})::integer) IS NOT NULL)::integer FROM process
    WHERE id = $1 FOR KEY SHARE
"""  # noqa: S608 - a number of our own
# Never waits: one that was stopped in a transaction keeps its row locked until that is ended.
_BURY = """
    DELETE FROM process WHERE id = (
        SELECT id FROM process WHERE id = $1 AND expires = $2 FOR UPDATE SKIP LOCKED
    )
"""
# The server ends a transaction by itself only where it has heard the last word of what was sent. Who else holds the
# row, as somebody at a terminal may, is waited for.
_CUT_OFF = f"""
    SELECT pg_terminate_backend(l.pid) FROM process p JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 2
        AND l.classid = {_MARKS} AND l.objid = (p.id & {_UP_TO})::oid
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    WHERE p.id = $1 AND p.expires = $2
"""  # noqa: S608 - a number of our own


def bury(connection: Connection, number: int, expires: datetime) -> bool:
    """Remove the row of a process, unless its lease has been renewed; whether it is gone.

    Where the dead one was stopped in a transaction, and so holds its row, that is ended for the next time. Raises
    psycopg.Error.
    """
    if connection.execute(_BURY, [number, expires]).rowcount:
        return True
    with suppress(psycopg.ProgrammingError):  # it is another user's
        connection.execute(_CUT_OFF, [number, expires])
    return False
