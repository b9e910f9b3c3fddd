"""The server itself, for `relay doctor`: can it be reached, is it fit for relay, and how far away is it?"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from relay.shared import Server
from relay.stores.postgresql import schema
from relay.stores.postgresql.connection import SCHEMA, Connection, connect, place

OLDEST = 13
"""The oldest major version that relay works with."""

_ROUNDS = 5
_SETTINGS = """
    SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'),
        current_setting('server_version'), extract(epoch FROM clock_timestamp())::float8
"""
_ALIVE = f"SELECT name, version FROM {SCHEMA}.process WHERE expires > clock_timestamp() ORDER BY id"  # noqa: S608


def risks(connection: Connection) -> list[str]:
    """What of the server's settings breaks relay's promises."""
    commit, fsync, pages, *_ = _settings(connection)
    said = []
    if commit == "off":
        said.append("synchronous_commit is off: what was acknowledged may be lost when the database's machine fails")
    if fsync == "off" or pages == "off":
        said.append("fsync or full_page_writes is off: the database does not survive a power cut")
    return said


def ask(url: str) -> Server:
    """What it says. Raises Unusable, psycopg.Error."""
    with connect(url, "doctor", first=True) as connection:
        held = schema.version(connection)
        said = risks(connection)
        *_, version, theirs = _settings(connection)
        ahead = theirs - time.time()
        alive = connection.execute(_ALIVE).fetchall() if held else []
        major = connection.info.server_version // 10000
        return Server(
            location=place(url),
            version=version.partition(" ")[0],  # 15.18 (Debian 15.18-0+deb12u1)
            too_old=str(OLDEST) if major < OLDEST else None,
            schema=held,
            newest_schema=schema.VERSION,
            risks=said,
            round_trip=_round_trip(connection),
            ahead=ahead,
            alive=[f"{name} ({release})" for name, release in alive],
        )


def _settings(connection: Connection) -> tuple[Any, ...]:
    found = connection.execute(_SETTINGS).fetchone()
    assert found is not None
    return found


def _round_trip(connection: Connection) -> float:
    took = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        connection.execute("SELECT 1").fetchone()
        took.append(time.perf_counter() - began)
    return median(took)
