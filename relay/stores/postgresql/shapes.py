"""Shapes (see `stores/_sql/shapes`) where other processes make them too."""

from __future__ import annotations

from collections.abc import Sequence

from relay.stores._sql import rows, shapes
from relay.stores._sql.connection import Connection
from relay.stores._sql.joining import Adding
from relay.stores._sql.tables import MOST_SHAPES
from relay.stores.postgresql.connection import Session

_KEY = "json_array(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
_FIND = f"SELECT id FROM shape WHERE key = {_KEY}"  # noqa: S608
_MAKE = f"""
    INSERT INTO shape (key, route, source, type, event, model, stage, action)
    SELECT {_KEY}, ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE (SELECT count(*) FROM shape) < ?8
    ON CONFLICT (key) DO NOTHING RETURNING id
"""  # noqa: S608 - our own words


class Shapes(shapes.Shapes):
    """Those that are known to be in the tables."""

    def prepare(self, session: Session, adds: Sequence[Adding]) -> None:
        """Make what these events need, each in a transaction of its own: nobody waits because of a shape."""
        for add in adds:
            for owed in add.owed:
                self.of(session, owed.delivery)
            if not add.event[rows.MATCHED]:
                self.unmatched(session, add.event)
        self.committed()

    def _look(self, connection: Connection, key: tuple[str | None, ...]) -> int:
        found = connection.execute(_FIND, key).fetchone()
        if found is None:
            found = connection.execute(_MAKE, (*key, MOST_SHAPES)).fetchone()
        if found is None:  # another process was quicker, or there are too many
            found = connection.execute(_FIND, key).fetchone()
        return shapes.OTHERS if found is None else int(found[0])
