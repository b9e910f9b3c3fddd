"""What is to become of what waits of a route, where several processes share the store: all come to the same verdict.

It is judged by what the transaction finds in the database: which routes each living process sends for, which of them it
keeps disabled, and how the route was left by who paused or resumed it last. With different configs the more careful one
prevails: what one living process has disabled is held, whatever others know, until the last one has it enabled. Nobody
remembers who held it, so nobody has to come back to release it.

Who changes any of this writes it down first and settles after that. Should it die between, its row goes, and whoever
sees that settles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import orjson

from relay.delivery import HeldReason
from relay.health import RouteState
from relay.stores._sql.rows import load
from relay.stores._sql.settling import Verdict, Wish
from relay.stores.postgresql.connection import Session
from relay.stores.postgresql.membership import CHANNEL

_DECLARE = """
    WITH said AS (
        UPDATE process SET routes = $2, disabled = $3 WHERE id = $1 AND (routes, disabled) <> ($2, $3) RETURNING id
    )
    SELECT pg_notify($4, 'look') FROM said
"""
_PROCESSES = "SELECT routes, disabled FROM process"
_STATES = "SELECT name, data FROM known WHERE kind = 'route' AND name = ANY($1)"


def declare(session: Session, process: int, routes: str, disabled: str) -> None:
    """What a process wants counts from here on."""
    session.bulk(_DECLARE, [process, routes, disabled, CHANNEL])


def judge(session: Session, routes: Collection[str], wish: Wish) -> Mapping[str, Verdict]:
    """What is to become of what waits of these routes. This process's own `wish` says which are paused of those that
    nobody has saved anything of."""
    known, disabled = set[str](), set[str]()
    for theirs, off in session.bulk(_PROCESSES, []):
        known.update(load(theirs))
        disabled.update(load(off))
    states = {name: orjson.loads(data).get("state") for name, data in session.bulk(_STATES, [list(routes)])}

    def verdict(route: str) -> Verdict:
        if route in disabled:
            return HeldReason.DISABLED
        if route not in known:
            return HeldReason.REMOVED
        if route in states:
            return HeldReason.PAUSED if states[route] == RouteState.PAUSED else None
        return HeldReason.PAUSED if wish.kept.get(route) is HeldReason.PAUSED else None

    return {route: verdict(route) for route in routes}
