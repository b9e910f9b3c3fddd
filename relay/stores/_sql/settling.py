"""What waits is brought in line with the routes, in steps: each is a transaction that judges anew what is to become of
a route, by what is true then.

Who settles does not say what is to be done: it asks. A plan is what is out of line at one moment, and a route's part of
it is over when the verdict is another one by then, for whoever changed it settles after that; or when as many have
changed as there were when it began. So it ends, whatever others do meanwhile, and what was left half way, by whomever,
is what the next plan finds. Where several processes share the store they come to the same verdict, and none undoes what
another one does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from relay.clock import Clock, to_ms
from relay.delivery import HeldReason
from relay.immutable import immutable
from relay.stores._sql.connection import LOCK, Connection
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.tables import routes_with

AT_ONCE = 500  # deliveries held or released in one transaction: milliseconds, also when each lies on a page of its own

FOR_ITS_ROUTE = (HeldReason.REMOVED, HeldReason.DISABLED, HeldReason.PAUSED)
"""Why a delivery is held that is released with its route."""

Verdict: TypeAlias = HeldReason | None
"""Why what waits of a route is to be held; None where it is to be sent."""

_PENDING = f"WITH RECURSIVE {routes_with('pending')} SELECT route FROM found WHERE route IS NOT NULL"  # noqa: S608
_REASONS = ", ".join(f"('{reason}')" for reason in FOR_ITS_ROUTE)
# Not EXISTS: PostgreSQL might read all that is held for it.
_HELD = f"""
    WITH RECURSIVE {routes_with("held")}, reason(why) AS (VALUES {_REASONS})
    SELECT route, why FROM found CROSS JOIN reason WHERE route IS NOT NULL AND (
        SELECT d.id FROM delivery d WHERE d.state = 'held' AND d.route = found.route AND d.held_reason = why LIMIT 1
    ) IS NOT NULL
"""  # noqa: S608 - our own words
_NEWEST = "SELECT max(id) FROM delivery"


def _some(which: str, order: str) -> str:
    """The ids of some of those, in an order that an index has: PostgreSQL might look for any of them in all that there
    is. Their rows are locked in the order of the ids, as whoever records results locks them: two that lock the same
    rows in different orders may wait for each other."""
    return f"""
        WITH chosen AS MATERIALIZED (SELECT id FROM delivery WHERE {which} ORDER BY {order} LIMIT ?5)
        SELECT id FROM delivery WHERE id IN (SELECT id FROM chosen) ORDER BY id {LOCK}
    """  # noqa: S608


_PENDING_SOME = _some("state = 'pending' AND route = ?3 AND id <= ?4", "blocked, retried, due, id")
_HELD_SOME = _some("state = 'held' AND route = ?2 AND held_reason = ?3 AND id <= ?4", "id")
# What has changed while the statement waited for its row is left as it is: the state is asked of the row too, which is
# looked at again then; in words for which no index is looked through. What a clock that was ahead has set later than
# now stays marked so: it is yet to be moved (`setback`).
_HOLD = f"""
    UPDATE delivery SET state = 'held', held_reason = ?1, held_at = ?2,
        updated_at = CASE WHEN updated_at > ?2 THEN updated_at ELSE ?2 END WHERE id IN ({_PENDING_SOME})
        AND CASE state WHEN 'pending' THEN TRUE ELSE FALSE END
"""  # noqa: S608
_RENAME = f"""
    UPDATE delivery SET held_reason = ?1 WHERE id IN ({_HELD_SOME})
        AND CASE state WHEN 'held' THEN held_reason = ?3 ELSE FALSE END
"""  # noqa: S608
# `max_age` stood still while they were held. What was paused and is due goes on as `resume`.
_RELEASE = f"""
    UPDATE delivery SET state = 'pending', first_due = CASE WHEN ?1 <= held_at OR ?1 <= first_due
        THEN first_due WHEN held_at > first_due THEN first_due + (?1 - held_at) ELSE ?1 END,
        "trigger" = CASE WHEN held_reason = 'paused' AND due <= ?1 THEN 'resume' ELSE "trigger" END,
        held_reason = NULL, held_at = NULL,
        updated_at = CASE WHEN updated_at > ?1 THEN updated_at ELSE ?1 END WHERE id IN ({_HELD_SOME})
        AND CASE state WHEN 'held' THEN held_reason = ?3 ELSE FALSE END
"""  # noqa: S608


@immutable
class Wish:
    """What one process makes of its config and of the pauses that it knows of."""

    active: frozenset[str]
    kept: Mapping[str, HeldReason]

    def verdict(self, route: str) -> Verdict:
        """What is to become of a route where nobody else has a say."""
        return None if route in self.active else self.kept.get(route, HeldReason.REMOVED)


Judge = Callable[[Connection, Collection[str]], Mapping[str, Verdict]]
"""Says of each of these routes what is to become of what waits, as a transaction sees it."""


@immutable
class Part:
    """What is out of line of one route."""

    route: str
    verdict: Verdict
    upto: int
    """The newest delivery that there was. What came later was born as its relay knows its route to be."""


@immutable
class Plan:
    """Finds what is out of line; `declare` is done first."""

    declare: Callable[[Connection], None]
    judge: Judge

    def __call__(self, connection: Connection, deltas: Deltas) -> list[Part]:
        self.declare(connection)
        pending = {route for (route,) in connection.execute(_PENDING)}
        held: dict[str, set[str]] = {}
        for route, reason in connection.execute(_HELD):
            held.setdefault(route, set()).add(reason)
        verdicts = self.judge(connection, pending | held.keys())
        upto = connection.execute(_NEWEST).fetchone()[0] or 0
        parts = [
            Part(route, verdict, upto)
            for route, verdict in sorted(verdicts.items())
            if held.get(route, set()) - {verdict} or (verdict is not None and route in pending)
        ]
        # What may not be sent is held before anything is let go.
        return sorted(parts, key=lambda part: part.verdict is None)


@immutable
class Step:
    """Some of what is out of line of a route is put right, the oldest first where it is released. Returns how many were
    held, released, and held for another reason; None where the verdict has changed."""

    part: Part
    judge: Judge
    clock: Clock

    def __call__(self, connection: Connection, deltas: Deltas) -> tuple[int, int, int] | None:
        route, verdict, upto = self.part.route, self.part.verdict, self.part.upto
        if self.judge(connection, [route])[route] != verdict:
            return None
        now, room = to_ms(self.clock.now()), AT_ONCE
        if verdict is not None:
            held = connection.execute(_HOLD, (verdict, now, route, upto, room)).rowcount
            shift(deltas, route, -held, held)
            room -= held
        others = 0
        for reason in FOR_ITS_ROUTE:
            if reason != verdict and room > 0:
                if verdict is None:
                    number = connection.execute(_RELEASE, (now, route, reason, upto, room)).rowcount
                    shift(deltas, route, number, -number)
                else:
                    number = connection.execute(_RENAME, (verdict, route, reason, upto, room)).rowcount
                others += number
                room -= number
        return (0, others, 0) if verdict is None else (held, 0, others)
