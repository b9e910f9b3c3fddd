"""Events with their deliveries as they join the queue: plain ones in a few large calls, the others one by one.

Not plain is what has an order to keep, is collected in a window, belongs to a paused route, or finds the queue full: it
depends on what is in the tables already, and what of it comes before it in the same batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime

from relay.clock import from_ms, to_ms
from relay.delivery import Added, Code, Delivery, Mark, Owed, State
from relay.ids import EventId
from relay.immutable import immutable
from relay.lane import Supersedes
from relay.stores._sql import lanes, repeats, rows
from relay.stores._sql.connection import LOCK, Connection
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.rows import Row
from relay.stores._sql.shapes import Shapes
from relay.window import MOST_BYTES, opened_at

_CARRIER = (
    "SELECT id, events, bytes, due, event_id, (SELECT received_at FROM event WHERE event.id = delivery.event_id)"  # noqa: S608
    " FROM delivery INDEXED BY delivery_window"
    f' WHERE route = ? AND "window" = ? AND open = 1 {LOCK}'
)

_NO_LOOKS: frozenset[str] = frozenset()
_DELIVERIES_OF = "SELECT route, state FROM delivery WHERE event_id = ? ORDER BY id"
_LIVE = ", ".join(f"'{state}'" for state in sorted(repeats.LIVE))
_SPENT = f"""
    SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM body WHERE event_id = ?1)
        AND NOT EXISTS (SELECT 1 FROM delivery WHERE event_id = ?1 AND state IN ({_LIVE}))
"""  # noqa: S608 - our own words


@immutable
class Adding:
    """An event with its deliveries, about to be stored."""

    event: Row
    content: bytes
    owed: Sequence[Owed]
    mark: Mark | None = None
    mentions: Sequence[str] = ()
    """The entries of an event that is about several."""

    @property
    def id(self) -> int:
        """The event's."""
        number: int = self.event[0]
        return number


def bodies(adds: Sequence[Adding]) -> list[Row]:
    """Rows of `body`."""
    return [(add.event[0], add.content) for add in adds]


def mentions(adds: Sequence[Adding]) -> list[Row]:
    """Rows of `mention`."""
    return [(entry, add.event[0]) for add in adds for entry in add.mentions]


class _Outcome:
    """What becomes of one event's deliveries."""

    __slots__ = ("full", "later", "looks", "ready")

    def __init__(self) -> None:
        self.ready: list[Delivery] = []
        self.looks: set[str] = set()
        self.later: list[tuple[str, datetime]] = []
        self.full: list[str] = []

    def added(self, event: int, routes: Sequence[str], duplicate: bool = False) -> Added:
        return Added(
            EventId(event),
            tuple(routes),
            duplicate,
            tuple(self.ready),
            frozenset(self.looks) if self.looks else _NO_LOOKS,
            tuple(self.later),
            tuple(self.full),
        )


class Joining(ABC):
    """One transaction's worth of deliveries. `waiting` are the pending and held ones of each route before it."""

    def __init__(self, connection: Connection, waiting: Mapping[str, int], deltas: Deltas, shapes: Shapes) -> None:
        self._connection = connection
        self._waiting = waiting
        self._deltas = deltas
        self._shapes = shapes

    def add(self, adds: Sequence[Adding]) -> list[Added]:
        """Store events with what is owed for them; what became of each."""
        repeated = self._repeated(adds) if any(add.mark is not None for add in adds) else {}
        fresh = [add for place, add in enumerate(adds) if place not in repeated] if repeated else adds
        self._write_events(fresh)
        outcomes = self._join(fresh)
        made = [
            # What no route wants is all that there is to some sources.
            Added(EventId(add.event[0]), ())
            if outcome is None
            else outcome.added(add.event[0], [owed.delivery.route for owed in add.owed])
            for add, outcome in zip(fresh, outcomes, strict=True)
        ]
        if not repeated:
            return made
        others = iter(made)
        return [
            self._repeat(repeated[place], add) if place in repeated else next(others) for place, add in enumerate(adds)
        ]

    # -- what each engine does in its own way --------------------------------------------------------------------------

    @abstractmethod
    def _write_events(self, adds: Sequence[Adding]) -> None:
        """Rows of `event` with their shapes, of `body` and of `mention`."""

    @abstractmethod
    def _write_deliveries(self, table: Sequence[Row]) -> None:
        """Rows of `DELIVERY_COLUMNS`."""

    @abstractmethod
    def _write_joined(self, row: Row, in_hand: bool) -> None:
        """A row of `JOIN_COLUMNS`, and whether it is handed over at once."""

    @abstractmethod
    def _known(self, adds: Sequence[Adding], now: int) -> dict[bytes, repeats.Seen] | None:
        """What may be repeated of the keys of these marks, or None where none repeats anything, not even another one of
        them, and all are remembered. An event that was pruned meanwhile is none that could be repeated. Also forgets
        some of what no longer can be."""

    @abstractmethod
    def _remember(self, seen: Sequence[Row], now: int) -> None:
        """Rows of `repeats.row`: a newer event takes the place of an older one with its key."""

    def _in_hand(self, owed: Owed) -> bool:
        """Whether a delivery that waits for nothing but its time is handed over as soon as it is stored."""
        return owed.window is None and owed.delivery.due <= owed.delivery.event.received_at

    # -- events ------------------------------------------------------------------------------------------------------

    def _events(self, adds: Sequence[Adding]) -> list[Row]:
        """Rows of `event`."""
        return [(*add.event, self._shape(add.event)) for add in adds]

    def _shape(self, event: Row) -> int | None:
        """An event that no route wants is found by its own shape, others by their deliveries'."""
        return None if event[rows.MATCHED] else self._shapes.unmatched(self._connection, event)

    # -- repeats -----------------------------------------------------------------------------------------------------

    def _repeated(self, adds: Sequence[Adding]) -> dict[int, int]:
        """The places of events that repeat another one, and that one's id. The others are remembered, also those that
        repeat what can no longer be sent: a sender was told to send it again."""
        now = max([add.event[rows.RECEIVED_AT] for add in adds])
        seen = self._known([add for add in adds if add.mark is not None], now)
        if seen is None:
            return {}
        found: dict[int, int] = {}
        remembered: dict[bytes, Row] = {}
        for place, add in enumerate(adds):
            mark = add.mark
            if mark is None:
                continue
            before = seen.get(mark.key)
            if (
                before is not None
                and before.value == mark.value
                and (mark.key in remembered or not self._spent(before.event))
            ):
                found[place] = before.event
                continue
            number = add.event[0]
            seen[mark.key] = repeats.Seen(mark.value, number)
            remembered[mark.key] = repeats.row(mark, number, now)
        self._remember(list(remembered.values()), now)
        return found

    def _spent(self, event: int) -> bool:
        """Whether nothing came of a stored event, nor can any more: its body is no longer kept."""
        return self._connection.execute(_SPENT, (event,)).fetchone() is not None

    def _repeat(self, first: int, add: Adding) -> Added:
        """A repeat of a stored event: known already, or, where nothing came of the first one, routed anew."""
        owed = self._connection.execute(_DELIVERIES_OF, (first,)).fetchall()
        if any(state in repeats.LIVE for _, state in owed):
            return Added(EventId(first), tuple(dict.fromkeys(route for route, _ in owed)), duplicate=True)
        return self.owe(first, len(add.content), add.owed)

    def owe(self, event: int, size: int, owed: Sequence[Owed]) -> Added:
        """New deliveries of a stored event. They are read from the store: it is the first event's body that is sent."""
        outcome = _Outcome()
        for each in owed:
            self._one(each, event, size, outcome, old=True)
        outcome.looks.update(delivery.route for delivery in outcome.ready)
        outcome.ready.clear()
        counted = self._connection.execute("UPDATE event SET matched = matched + ? WHERE id = ?", (len(owed), event))
        if counted.rowcount == 0:
            raise KeyError(event)  # pruned since it was looked for
        return outcome.added(event, [each.delivery.route for each in owed])

    # -- the queue ---------------------------------------------------------------------------------------------------

    def _join(self, adds: Sequence[Adding]) -> list[_Outcome | None]:
        """What becomes of each; None where nothing is owed."""
        outcomes: list[_Outcome | None] = []
        plain: list[Row] = []
        others: list[tuple[Owed, Adding, _Outcome]] = []
        for add in adds:
            if not add.owed:
                outcomes.append(None)
                continue
            outcome = _Outcome()
            outcomes.append(outcome)
            for owed in add.owed:
                delivery = owed.delivery
                if owed.plain and self._count(delivery.route) < owed.most:
                    shape = self._shapes.of(self._connection, delivery)
                    plain.append(rows.delivery_row(delivery, shape, add.event[rows.RECEIVED_AT]))
                    shift(self._deltas, delivery.route, 1, 0)
                    self._sort(owed, outcome)
                else:
                    others.append((owed, add, outcome))
        self._write_deliveries(plain)
        for owed, add, outcome in others:
            self._one(owed, add.id, len(add.content), outcome)
        return outcomes

    def _count(self, route: str) -> int:
        """Pending and held ones of a route, with those of this transaction."""
        pending, held = self._deltas.get(route, (0, 0))
        return self._waiting.get(route, 0) + pending + held

    def _one(self, owed: Owed, event: int, size: int, outcome: _Outcome, old: bool = False) -> None:
        """A delivery that has to look at what is there; of an `old` event there may be something newer."""
        delivery = owed.delivery
        route, lane = delivery.route, delivery.lane
        if owed.window is not None and self._merged(owed, event, size, outcome):
            return
        newer, taken_up = self._superseding(owed, event, old)
        if newer is not None:
            self._insert(owed, event, State.MERGED, into=newer)
            return
        if self._count(route) - len(taken_up) >= owed.most:
            outcome.full.append(route)
            message = f"{owed.most} deliveries of {route} wait already (max_pending)"
            self._insert(owed, event, State.FAILED, error=(Code.QUEUE_FULL.value, message))
            return
        blocked = False
        if lane is not None:
            self._take_up(taken_up, delivery)
            blocked = lanes.has_unfinished(self._connection, route, lane)
        state = State.HELD if owed.paused else State.PENDING
        self._insert(owed, event, state, blocked=blocked, size=size)
        shift(self._deltas, route, int(not owed.paused), int(owed.paused))
        if blocked:
            # What was taken up may have been the first of its lane.
            if taken_up and lane is not None and lanes.release(self._connection, route, lane):
                outcome.looks.add(route)
        elif not owed.paused:
            self._sort(owed, outcome)

    def _merged(self, owed: Owed, event: int, size: int, outcome: _Outcome) -> bool:
        """Whether a window is open that takes the delivery: it is born merged into its carrier."""
        grouping, delivery = owed.grouping, owed.delivery
        assert grouping is not None
        found = self._connection.execute(_CARRIER, (delivery.route, owed.window)).fetchone()
        if found is None:
            return False
        carrier, events, held, before, first, received = found
        now = delivery.event.received_at
        closing = (
            "UPDATE delivery SET events = ?, bytes = ?, due = ?, first_due = ?, open = ?, updated_at = ? WHERE id = ?"
        )
        at_once = min(before, to_ms(now + grouping.delay))
        if grouping.kind == "batch" and held + size > MOST_BYTES:
            self._connection.execute(closing, (events, held, at_once, at_once, 0, to_ms(now), carrier))
            outcome.later.append((delivery.route, from_ms(at_once)))
            return False
        self._insert(owed, event, State.MERGED, into=carrier)
        full = events + 1 >= grouping.most
        opened = opened_at(carrier, first, from_ms(received))
        due = at_once if full else to_ms(grouping.due(opened, now, from_ms(before)))
        self._connection.execute(closing, (events + 1, held + size, due, due, int(not full), to_ms(now), carrier))
        outcome.later.append((delivery.route, from_ms(due)))
        return True

    def _superseding(self, owed: Owed, event: int, old: bool) -> tuple[int | None, list[lanes.Waiting]]:
        """What outdates the delivery, where its event is an old one that is owed again; what it takes up."""
        lane, what, route = owed.delivery.lane, owed.delivery.event.description.common, owed.delivery.route
        if lane is None or owed.supersedes is Supersedes.NOTHING:
            return None, []
        newer = lanes.outdating(self._connection, route, lane, event, what) if old else None
        waiting = lanes.waiting(self._connection, route, lane)
        everything = owed.supersedes is Supersedes.ALL
        older = [each for each in waiting if each.event <= event and (everything or each.what.stage == what.stage)]
        return newer, older

    def _take_up(self, older: Sequence[lanes.Waiting], delivery: Delivery) -> None:
        """What waits is merged into a newer delivery."""
        now = to_ms(delivery.event.received_at)
        for each in older:
            lanes.merge(self._connection, each, delivery.id, delivery.route, now, self._deltas)

    def _insert(
        self,
        owed: Owed,
        event: int,
        state: State,
        blocked: bool = False,
        size: int = 0,
        into: int | None = None,
        error: tuple[str, str] | None = None,
    ) -> None:
        shape = self._shapes.of(self._connection, owed.delivery)
        in_hand = state is State.PENDING and not blocked and self._in_hand(owed)
        self._write_joined(rows.join_row(owed, shape, event, state, blocked, size, into, error), in_hand)

    def _sort(self, owed: Owed, outcome: _Outcome) -> None:
        """When a delivery that waits for nothing but its time is to be looked at."""
        delivery = owed.delivery
        if self._in_hand(owed):
            outcome.ready.append(delivery)
        elif owed.window is not None or delivery.due > delivery.event.received_at:
            outcome.later.append((delivery.route, delivery.due))
        else:
            outcome.looks.add(delivery.route)
