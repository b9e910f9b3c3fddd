"""What lies in a store on SQLite, put into a database of PostgreSQL: both must answer alike."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from relay.stores._sql import tables
from relay.stores.postgresql import schema
from relay.stores.postgresql.connection import connect


def copy(path: Path, url: str) -> None:
    """Make the tables in an empty database, and put all rows of a file into them."""
    with closing(sqlite3.connect(path)) as source, connect(url, "copy") as target:
        schema.migrate(target)
        for table in sorted(tables.NAMES - {"meta"}):
            found = source.execute(f"SELECT * FROM {table}")
            columns = [f'"{column[0]}"' for column in found.description]
            places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
            sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
            with target.transaction(), target.cursor() as cursor:
                cursor.executemany(sql, found.fetchall())
        [(number,)] = source.execute("SELECT value FROM meta WHERE key = 'store'").fetchall()
        target.execute("UPDATE meta SET value = $1 WHERE key = 'store'", [str(number)])
        target.execute(
            "INSERT INTO tally SELECT route, 1, count(*) FILTER (WHERE state = 'pending'),"
            " count(*) FILTER (WHERE state = 'held') FROM delivery GROUP BY route"
        )
