"""What one transaction writes beside new events (`joining`): results and refused requests.

Each function is a few large calls, whatever the size of the batch, and notes in `deltas` how many deliveries it made
pending or held. None of them begins or commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from operator import itemgetter

from relay.delivery import State
from relay.stores._sql import results, rows
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row
from relay.stores.sqlite.bulk import Many, Places, insert

_insert_attempts = insert(
    "OR IGNORE INTO attempt",
    f"delivery_id, {rows.ATTEMPT_COLUMNS}",
    'n, "trigger", method, url, status, truncated, error_code, error_message',
)
_insert_rejections = insert("OR IGNORE INTO rejection", rows.REJECTION_COLUMNS)

_SET = (
    "UPDATE OR ROLLBACK delivery NOT INDEXED SET \"trigger\" = 'retry', retried = 1, taken = 0, open = 0,"
    " state = {}, due = coalesce({}, delivery.due), attempts = {}, tries = {}, code = {}, error_code = {},"
    " error_message = {}, duration_ms = {}, updated_at = {}"
)
_HERE = "delivery.id {} AND delivery.state = 'pending' AND delivery.attempts < {} AND delivery.route = {}"


def _update_alike(table: Places) -> str:
    """Of the ways to bring values to many rows the one for which SQLite fills no table of its own."""
    *alike, _, _, _, n, route = table[0]
    ids, durations, moments = ([row[place] for row in table] for place in (_ID, 7, 8))
    keys = ", ".join(ids)
    each = (_choice(ids, durations), _choice(ids, moments))
    return f"{_SET.format(*alike, *each)} WHERE {_HERE.format(f'IN ({keys})', n, route)}"


def _choice(ids: Sequence[str], values: Sequence[str]) -> str:
    """The value that belongs to a row's id. A tree: to compare with one id after the other would be a tenth of all."""
    if len(ids) == 1:
        return values[0]
    half = len(ids) // 2
    lower, higher = _choice(ids[:half], values[:half]), _choice(ids[half:], values[half:])
    return f"CASE WHEN delivery.id < {ids[half]} THEN {lower} ELSE {higher} END"


def _update_any(table: Places) -> str:
    rows = ", ".join([f"({', '.join(row)})" for row in table])
    *changes, number, n, route = [f"v.column{place}" for place in range(1, len(table[0]) + 1)]
    return f"{_SET.format(*changes)} FROM (VALUES {rows}) AS v WHERE {_HERE.format(f'= {number}', n, route)}"


_ID = 9
_update = Many(
    "state, due, attempts, tries, code, error_code, error_message, duration_ms, updated_at, id, n, route",
    "state, due, attempts, tries, code, error_code, error_message, n, route",
    _update_alike,
    _update_any,
)


class Interfered(Exception):
    """Somebody touched a delivery while its attempt was made: what the transaction wrote is to be undone, and the
    results are to be recorded one by one. To ask the file before, or to undo the results alone, would cost every
    batch."""


def record(connection: sqlite3.Connection, records: Sequence[Record], deltas: Deltas, singly: bool) -> None:
    """Attempts and what they change: all at once, or raise Interfered; or one by one, whatever happened."""
    updates = [record.update for record in records if record.update is not None]
    updates.sort(key=itemgetter(_ID))
    if singly or len(updates) < len(records):
        for record in records:
            results.record_one(connection, record, deltas)
        return
    # The row count tells whether nobody touched any of them.
    if _update(connection, updates) != len(updates):
        raise Interfered
    _insert_attempts(connection, [record.attempt for record in records if record.attempt is not None])
    for record in records:
        if record.result.state is not State.PENDING:
            shift(deltas, record.result.delivery.route, -1, 0)
            results.release(connection, record.result)
        elif record.result.latest:
            results.give_way(connection, record.result, deltas)


def reject(connection: sqlite3.Connection, rejections: Sequence[Row]) -> None:
    """Refused requests; of each source the last ones stay."""
    _insert_rejections(connection, rejections)
    results.trim(connection, rejections)
