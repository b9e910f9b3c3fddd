"""Whatever is done to the queue, in whatever order: nothing is lost, nobody waits for ever, nothing is sent twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.delivery import Added, Delivery, HeldReason, Mark, Result
from relay.event import Change, Description
from relay.ids import DeliveryId, EventId
from relay.lane import Order
from relay.store import LogQuery, WrongState
from relay.stores._sql import rows
from relay.stores.sqlite import SqliteStore, open_store
from relay.window import Grouping, batch, debounce
from tests.contract.desk import SECOND, Desk, again, delivered, expired, failed
from tests.fakes import NOON, ManualClock

pytestmark = pytest.mark.long

T = TypeVar("T")
ROUTES = ("a", "b")
GROUPINGS: tuple[Grouping | None, ...] = (
    None,
    None,
    debounce(4 * SECOND, 9 * SECOND, (), 0 * SECOND),
    debounce(4 * SECOND, 9 * SECOND, ("entry_id",), SECOND),
    batch(3, 5 * SECOND, 0 * SECOND),
    batch(1, 5 * SECOND, SECOND),
)

routes = st.sampled_from(ROUTES)
some = st.integers(0, 1 << 30)
"""Picks one of however many there are."""
events = st.builds(
    lambda entry, stage, action, several: Description(
        f"entry.{action}",
        (Change("page", stage, action, entry),) + (Change("page", stage, action, "9"),) * several,
    ),
    st.sampled_from(["1", "1", "2", None]),
    st.sampled_from(["published", "draft"]),
    st.sampled_from(["publish", "publish", "publish", "delete"]),
    st.sampled_from([False, False, False, True]),
)
repeats = st.sampled_from([None, None, timedelta(seconds=3), timedelta(hours=1)])
"""Within which an event repeats another one."""
policies = st.fixed_dictionaries(
    {route: st.tuples(st.sampled_from(list(Order)), st.sampled_from(GROUPINGS)) for route in ROUTES}
)
ends = st.sampled_from(["delivered", "delivered", "again", "failed", "expired"])


class Queue(RuleBasedStateMachine):
    """A store, with a dispatcher that does anything at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = Path(self.directory.name) / "relay.db"
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.store: SqliteStore = self.run(open_store(self.path, clock=self.clock))
        self.desk = Desk(self.store, self.clock, lambda: open_store(self.path, clock=self.clock))
        self.file = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        self.owed = 0
        self.delivered: set[int] = set()
        self.sending: dict[DeliveryId, Delivery] = {}
        self.strangers: set[DeliveryId] = set()
        """What is being sent since before its lane was another one."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def ask(self, sql: str, *values: object) -> list[Any]:
        return self.file.execute(sql, values).fetchall()

    def teardown(self) -> None:
        self.file.close()
        self.run(self.store.close())
        self.runner.close()
        with closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        self.directory.cleanup()

    def pick(self, which: int, condition: str = "1") -> Delivery | None:
        """One of the deliveries, as its courier might know it."""
        found = self.ask(f"SELECT id, route, attempts FROM delivery WHERE {condition} ORDER BY id")
        if not found:
            return None
        number, route, attempts = found[which % len(found)]
        known = self.sending.get(number)
        return known or Delivery(number, route, self.desk.event(), NOON, NOON, attempts)

    # -- what comes in -----------------------------------------------------------------------------------------------

    @rule(told=st.lists(st.tuples(events, st.sets(routes), repeats), min_size=1, max_size=8))
    def add(self, told: Sequence[tuple[Description, set[str], timedelta | None]]) -> None:
        async def adding() -> list[Added]:
            made = []
            for description, names, window in told:
                event = self.desk.event(description=description)
                about, said = repr(description.common.entry_id).encode(), repr(description.changes).encode()
                mark = None if window is None else Mark(about, said, window)
                made.append(self.store.add(event, [self.desk.owed(event, name) for name in sorted(names)], mark))
            return await asyncio.gather(*made)

        for added in self.run(adding()):
            self.owed += 0 if added.duplicate else len(added.routes)

    @rule(which=some, names=st.sets(routes, min_size=1))
    def replay(self, which: int, names: set[str]) -> None:
        found = self.ask("SELECT id FROM event ORDER BY id")
        if not found:
            return
        number = EventId(found[which % len(found)][0])
        columns = self.ask(f"SELECT {rows.event_columns('e')} FROM event e WHERE id = ?", number)[0]
        event = replace(rows.to_event(columns, b"", False), received_at=self.clock.now())
        self.run(self.store.owe(number, [self.desk.owed(event, name) for name in sorted(names)]))
        self.owed += len(names)

    # -- what goes out -----------------------------------------------------------------------------------------------

    @rule(route=routes, limit=st.integers(1, 5), retried=st.none() | st.booleans())
    def send(self, route: str, limit: int, retried: bool | None) -> None:
        now = self.clock.now()
        found = self.run(self.store.claim(route, retried, now, limit, self.sending.keys()))
        assert len(found) <= limit
        assert found == sorted(found, key=lambda each: (each.due, each.id))
        for each in found:
            assert (each.route, each.due <= now) == (route, True)
            assert each.id not in self.delivered
            assert each.id not in self.sending, "in hand already"
            others = [other for other in self.sending.values() if (other.route, other.lane) == (route, each.lane)]
            assert each.lane is None or {other.id for other in others} <= self.strangers, "its lane is being sent"
            taken = each if each.reserved else self.run(self.store.take(each, now))
            assert taken is not None, "nothing has changed since it was claimed"
            if taken.collected is not None:
                (count,) = self.ask("SELECT count(*) FROM delivery WHERE id = ?1 OR merged_into = ?1", taken.id)[0]
                assert len(taken.collected.events) == count
            self.sending[taken.id] = taken

    def end(self, delivery: Delivery, how: str, skip: int = 0, wait: float = 0) -> Result:
        self.sending.pop(delivery.id, None)
        n = delivery.attempts + 1 + skip
        match how:
            case "delivered":
                return delivered(delivery, n)
            case "failed":
                return failed(delivery, n)
            case "expired":
                return expired(delivery)
            case _:
                return again(delivery, self.clock.now() + wait * SECOND, n)

    @rule(which=st.lists(some, min_size=1, max_size=5), how=ends, wait=st.integers(0, 2), twice=st.booleans())
    def record(self, which: list[int], how: str, wait: int, twice: bool) -> None:
        """Of what is being sent."""
        sending = list(self.sending.values())
        chosen = {sending[one % len(sending)].id for one in which if sending}
        self.write([self.end(self.sending[number], how, 0, wait) for number in sorted(chosen)] * (1 + twice))

    @rule(which=some, how=ends, skip=st.integers(0, 1))
    def record_late(self, which: int, how: str, skip: int) -> None:
        """A result that nobody expects."""
        delivery = self.pick(which)
        if delivery is not None:
            self.write([self.end(delivery, how, skip)])

    @rule(how=st.lists(ends, min_size=1, max_size=10), wait=st.floats(0, 10))
    def carry(self, how: list[str], wait: float) -> None:
        """One after another, as time goes by."""
        for one in how:
            before = set(self.sending)
            for route in ROUTES:
                self.send(route, 3, None)
            self.write([self.end(self.sending[number], one) for number in sorted(self.sending.keys() - before)])
            self.clock.advance(wait)

    def write(self, results: list[Result]) -> None:
        async def recording() -> None:
            await asyncio.gather(*(self.store.record(result) for result in results))

        self.run(recording())

    # -- what people and configs do ----------------------------------------------------------------------------------

    @rule(which=some, condition=st.sampled_from(["state IN ('failed', 'cancelled')", "1"]))
    def retry(self, which: int, condition: str) -> None:
        delivery = self.pick(which, condition)
        if delivery is not None:
            with suppress(WrongState):
                self.run(self.store.retry(delivery.id, self.clock.now(), sending=list(self.sending)))

    @rule(dry=st.booleans())
    def retry_all(self, dry: bool) -> None:
        self.run(self.store.retry_all(LogQuery(), self.clock.now(), dry, list(self.sending)))

    @rule(which=some, condition=st.sampled_from(["state IN ('pending', 'held')", "taken", "1"]))
    def cancel(self, which: int, condition: str) -> None:
        delivery = self.pick(which, condition)
        if delivery is not None:
            with suppress(WrongState):
                self.run(self.store.cancel(delivery.id, self.clock.now()))
                self.sending.pop(delivery.id, None)

    @rule(which=some)
    def flush(self, which: int) -> None:
        delivery = self.pick(which, '"window" IS NOT NULL')
        if delivery is not None:
            kept = HeldReason.PAUSED if delivery.route in self.desk.paused else None
            with suppress(WrongState):
                self.run(self.store.flush(delivery.id, self.clock.now(), kept))

    @rule(which=some)
    def hold(self, which: int) -> None:
        delivery = self.pick(which, '"window" IS NOT NULL')
        if delivery is not None:
            with suppress(WrongState):
                self.run(self.store.hold(delivery.id, self.clock.now()))

    @rule(which=some)
    def forget(self, which: int) -> None:
        found = self.ask("SELECT id FROM event ORDER BY id")
        if found:
            with suppress(WrongState):
                self.run(self.store.forget(EventId(found[which % len(found)][0])))

    @rule(paused=st.sets(routes), removed=st.sampled_from(["", "", *ROUTES]))
    def settle(self, paused: set[str], removed: str) -> None:
        active = set(ROUTES) - {removed}
        self.desk.paused = paused & active
        self.run(self.desk.settle(*active))
        by_hand = {route for (route,) in self.ask("SELECT route FROM delivery WHERE held_reason = 'hand'")}
        for route, counts in self.store.counts().items():
            assert not (counts.pending if route not in active - paused else counts.held) or route in by_hand

    @initialize(policies=policies)
    def begin(self, policies: dict[str, tuple[Order, Grouping | None]]) -> None:
        self.follow(policies)

    @rule(policies=policies)
    def follow(self, policies: dict[str, tuple[Order, Grouping | None]]) -> None:
        for name, (_, grouping) in policies.items():
            self.desk.groupings.pop(name, None)
            if grouping is not None and policies[name][0] is not Order.LATEST:
                self.desk.groupings[name] = grouping
        self.run(self.desk.follow(**{name: order for name, (order, _) in policies.items()}))
        self.strangers = set(self.sending)

    @rule(old=routes, new=routes, released=st.booleans())
    def move(self, old: str, new: str, released: bool) -> None:
        """`old` is removed, and what it had is given to `new`."""
        if old != new:
            self.desk.paused.discard(old)
            self.run(self.desk.settle(new))
            self.run(self.store.move(old, new, list(self.sending)))
            self.strangers = set(self.sending)
        if released:
            self.run(self.desk.settle(*ROUTES))

    @rule(seconds=st.floats(0.001, 10))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def reopen(self) -> None:
        """What was being sent is not being sent any more."""
        before = dict(self.store.counts())
        self.run(self.store.close())
        self.store = self.desk.store = self.run(open_store(self.path, clock=self.clock))
        assert self.store.counts() == before
        self.run(self.desk.follow())
        self.sending.clear()

    # -- what is always so -------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost(self) -> None:
        states = dict(self.ask("SELECT state, count(*) FROM delivery GROUP BY state"))
        assert sum(states.values()) == self.owed
        assert self.ask("SELECT coalesce(sum(matched), 0) FROM event") == [(self.owed,)]
        done = {row[0] for row in self.ask("SELECT id FROM delivery WHERE state = 'delivered'")}
        assert self.delivered <= done, "a delivered one stays delivered"
        self.delivered = done

    @invariant()
    def the_counts_are_right(self) -> None:
        for state in ("pending", "held"):
            told = {route: getattr(each, state) for route, each in self.store.counts().items() if getattr(each, state)}
            assert told == dict(
                self.ask(f"SELECT route, count(*) FROM delivery WHERE state = '{state}' GROUP BY route")
            )

    @invariant()
    def what_is_merged_is_part_of_one_that_is_not(self) -> None:
        assert not self.ask(
            "SELECT * FROM delivery m LEFT JOIN delivery c ON c.id = m.merged_into"
            " WHERE m.state = 'merged' AND (c.id IS NULL OR c.state = 'merged')"
        )
        assert not self.ask(
            "SELECT events, (SELECT count(*) FROM delivery m WHERE m.merged_into = c.id) AS merged FROM delivery c"
            ' WHERE "window" IS NOT NULL AND events != merged + 1'
        )

    @invariant()
    def what_is_taken_is_not_merged(self) -> None:
        merged = {number for (number,) in self.ask("SELECT id FROM delivery WHERE state = 'merged'")}
        assert not merged & {number for number in self.sending if number not in self.strangers}
        assert not self.ask("SELECT * FROM delivery WHERE state = 'merged' AND \"window\" IS NOT NULL")
        assert not self.ask("SELECT * FROM delivery WHERE \"window\" LIKE '%batch%' AND events > 3")

    @invariant()
    def of_each_lane_one_goes_on(self) -> None:
        unfinished = "state IN ('pending', 'held')"
        assert not self.ask(
            f"SELECT route, lane, sum(1 - blocked) AS n FROM delivery WHERE {unfinished} AND lane IS NOT NULL"
            " GROUP BY route, lane HAVING n != 1"
        )
        assert not self.ask(f"SELECT * FROM delivery WHERE {unfinished} AND lane IS NULL AND blocked")
        assert not self.ask(f"SELECT * FROM delivery WHERE NOT {unfinished} AND taken")

    @invariant()
    def everyone_is_in_the_lane_of_todays_order(self) -> None:
        for route, lane, *event in self.ask(
            f"SELECT d.route, d.lane, {rows.event_columns('e')} FROM delivery d JOIN event e ON e.id = d.event_id"
            " WHERE d.state IN ('pending', 'held')"
        ):
            assert lane == rows.lane_of(self.desk.orders.get(route, Order.NONE), event)

    @invariant()
    def open_windows_wait(self) -> None:
        assert not self.ask(
            "SELECT * FROM delivery WHERE open AND (\"window\" IS NULL OR state NOT IN ('pending', 'held'))"
        )
        assert not self.ask(
            'SELECT route, "window", count(*) AS n FROM delivery WHERE open GROUP BY route, "window" HAVING n > 1'
        )
        shown = [each.id for each in self.run(self.store.windows())]
        assert shown == [
            number for (number,) in self.ask("SELECT id FROM delivery WHERE open OR held_reason = 'hand' ORDER BY id")
        ]


def profile(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class LongQueue(Queue):
    """The same for long."""


TestQueue = Queue.TestCase
TestQueue.settings = profile(60, 30)
TestLongQueue = pytest.mark.soak(LongQueue.TestCase)
TestLongQueue.settings = profile(600, 80)
