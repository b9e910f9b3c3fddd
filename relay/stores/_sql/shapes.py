"""Shapes: what deliveries have in common that `/logs` filters on, each combination once, with a small number.

A delivery's route, its event's source, type, name, model, stage and action take few combinations. So a delivery carries
the number of its own, and one index over (shape, id) finds the newest of any: a filter, or several, is a set of
shapes. What senders make up past `MOST_SHAPES` combinations has the number 0 and is found by looking at the event.
"""

from __future__ import annotations

from relay.delivery import Delivery
from relay.stores._sql.connection import Connection
from relay.stores._sql.rows import Row
from relay.stores._sql.tables import MOST_SHAPES

OTHERS = 0
COLUMNS = ("route", "source", "type", "event", "model", "stage", "action")

_Key = tuple[str | None, ...]

_FIND = "SELECT id FROM shape WHERE key = json_array(?, ?, ?, ?, ?, ?, ?)"
_MAKE = (
    "INSERT INTO shape (key, route, source, type, event, model, stage, action)"
    " VALUES (json_array(?1, ?2, ?3, ?4, ?5, ?6, ?7), ?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id"
)
_UNUSED = """
    DELETE FROM shape WHERE NOT EXISTS (
        SELECT 1 FROM delivery d INDEXED BY delivery_shape WHERE d.shape = shape.id LIMIT 1
    ) AND NOT EXISTS (
        SELECT 1 FROM event e INDEXED BY event_unmatched WHERE e.matched = 0 AND e.shape = shape.id LIMIT 1
    )
"""


class Shapes:
    """The shapes that are known to be in the tables. For the writer's thread, and for the loop while that one rests."""

    def __init__(self) -> None:
        self._known: dict[_Key, int] = {}
        self._fresh: dict[_Key, int] = {}
        """Found or made in the transaction that is under way: known when it is committed."""

    def of(self, connection: Connection, delivery: Delivery) -> int:
        """The shape of a delivery, made where there was none."""
        event = delivery.event
        common = event.description.common
        return self.number(
            connection,
            (
                delivery.route,
                event.source,
                event.type,
                event.description.event,
                common.model,
                common.stage,
                common.action,
            ),
        )

    def unmatched(self, connection: Connection, event: Row) -> int:
        """The shape of an `EVENT_COLUMNS` row that no route wanted."""
        return self.number(connection, ("", *event[1:4], *event[9:12]))

    def moved(self, connection: Connection, shape: int, route: str) -> int:
        """The shape of a delivery of this one that goes to another route."""
        found = connection.execute("SELECT * FROM shape WHERE id = ?", (shape,)).fetchone()
        return OTHERS if found is None else self.number(connection, (route, *found[3:]))

    def number(self, connection: Connection, key: _Key) -> int:
        """The number of a combination, in the order of `COLUMNS`."""
        number = self._known.get(key) or self._fresh.get(key)
        if number is None:
            number = self._fresh[key] = self._look(connection, key)
        return number

    def _look(self, connection: Connection, key: _Key) -> int:
        found = connection.execute(_FIND, key).fetchone()
        if found is not None:
            return int(found[0])
        if connection.execute("SELECT count(*) FROM shape").fetchone()[0] >= MOST_SHAPES:
            return OTHERS
        return int(connection.execute(_MAKE, key).fetchone()[0])

    def committed(self) -> None:
        """What the transaction found is so."""
        if self._fresh:
            # Of the others no more than a few are remembered: there may be any number of them.
            self._known.update((key, number) for key, number in self._fresh.items() if number)
            self._fresh.clear()

    def undone(self) -> None:
        """The transaction, or a part of it, was rolled back."""
        self._fresh.clear()

    def drop_unused(self, connection: Connection) -> int:
        """Forget the shapes that no delivery has any more, so that others find room; how many."""
        number = connection.execute(_UNUSED).rowcount
        if number:
            self._known.clear()
            self._fresh.clear()
        return number
