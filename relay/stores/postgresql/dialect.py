"""What becomes of the SQL that all stores share (`stores/_sql`) where PostgreSQL has other words.

It is written for SQLite. This is all that differs:

- values stand at `$1`, not at `?` or `?1`
- which index serves is PostgreSQL's own choice
- rows that a transaction is going to change by what it read are locked: there are other writers
- `IS` compares with NULL and TRUE alone
- lists of ids come as JSON arrays
- LIKE tells capitals from small letters, and a column cannot be hidden from an index by a `+`
"""

from __future__ import annotations

import re
from functools import lru_cache

from relay.stores._sql.connection import LOCK

_WORDS = (
    (re.compile(r"\b(NOT INDEXED|INDEXED BY \w+)"), ""),
    (re.compile(re.escape(LOCK)), "FOR UPDATE"),
    (re.compile(r"\bIS (?=\?|')"), "IS NOT DISTINCT FROM "),
    (
        re.compile(r"SELECT value FROM json_each\((\?\d*)\)"),
        r"SELECT value::bigint FROM json_array_elements_text(\1::json) AS value",
    ),
    (re.compile(r"json_array\(([?\d, ]+)\)"), lambda found: f"json_build_array({_as_text(found[1])})::text"),
    (re.compile(r"\bLIKE\b"), "ILIKE"),
    (re.compile(r"\+(?=d\.)"), ""),
)
_PLACE = re.compile(r"\?(\d*)")
_PLACES_WITH_NULL = re.compile(r"(\?\d*) IS NULL")


def _as_text(places: str) -> str:
    return _PLACE.sub(lambda place: f"{place[0]}::text", places)


@lru_cache(maxsize=4096)
def translated(sql: str) -> str:
    """The statement as PostgreSQL takes it."""
    for word, ours in _WORDS:
        sql = word.sub(ours, sql)
    sql = _PLACES_WITH_NULL.sub(r"\1::text IS NULL", sql)
    number = 0

    def place(found: re.Match[str]) -> str:
        nonlocal number
        number += 1
        return f"${found[1] or number}"

    return _PLACE.sub(place, sql)
