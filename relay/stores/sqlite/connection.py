"""The connection that writes: how it is set up, whether its file is still there, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

# For whatever is no number and no text, Python's module looks for somebody who makes a value of it that SQLite takes:
# here, and if nobody is found in four more ways, for each value anew. That was one part in twenty of all that an event
# cost. Both stay what they are.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]  # one of its overloads fits
sqlite3.register_adapter(bytes, bytes.__bytes__)


# Kept compiled: each of those that write tables, and of the three that lay an ordinary batch out, is one for each size
# (`bulk`), and no relay meets all of them.
_STATEMENTS = 256
BUSY_MS = 5000
"""For which somebody else's lock is waited for."""


class Replaced(Exception):
    """The file at the database's path is no longer the one that is open."""


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection. Never creates a file."""
    uri = f"{path.as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0, cached_statements=_STATEMENTS
    )
    try:
        set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def set_up(connection: sqlite3.Connection) -> None:
    """The settings that durability and speed rest on."""
    for pragma in (
        f"busy_timeout = {BUSY_MS}",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "foreign_keys = OFF",  # see schema
        "secure_delete = ON",  # always: rows move about as they grow, and what is forgotten must leave no copy behind
        "temp_store = MEMORY",
        "mmap_size = 0",  # an I/O error through a mapping is a SIGBUS
        "journal_mode = WAL",
        "synchronous = FULL",  # NORMAL loses acknowledged commits at a power loss
        "wal_autocheckpoint = 1000",  # see `committer`
        "journal_size_limit = 67108864",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchone()


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at a path; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def explain(error: BaseException) -> str:
    """Why the store cannot write, for the operator."""
    match error:
        case Replaced():
            return "the database file was replaced or removed while relay was running: restart relay"
        case sqlite3.Error():
            return f"the database cannot be written: {error} ({getattr(error, 'sqlite_errorname', 'SQLite')})"
        case _:
            return f"the database cannot be written: {error}"
