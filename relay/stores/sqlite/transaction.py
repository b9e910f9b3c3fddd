"""What one transaction writes beside new events (`joining`): results and refused requests.

Each function is a few large calls, whatever the size of the batch, and notes in `deltas` how many deliveries it made
pending or held. None of them begins or commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from relay.delivery import State
from relay.stores._sql import results, rows
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row
from relay.stores.sqlite.bulk import Insert, sizes, some, values

_insert_attempts = Insert("OR IGNORE INTO attempt", f"delivery_id, {rows.ATTEMPT_COLUMNS}")
_insert_rejections = Insert("OR IGNORE INTO rejection", rows.REJECTION_COLUMNS)

# The common case, many with one statement: nobody touched the delivery while its attempt was made. The row count tells.
_RECORDS = sizes(
    lambda size: (
        "UPDATE delivery NOT INDEXED SET state = v.column1, due = coalesce(v.column2, delivery.due),"  # noqa: S608
        " attempts = v.column3, tries = v.column4, \"trigger\" = 'retry', retried = 1, taken = 0, open = 0,"
        " code = v.column5, error_code = v.column6, error_message = v.column7, duration_ms = v.column8,"
        f" updated_at = v.column9 FROM ({values(size, 12)}) AS v"
        " WHERE delivery.id = v.column10 AND delivery.state = 'pending' AND delivery.attempts < v.column11"
        " AND delivery.route = v.column12"
    )
)
_SPARE = (0,) * 12  # no delivery has this id


def record(connection: sqlite3.Connection, records: Sequence[Record], deltas: Deltas) -> None:
    """Attempts and what they change, all at once where nothing interfered, else one by one."""
    updates = [record.update for record in records if record.update is not None]
    if len(updates) == len(records):
        connection.execute("SAVEPOINT records")
        try:
            matched = sum([connection.execute(_RECORDS[size], row).rowcount for size, row in some(updates, _SPARE)])
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO records")
            raise
        if matched == len(updates):
            connection.execute("RELEASE records")
            _insert_attempts(connection, [record.attempt for record in records if record.attempt is not None])
            for record in records:
                if record.result.state is not State.PENDING:
                    shift(deltas, record.result.delivery.route, -1, 0)
                    results.release(connection, record.result)
                elif record.result.latest:
                    results.give_way(connection, record.result, deltas)
            return
        connection.execute("ROLLBACK TO records")
        connection.execute("RELEASE records")
    for record in records:
        results.record_one(connection, record, deltas)


def reject(connection: sqlite3.Connection, rejections: Sequence[Row]) -> None:
    """Refused requests; of each source the last ones stay."""
    _insert_rejections(connection, rejections)
    results.trim(connection, rejections)
