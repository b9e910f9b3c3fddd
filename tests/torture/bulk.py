"""A store's file that is filled by the thousand, not one by one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from relay.stores.sqlite import opening

AT_ONCE = 20_000  # rows of a transaction


@contextmanager
def in_bulk(path: Path) -> Iterator[sqlite3.Connection]:
    """Make a store, and a connection to it that is quick and survives nothing; in the end all is as relay makes it."""
    opening.open_file(path).connection.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000"):
            connection.execute(f"PRAGMA {pragma}")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:  # sorted once in the end: far faster than kept in order meanwhile
            connection.execute(f"DROP INDEX {name}")
        yield connection
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("PRAGMA journal_mode = WAL")
    with path.open("rb") as file:  # what the disk still has to take would be in the way of what is measured
        os.fsync(file.fileno())


def insert(connection: sqlite3.Connection, table: str, columns: str, values: Sequence[tuple[Any, ...]]) -> None:
    """Rows of one table."""
    places = ", ".join("?" * (columns.count(",") + 1))
    connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", values)
