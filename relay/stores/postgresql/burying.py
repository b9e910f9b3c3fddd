"""The row of a process that is dead is removed, and what it still holds is taken from it."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import psycopg

from relay.stores.postgresql.connection import Connection

# Never waits: one that was stopped in a transaction keeps its row locked until that is ended.
_BURY = """
    DELETE FROM process WHERE id = (
        SELECT id FROM process WHERE id = $1 AND expires = $2 FOR UPDATE SKIP LOCKED
    )
"""
# The server ends a transaction by itself only where it has heard the last word of what was sent.
_CUT_OFF = """
    SELECT pg_terminate_backend(a.pid) FROM process p JOIN pg_stat_activity a ON a.backend_xid = p.xmax
    WHERE p.id = $1 AND p.expires = $2
"""
# Where several have locked its row, also if all but one have ended since, the row does not say who: then it is whoever
# has locked any row of this table for longer than anybody does who lives.
_CUT_OFF_ALL = """
    SELECT pg_terminate_backend(a.pid) FROM process p
    JOIN pg_locks l ON l.locktype = 'relation' AND l.relation = 'process'::regclass AND l.mode = 'RowShareLock'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE p.id = $1 AND p.expires = $2 AND a.backend_xid IS NOT NULL
        AND a.xact_start < clock_timestamp() - make_interval(secs => $3)
"""


def bury(connection: Connection, number: int, expires: datetime, lease: float) -> bool:
    """Remove the row of a process, unless its lease (in seconds) has been renewed; whether it is gone.

    Where the dead one was stopped in a transaction, and so holds its row, that is ended for the next time. Raises
    psycopg.Error.
    """
    if connection.execute(_BURY, [number, expires]).rowcount:
        return True
    with suppress(psycopg.ProgrammingError):  # it is another user's
        if not connection.execute(_CUT_OFF, [number, expires]).rowcount:
            connection.execute(_CUT_OFF_ALL, [number, expires, lease])
    return False
