"""What people do to the queue: each runs in the writer's next transaction, and fails alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import orjson

from relay.delivery import State, Trigger
from relay.ids import DELIVERY, EVENT, DeliveryId, EventId, Ids
from relay.immutable import immutable
from relay.lane import Order, Supersedes, supersedes
from relay.lane import lane as lane_of
from relay.store import Retried, WrongState
from relay.stores._sql import lanes, rows, tables
from relay.stores._sql.connection import LOCK, Connection
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.settling import AT_ONCE
from relay.stores._sql.shapes import Shapes

_REMOVED = (
    f"SELECT d.id, d.lane, d.shape, {rows.event_columns('e')} FROM delivery d JOIN event e ON e.id = d.event_id"  # noqa: S608
    " WHERE d.state = 'held' AND d.route = ? AND d.held_reason = 'removed' ORDER BY d.id LIMIT ?"
)
_MERGED_INTO = (
    "SELECT id, shape FROM delivery WHERE merged_into IN (SELECT value FROM json_each(?1)) AND route <> ?2 LIMIT ?3"
)
_STATE = f"SELECT state FROM delivery WHERE id = ? {LOCK}"  # noqa: S608
_TO_CANCEL = f"SELECT state, route, lane FROM delivery WHERE id = ? {LOCK}"  # noqa: S608
_WINDOW = (
    "SELECT route, state, CASE WHEN open = 1 OR held_reason = 'hand' THEN 1 ELSE 0 END"  # noqa: S608
    f" FROM delivery WHERE id = ? {LOCK}"
)
_STILL_TO_BE_SENT = (
    "SELECT coalesce(c.id, d.id), coalesce(c.state, d.state) FROM delivery d"
    " LEFT JOIN delivery c ON c.id = d.merged_into WHERE d.event_id = ?"
    " AND coalesce(c.state, d.state) IN ('pending', 'held') LIMIT 1"
)

_WHAT_INSTEAD = {
    State.HELD: "it is held: resume or enable its route, bring the route back into the config, or flush the window that"
    " was held by hand",
    State.MERGED: "it was merged into another delivery: retry that one",
    State.DELIVERED: "it was delivered: there is nothing to retry",
}


@immutable
class Move:
    """Some deliveries that are held for a removed route become another route's, in its lanes, once all that was merged
    into them has. Windows among them take no more. Returns how many, without the merged ones; None when all is done."""

    old: str
    new: str
    order: Order
    now: int
    shapes: Shapes
    begun: lanes.Begun

    def __call__(self, connection: Connection, deltas: Deltas) -> int | None:
        found = connection.execute(_REMOVED, (self.old, AT_ONCE)).fetchall()
        if not found:
            return None
        ids = orjson.dumps([number for number, *_ in found]).decode()
        merged = connection.execute(_MERGED_INTO, (ids, self.new, AT_ONCE)).fetchall()
        self._rename(connection, merged)
        if len(merged) == AT_ONCE:  # there may be more: one window may have thousands
            return 0
        self._rename(connection, [(number, shape) for number, _, shape, *_ in found])
        entering = [(number, rows.lane_of(self.order, event), True) for number, _, _, *event in found]
        lanes.enter(connection, self.new, entering)
        for entered in {lane for _, lane, _ in entering if lane is not None}:
            lanes.let_oldest(connection, self.new, entered, self.begun, held=True)
        for lane in {lane for _, lane, *_ in found if lane is not None}:
            lanes.release(connection, self.old, lane)
        shift(deltas, self.old, 0, -len(found))
        shift(deltas, self.new, 0, len(found))
        if self.order is Order.LATEST:
            for lane in {lane for _, lane, _ in entering}:
                lanes.collapse(connection, self.new, lane, self.now, deltas)
        return len(found)

    def _rename(self, connection: Connection, some: Sequence[tuple[int, int]]) -> None:
        """These deliveries, each with its shape, are the new route's."""
        shapes = {shape: self.shapes.moved(connection, shape, self.new) for _, shape in some}
        connection.executemany(
            "UPDATE delivery SET route = ?, shape = ?, open = 0 WHERE id = ?",
            [(self.new, shapes[shape], number) for number, shape in some],
        )


@immutable
class Retry:
    """See Store.retry."""

    ids: Ids
    orders: Mapping[str, Order]
    """What routes keep now, whatever it was when a delivery ended."""
    now: int
    begun: lanes.Begun
    after: int | None = None

    def one(self, connection: Connection, deltas: Deltas, delivery: DeliveryId, dry: bool = False) -> str:
        """Returns the route."""
        found = connection.execute(
            f'SELECT d.state, d.route, d.lane, d."window", d.retried, d.attempts, {rows.event_columns("e")}'  # noqa: S608
            f" FROM delivery d JOIN event e ON e.id = d.event_id WHERE d.id = ? {LOCK}",
            (delivery,),
        ).fetchone()
        if found is None:
            raise KeyError(delivery)
        state, route, lane, window = State(found[0]), str(found[1]), found[2], found[3]
        event, order = rows.to_event(found[6:], b"", False), self.orders.get(route)
        trigger, now = Trigger.MANUAL.value, self.now
        # Recording an attempt marks its delivery as retried, asking for another by hand takes the mark away.
        if self.after is not None and (state is not State.PENDING or not found[4] or found[5] != self.after):
            raise WrongState(state, f"{self.ids.text(DELIVERY, delivery)} was seen to since attempt {self.after}")
        match state:
            case State.FAILED | State.CANCELLED:
                if order is not None:
                    lane = lane_of(order, event)
                # A window is about all its events.
                single = order is not None and window is None and supersedes(order, event) is not Supersedes.NOTHING
                what = None
                if connection.execute("SELECT 1 FROM body WHERE event_id = ?", (event.id,)).fetchone() is None:
                    what = "the body of its event is no longer kept: have it sent again by its sender"
                elif single and lanes.newer(connection, route, lane, event.id, event.description.common):
                    what = "something newer of the same entry has been sent or waits (order: latest)"
                elif single and event.id < _pruned_up_to(connection):
                    what = "what came after it may have been pruned, and nothing older may follow it (order: latest)"
                if what is not None:
                    raise WrongState(state, f"{self.ids.text(DELIVERY, delivery)} cannot be retried: {what}")
                if dry:
                    return route
                blocked = lane is not None and lanes.has_unfinished(connection, route, lane)
                connection.execute(
                    "UPDATE delivery SET state = 'pending', due = ?1, first_due = ?1, tries = 0, \"trigger\" = ?2,"
                    " retried = 0, lane = ?3, blocked = ?4, updated_at = ?1 WHERE id = ?5",
                    (now, trigger, lane, int(blocked), delivery),
                )
                shift(deltas, route, 1, 0)
                if blocked:
                    lanes.let_oldest(connection, route, str(lane), self.begun, held=True)
                if single:  # of several that were retried only the newest goes out
                    lanes.collapse(connection, route, lane, now, deltas)
            case State.PENDING:  # one that is overdue keeps its place; a window is not moved again
                connection.execute(
                    'UPDATE delivery SET due = CASE WHEN due < ?1 THEN due ELSE ?1 END, "trigger" = ?2, retried = 0,'
                    " open = 0, updated_at = ?1 WHERE id = ?3",
                    (now, trigger, delivery),
                )
            case _:
                message = f"{self.ids.text(DELIVERY, delivery)} cannot be retried: {_WHAT_INSTEAD[state]}"
                raise WrongState(state, message)
        return route

    def many(self, connection: Connection, deltas: Deltas, deliveries: Sequence[DeliveryId], dry: bool) -> Retried:
        """Those of them that have failed and may be sent again."""
        routes: Counter[str] = Counter()
        passed_over = 0
        for delivery in deliveries:
            state = connection.execute(_STATE, (delivery,)).fetchone()
            if state is None or state[0] != State.FAILED:
                continue  # something else happened to it meanwhile
            try:
                routes[self.one(connection, deltas, delivery, dry)] += 1
            except WrongState:
                passed_over += 1
        return Retried(routes, passed_over)


def _pruned_up_to(connection: Connection) -> int:
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (tables.PRUNED_UP_TO,)).fetchone()
    return 0 if found is None else int(found[0])


def cancel(connection: Connection, deltas: Deltas, ids: Ids, delivery: DeliveryId, now: int) -> str:
    """See Store.cancel."""
    found = connection.execute(_TO_CANCEL, (delivery,)).fetchone()
    if found is None:
        raise KeyError(delivery)
    state, route, lane = State(found[0]), str(found[1]), found[2]
    if state not in (State.PENDING, State.HELD):
        instead = "cancel the one that it was merged into" if state is State.MERGED else f"it is {state.value} already"
        raise WrongState(state, f"{ids.text(DELIVERY, delivery)} cannot be cancelled: {instead}")
    connection.execute(
        "UPDATE delivery SET state = 'cancelled', held_reason = NULL, held_at = NULL, open = 0, taken = 0,"
        " updated_at = ? WHERE id = ?",
        (now, delivery),
    )
    shift(deltas, route, -int(state is State.PENDING), -int(state is State.HELD))
    if lane is not None:
        lanes.release(connection, route, lane)
    return route


def take(connection: Connection, deltas: Deltas, delivery: DeliveryId, now: int) -> bool:
    """See Store.take: whether it may be sent."""
    return (
        connection.execute(
            "UPDATE delivery SET taken = CASE WHEN lane IS NULL THEN 0 ELSE 1 END, open = 0"
            " WHERE id = ? AND state = 'pending' AND blocked = 0 AND due <= ?",
            (delivery, now),
        ).rowcount
        > 0
    )


def mark_taken(connection: Connection, deltas: Deltas, deliveries: Sequence[DeliveryId]) -> None:
    """These are being sent: nothing may take them up until their attempts are recorded."""
    connection.executemany(
        "UPDATE delivery SET taken = 1 WHERE id = ? AND state = 'pending'", [(number,) for number in deliveries]
    )


def flush(connection: Connection, deltas: Deltas, ids: Ids, delivery: DeliveryId, now: int, kept: str | None) -> str:
    """See Store.flush. What is to be sent now takes no more events: they would move it again."""
    route, held = _window(connection, ids, delivery)
    connection.execute(
        "UPDATE delivery SET open = 0, due = ?1, first_due = ?1, state = ?2, held_reason = ?3, held_at = ?4,"
        " \"trigger\" = 'manual', updated_at = ?1 WHERE id = ?5",
        (now, "pending" if kept is None else "held", kept, None if kept is None else now, delivery),
    )
    shift(deltas, route, int(kept is None) - int(not held), int(kept is not None) - int(held))
    return route


def hold(connection: Connection, deltas: Deltas, ids: Ids, delivery: DeliveryId, now: int) -> str:
    """See Store.hold."""
    route, held = _window(connection, ids, delivery)
    connection.execute(
        "UPDATE delivery SET state = 'held', held_reason = 'hand', held_at = ?1, updated_at = ?1 WHERE id = ?2",
        (now, delivery),
    )
    shift(deltas, route, -int(not held), int(not held))
    return route


def _window(connection: Connection, ids: Ids, delivery: DeliveryId) -> tuple[str, bool]:
    """The route of an open window, or of a full one that is held by hand, and whether it is held."""
    found = connection.execute(_WINDOW, (delivery,)).fetchone()
    if found is None:
        raise KeyError(delivery)
    if not found[2]:
        what = "it collects no events (any more): 'relay retry' or 'relay cancel' may be what you want"
        raise WrongState(State(found[1]), f"{ids.text(DELIVERY, delivery)} is no open window: {what}")
    return str(found[0]), found[1] == State.HELD


def forget(connection: Connection, deltas: Deltas, ids: Ids, event: EventId) -> None:
    """See Store.forget."""
    if connection.execute("SELECT 1 FROM event WHERE id = ?", (event,)).fetchone() is None:
        raise KeyError(event)
    waiting = connection.execute(_STILL_TO_BE_SENT, (event,)).fetchone()
    if waiting is not None:
        number, state = waiting
        what = f"{ids.text(DELIVERY, number)} is still to be sent: cancel it first"
        raise WrongState(State(state), f"{ids.text(EVENT, event)} cannot be forgotten: {what}")
    connection.execute("DELETE FROM body WHERE event_id = ?", (event,))
    connection.execute("UPDATE event SET headers = '[]' WHERE id = ?", (event,))
    connection.execute("DELETE FROM seen WHERE event_id = ?", (event,))


def save(connection: Connection, deltas: Deltas, kind: str, table: Sequence[tuple[str, str]]) -> None:
    """See Store.save_states."""
    connection.executemany(
        "INSERT INTO known (kind, name, data) VALUES (?, ?, ?)"
        " ON CONFLICT (kind, name) DO UPDATE SET data = excluded.data",
        [(kind, *row) for row in table],
    )
