"""What people and configs do to the queue: each runs in the writer's next transaction, and fails alone."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from relay.clock import Clock, to_ms
from relay.delivery import State, Trigger
from relay.ids import DELIVERY, DeliveryId, Ids
from relay.store import WrongState
from relay.stores.sqlite.transaction import Deltas, shift

AT_ONCE = 500  # deliveries held or released in one transaction: milliseconds, also when each lies on a page of its own

# One look into a partial index for each route, however many deliveries it has.
_ROUTES = """
    WITH RECURSIVE found(route) AS (
        SELECT min(route) FROM delivery WHERE state = '{state}'
        UNION ALL
        SELECT (SELECT min(route) FROM delivery WHERE state = '{state}' AND route > found.route)
        FROM found WHERE found.route IS NOT NULL
    )
    SELECT route FROM found WHERE route IS NOT NULL
"""

_WHAT_INSTEAD = {
    State.HELD: "it is held: resume or enable its route, or bring the route back into the config",
    State.MERGED: "it was merged into another delivery: retry that one",
    State.DELIVERED: "it was delivered: there is nothing to retry",
}


def pending_routes(connection: sqlite3.Connection, deltas: Deltas) -> list[str]:
    """The routes that have pending deliveries."""
    return [row[0] for row in connection.execute(_ROUTES.format(state="pending"))]


def held_routes(connection: sqlite3.Connection, deltas: Deltas) -> list[str]:
    """The routes that have held deliveries."""
    return [row[0] for row in connection.execute(_ROUTES.format(state="held"))]


@dataclass(frozen=True, slots=True)
class Hold:
    """Some pending deliveries of a route become held. Returns how many; 0 when none is left."""

    route: str
    reason: str
    clock: Clock

    def __call__(self, connection: sqlite3.Connection, deltas: Deltas) -> int:
        now = to_ms(self.clock.now())
        number = connection.execute(
            "UPDATE delivery SET state = 'held', held_reason = ?, held_at = ?, updated_at = ? WHERE id IN"
            " (SELECT id FROM delivery WHERE state = 'pending' AND route = ? LIMIT ?)",
            (self.reason, now, now, self.route, AT_ONCE),
        ).rowcount
        shift(deltas, self.route, -number, number)
        return number


@dataclass(frozen=True, slots=True)
class Rename:
    """What was held for one of the config's two reasons is held for the other one now."""

    route: str
    reason: str

    def __call__(self, connection: sqlite3.Connection, deltas: Deltas) -> int:
        return connection.execute(
            "UPDATE delivery SET held_reason = ?1 WHERE id IN (SELECT id FROM delivery WHERE state = 'held'"
            " AND route = ?2 AND held_reason IN ('removed', 'disabled') AND held_reason != ?1 LIMIT ?3)",
            (self.reason, self.route, AT_ONCE),
        ).rowcount


@dataclass(frozen=True, slots=True)
class Release:
    """Some deliveries that were held for the config's sake become pending, due as before.

    `max_age` stood still while they were held.
    """

    route: str
    clock: Clock

    def __call__(self, connection: sqlite3.Connection, deltas: Deltas) -> int:
        number = connection.execute(
            "UPDATE delivery SET state = 'pending', first_due = first_due + max(0, ?1 - max(held_at, first_due)),"
            " held_reason = NULL, held_at = NULL, updated_at = ?1 WHERE id IN"
            " (SELECT id FROM delivery WHERE state = 'held' AND route = ?2"
            " AND held_reason IN ('removed', 'disabled') LIMIT ?3)",
            (to_ms(self.clock.now()), self.route, AT_ONCE),
        ).rowcount
        shift(deltas, self.route, number, -number)
        return number


def retry(connection: sqlite3.Connection, deltas: Deltas, ids: Ids, delivery: DeliveryId, now: int) -> str:
    """See Store.retry."""
    found = connection.execute("SELECT state, route FROM delivery WHERE id = ?", (delivery,)).fetchone()
    if found is None:
        raise KeyError(delivery)
    state, route = State(found[0]), str(found[1])
    trigger = Trigger.MANUAL.value
    match state:
        case State.FAILED | State.CANCELLED:
            connection.execute(
                "UPDATE delivery SET state = 'pending', due = ?1, first_due = ?1, tries = 0, \"trigger\" = ?2,"
                " updated_at = ?1 WHERE id = ?3",
                (now, trigger, delivery),
            )
            shift(deltas, route, 1, 0)
        case State.PENDING:  # one that is overdue keeps its place
            connection.execute(
                'UPDATE delivery SET due = min(due, ?1), "trigger" = ?2, updated_at = ?1 WHERE id = ?3',
                (now, trigger, delivery),
            )
        case _:
            raise WrongState(state, f"{ids.text(DELIVERY, delivery)} cannot be retried: {_WHAT_INSTEAD[state]}")
    return route
