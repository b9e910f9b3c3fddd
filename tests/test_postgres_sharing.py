"""Several relays on one PostgreSQL: what each may have in hand, who takes over from whom, and what they learn of each
other. Real stores in one process, on a real server; whole daemons are in tests/torture."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from relay.clock import SystemClock, to_ms
from relay.config import load
from relay.delivery import Code, Delivered, Delivery, Failure, LogItem, Mark, Result, Retryable, State
from relay.dispatcher import Dispatcher
from relay.health import PausedBy, RouteHealth, RouteState
from relay.ids import DeliveryId
from relay.lane import Order
from relay.listening import Listening
from relay.notify import Notices
from relay.oversight import Oversight
from relay.peers import Peers
from relay.routing import Route
from relay.runtime import build
from relay.sourcehealth import SourceHealth
from relay.store import Unavailable, WrongState
from relay.stores.postgresql import PostgresStore, bulk, joining, membership, open_reader, open_url, opening, schema
from relay.stores.postgresql.ahead import Ahead
from relay.stores.postgresql.burying import HOLD
from relay.stores.postgresql.committer import Committer
from relay.stores.postgresql.connection import Connection, connect
from relay.window import debounce
from tests.contract.desk import SECOND, Desk, again, delivered
from tests.fakes import ManualClock, until
from tests.postgres import ROLE, Cluster, Database, cluster

CONFIG = b"""
sources: {any: {type: generic, verify: none}}
routes: [{name: www, to: {url: "http://a.test/"}}]
"""
MARK = Mark(b"k" * 16, b"v" * 16, timedelta(minutes=5))


class Heard:
    """What a relay was told of others."""

    def __init__(self) -> None:
        self.lost_times = 0
        self.routes: set[str] = set()
        self.saved: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.gone: list[str] = []
        self.recalled: list[DeliveryId] = []
        self.rerun: list[DeliveryId] = []

    def lost(self) -> None:
        self.lost_times += 1

    def due(self, routes: Collection[str]) -> None:
        self.routes.update(routes)

    def states(self, kind: str, changed: Mapping[str, Mapping[str, Any]]) -> None:
        self.saved.update({(kind, name): data for name, data in changed.items()})

    def recall(self, deliveries: Collection[DeliveryId]) -> None:
        self.recalled += deliveries

    def again(self, delivery: DeliveryId) -> None:
        self.rerun.append(delivery)

    def ended(self, name: str) -> None:
        self.gone.append(name)

    def missed(self) -> None:
        """Nobody asks for it."""


class Relay(Desk):
    """A store of its own on the database that all share."""

    def __init__(self, store: PostgresStore, clock: ManualClock) -> None:
        async def reopen() -> PostgresStore:
            raise AssertionError("not used here")

        super().__init__(store, clock, reopen)
        self.shared_store = store
        self.heard = Heard()
        store.shared.follow(self.heard)

        self._stopped = threading.Event()

    def stop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As SIGSTOP does: it says nothing more that it lives."""
        member = self.shared_store._member
        beat = member._beat

        def stopped(connection: Connection) -> None:
            self._stopped.wait()
            beat(connection)

        monkeypatch.setattr(member, "_beat", stopped)

    async def hears_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of what others save of routes and sources, from when this returns on."""
        looks = list[Connection]()

        def nothing(connection: Connection) -> dict[tuple[str, str], tuple[str, int]]:
            looks.append(connection)
            return {}

        monkeypatch.setattr(self.shared_store._member, "_changed", nothing)
        # A look that had begun before may see what is saved after this, and tell it to who was told before.
        await until(lambda: len(looks) >= 2)

    def go_on(self) -> None:
        """As SIGCONT does."""
        self._stopped.set()


Start = Callable[..., Awaitable[Relay]]


@pytest.fixture
async def start(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts relays on one database."""
    monkeypatch.setattr(membership, "LEASE", 1.5)
    monkeypatch.setattr(membership, "BEAT", 0.1)
    monkeypatch.setattr(membership, "_MARGIN", 0.1)
    started: list[Relay] = []
    clock = ManualClock()

    async def another(options: str = "") -> Relay:
        store = await open_url(database.url.removeprefix("postgresql:") + options, clock)
        started.append(Relay(store, clock))
        return started[-1]

    yield another
    for relay in started:
        relay.go_on()
        await relay.store.close()


async def two(start: Start) -> tuple[Relay, Relay]:
    first, second = await start(), await start()
    await until(lambda: len(first.shared_store.shared.members()) == 2)
    return first, second


def test_arrays_are_read_as_they_were_written(database: Database) -> None:
    with connect(database.url, "test") as connection:
        for kind, name, values in (
            (bulk.Bigint, "bigint", [1, -(1 << 63), (1 << 63) - 1]),
            (bulk.Bigint, "bigint", [None, 5]),
            (bulk.Integer, "integer", [0, -1, None]),
            (bulk.Words, "text", ["", "ä\U0001f600", None, "{}", "x" * 100_000]),
            (bulk.Bytes, "bytea", [b"", b"\0\xff", None]),
            (bulk.Words, "text", []),
        ):
            found = connection.execute(f"SELECT $1::{name}[]", [kind(values)]).fetchone()
            assert found == (values,)
        found = connection.execute("SELECT $1::text[]", [bulk.Words(["a\0b"])]).fetchone()
        assert found == (["a\u2400b"],)


@pytest.mark.parametrize("values", [[1 << 63], [None, 1 << 63]])
def test_a_number_too_large_for_its_column_is_the_fault_of_the_write_that_brought_it(values: list[int | None]) -> None:
    with pytest.raises(Committer.OWN_FAULT):
        bulk.Bigint(values)


# -- in hand ---------------------------------------------------------------------------------------------------------


async def test_what_a_relay_took_in_is_in_its_hand_and_in_no_other(start: Start) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    assert await second.claimed() == []
    assert await first.claimed() == [delivery.id]


async def test_of_a_route_with_a_backlog_nothing_is_born_in_anybodys_hand(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "IN_HAND", 3)
    first, second = await two(start)
    born = [(await first.add("www"))[0].id for _ in range(6)]
    assert await second.claimed() == born[3:]
    assert await first.claimed() == born[:3]


async def test_no_delivery_is_claimed_by_two(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "IN_HAND", -1)
    first, second = await two(start)
    born = {(await first.add("www"))[0].id for _ in range(60)}
    found = await asyncio.gather(*(relay.claimed(limit=7) for _ in range(4) for relay in (first, second)))
    by_first, by_second = set().union(*found[::2]), set().union(*found[1::2])
    assert by_first
    assert by_second
    assert not by_first & by_second
    assert by_first | by_second <= born


async def test_what_waits_for_another_try_is_anybodys(start: Start) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    await first.store.record(again(delivery, first.clock.now() + SECOND))
    first.wait(2)
    await until(lambda: second.heard.routes == {"www"})
    assert await second.claimed() == [delivery.id]
    assert await first.claimed() == []


# -- takeover --------------------------------------------------------------------------------------------------------


async def test_what_a_dead_relay_had_in_hand_is_taken_over(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    await until(lambda: second.heard.routes == {"www"})
    assert await second.claimed() == [delivery.id]


async def test_who_ends_in_order_is_followed_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "LEASE", 600.0)
    first, second = await two(start)
    [delivery] = await first.add("www")
    await first.store.close()
    await until(lambda: second.heard.routes == {"www"})
    assert await second.claimed() == [delivery.id]


async def test_the_result_of_a_stopped_relay_is_refused_where_another_has_taken_over(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    [taken] = await second.claim()
    assert first.shared_store.shared.lapsed()
    await first.store.record(delivered(delivery))
    assert await second.state(taken) == "pending"
    assert first.shared_store._member.stale == 1
    await second.store.record(delivered(taken))
    detail = await first.detail(delivery)
    assert (detail.item.status, len(detail.attempts)) == ("delivered", 1)


async def test_a_result_is_recorded_where_nobody_has_taken_over_yet(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    await first.store.record(delivered(delivery))
    assert await second.state(delivery) == "delivered"
    assert first.shared_store._member.stale == 0
    assert await second.claimed() == []


async def test_a_relay_that_was_taken_for_dead_goes_on_under_another_id(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    before = first.shared_store._member.id
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    assert first.shared_store.shared.lapsed()
    first.go_on()
    await until(lambda: first.heard.lost_times == 1)
    assert first.shared_store._member.id > before
    assert not first.shared_store.shared.lapsed()
    [delivery] = await first.add("www")
    assert await first.claimed() == [delivery.id]


async def test_a_relay_that_lost_the_database_just_when_it_had_another_id_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    member = first.shared_store._member
    before, look = member.id, member._look

    def lost(connection: Connection) -> None:
        if member.id != before:
            monkeypatch.setattr(member, "_look", look)
            raise psycopg.OperationalError("the connection was lost")
        look(connection)

    monkeypatch.setattr(member, "_look", lost)
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    first.go_on()
    await until(lambda: first.heard.lost_times == 1)
    await until(lambda: not first.shared_store.shared.lapsed())


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock here goes on while the machine sleeps")
async def test_a_lease_ends_also_while_the_machine_sleeps(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "LEASE", 600.0)
    relay = await start()
    lapsed, real = relay.shared_store.shared.lapsed, time.clock_gettime
    relay.stop(monkeypatch)
    assert not lapsed()
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + 3600.0 * (clock == time.CLOCK_BOOTTIME))
    assert lapsed()
    relay.go_on()
    await until(lambda: not lapsed())


async def test_what_comes_in_after_a_stop_is_stored_under_the_new_id(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    [delivery] = await first.add("www")
    await until(lambda: first.heard.lost_times == 1)
    assert await second.claimed() == []
    assert await first.claimed() == [delivery.id]


async def test_a_newcomer_is_not_taken_for_dead_by_who_has_not_seen_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start()
    monkeypatch.setattr(membership, "BEAT", 600.0)
    first.stop(monkeypatch)  # it sees nothing new
    second = await start()
    [delivery] = await second.add("www")
    assert await first.claimed() == []
    assert await second.claimed() == [delivery.id]


def half_sent(database: Database, relay: Relay) -> Connection:
    """A transaction as a relay's, the rest of which never comes: the server waits for it."""
    connection = connect(database.url, "test")
    connection.pgconn.enter_pipeline_mode()
    connection.pgconn.send_query_params(b"BEGIN", None)
    number = str(relay.shared_store._member.id).encode()
    connection.pgconn.send_query_params(HOLD.encode(), [number], param_types=[20])  # bigint, see pg_type.dat
    connection.pgconn.flush()
    return connection


@pytest.mark.parametrize("transactions", [1, 2])
async def test_what_a_relay_had_in_hand_that_stopped_in_the_middle_of_a_statement_is_taken_over(
    start: Start, monkeypatch: pytest.MonkeyPatch, database: Database, transactions: int
) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    first.stop(monkeypatch)
    with ExitStack() as stack:
        for _ in range(transactions):
            stack.callback(half_sent(database, first).close)
        await until(lambda: bool(second.heard.gone))
    assert await second.claimed() == [delivery.id]


async def test_nobody_but_the_dead_is_cut_off_however_long_he_holds_what(
    start: Start, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    first, second = await two(start)
    dead, living = (each.shared_store._member.id for each in (first, second))
    first.stop(monkeypatch)
    with ExitStack() as stack:
        held = stack.enter_context(closing(half_sent(database, first)))
        others = {
            "a relay": HOLD.replace("$1", str(living)),
            "who looks at a living one": f"SELECT 1 FROM process WHERE id = {living} FOR KEY SHARE",
            "who looks at the dead one": f"SELECT 1 FROM process WHERE id = {dead} FOR SHARE",
            "who looks at all": "LOCK TABLE process IN ROW SHARE MODE",
        }
        sessions = {}
        for who, sql in others.items():
            sessions[who] = session = stack.enter_context(closing(connect(database.url, "test")))
            session.execute("SET idle_in_transaction_session_timeout = 0")
            session.execute("BEGIN")
            session.execute(sql)
            session.execute("SELECT pg_current_xact_id()")  # it writes, for all that the server knows
        marks = f"SELECT count(*) FROM pg_locks WHERE pid = {held.info.backend_pid}"
        await until(lambda: database.sql(marks) == [(0,)])
        assert second.heard.gone == []
        for session in sessions.values():
            session.execute("COMMIT")
        await until(lambda: bool(second.heard.gone))


async def test_nobody_is_taken_for_dead_because_the_clock_of_the_database_was_put_forward(
    start: Start, database: Database
) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    database.sql("UPDATE process SET expires = expires - interval '1 hour'")
    looked = second.shared_store._member._looked
    await until(lambda: second.shared_store._member._looked != looked)
    assert (first.heard.lost_times, second.heard.lost_times, second.heard.gone) == (0, 0, [])
    assert await second.claimed() == []
    assert await first.claimed() == [delivery.id]


async def test_what_a_dead_relay_had_in_hand_is_taken_over_also_where_the_clock_of_the_database_was_put_back(
    start: Start, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    stopped = first.shared_store._member.id
    first.stop(monkeypatch)
    database.sql(f"UPDATE process SET expires = expires + interval '1 hour' WHERE id = {stopped}")
    await until(lambda: bool(second.heard.gone))
    assert await second.claimed() == [delivery.id]


async def test_who_has_not_looked_for_long_takes_nobody_for_dead_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    first, second = await two(start)
    looked = first.shared_store._member._looked
    for relay in (first, second):
        relay.stop(monkeypatch)  # as where the database stands still
    await until(lambda: first.shared_store.shared.lapsed() and second.shared_store.shared.lapsed())
    expired = "SELECT count(*) FROM process WHERE expires < clock_timestamp()"
    await until(lambda: database.sql(expired) == [(2,)])
    first.go_on()
    await until(lambda: first.shared_store._member._looked != looked)
    assert len(first.shared_store.shared.members()) == 2
    second.go_on()
    await until(lambda: not second.shared_store.shared.lapsed())
    assert (first.heard.gone, second.heard.lost_times) == ([], 0)


# -- lanes, windows, repeats -----------------------------------------------------------------------------------------


async def test_a_repeat_that_comes_to_two_at_once_is_one_event(start: Start) -> None:
    first, second = await two(start)
    for each in range(10):
        mark = Mark(each.to_bytes(16), b"v" * 16, timedelta(minutes=5))
        relays = (first, second)
        events = [relay.event() for relay in relays]
        owed = [relay.owed(event) for relay, event in zip(relays, events, strict=True)]
        added = await asyncio.gather(*(relays[n].store.add(events[n], [owed[n]], mark) for n in (0, 1)))
        assert len({one.event for one in added}) == 1
        assert sorted(one.duplicate for one in added) == [False, True]


async def test_of_one_lane_only_the_first_is_to_be_had_whoever_took_it_in(start: Start) -> None:
    first, second = await two(start)
    for relay in (first, second):
        await relay.follow(www=Order.ENTRY)
    one = await first.tell()
    two_ = await second.tell()
    three = await first.tell()
    assert await second.claimed() == []
    await first.send(one)
    assert await second.claimed() == [two_.id]
    assert await first.claimed() == []
    [taken] = await second.claim()
    await second.store.record(delivered(taken))
    assert await first.claimed() == [three.id]


async def test_what_comes_later_has_a_later_id_also_where_its_clock_is_behind(start: Start) -> None:
    first, second = await two(start)
    second.clock = ManualClock()
    second.shared_store._clock = second.clock
    first.clock.advance(3600)
    for relay in (first, second):
        await relay.follow(www=Order.LATEST)
    old = await first.tell(first.about(body=b"old"))
    new = await second.tell(second.about(body=b"new"))
    assert new.id > old.id
    assert new.event.id > old.event.id
    second.clock.advance(3600)
    assert await first.state(old) == "merged"
    assert await first.carrier(old) == new.id


async def test_of_events_that_get_later_ids_none_passes_another_one(start: Start) -> None:
    first, second = await two(start)
    second.clock = ManualClock()
    second.shared_store._clock = second.clock
    for relay in (first, second):
        await relay.follow(www=Order.ENTRY)
    first.wait(0.005)
    await first.tell()
    one = second.owed(second.about())
    second.wait(0.01)
    other = second.owed(second.about())
    await asyncio.gather(*(second.store.add(each.delivery.event, [each]) for each in (one, other)))
    assert one.delivery.id < other.delivery.id
    assert one.delivery.event.id < other.delivery.event.id


async def test_no_more_relays_join_than_there_are_slots(start: Start, database: Database) -> None:
    await start()
    database.sql(
        "INSERT INTO process (id, slot, name, version, started_at, expires)"
        " SELECT -n, n, 'x', '1', 0, now() + interval '1 hour' FROM generate_series(0, 255) AS n"
        " ON CONFLICT (slot) DO NOTHING"
    )
    with pytest.raises(Unavailable, match="256 relays share the database"):
        await start()


async def test_events_of_one_window_are_collected_by_all(start: Start) -> None:
    first, second = await two(start)
    for relay in (first, second):
        relay.groupings["www"] = debounce(timedelta(seconds=2), timedelta(seconds=20), (), timedelta())
    born = await asyncio.gather(*(relay.tell(relay.about(str(n))) for n in range(5) for relay in (first, second)))
    states = await first.states(*born)
    assert sorted(states) == ["merged"] * 9 + ["pending"]
    first.wait(10)
    carrier = born[states.index("pending")]
    holders = [relay for relay in (first, second) if await relay.claimed()]
    taken = await holders[0].take(carrier)
    assert taken is not None
    assert taken.collected is not None
    assert len(taken.collected.events) == 10


async def test_what_is_being_sent_takes_nothing_more_up(start: Start) -> None:
    first, second = await two(start)
    for relay in (first, second):
        await relay.follow(www=Order.LATEST)
    old = await first.tell()
    assert await first.take(old) is not None
    new = await second.tell()
    assert await first.states(old, new) == ["pending", "pending"]
    assert await second.claimed() == []


async def test_what_a_dead_relay_was_sending_may_be_merged_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await two(start)
    for relay in (first, second):
        await relay.follow(www=Order.LATEST)
    old = await first.tell()
    assert await first.take(old) is not None
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    new = await second.tell()
    assert await second.states(old, new) == ["merged", "pending"]


async def test_a_lane_that_was_made_while_another_relay_was_sending_goes_on(start: Start) -> None:
    first, second = await two(start)
    sent = await first.tell()
    first.wait(1)
    behind = await second.tell()
    await second.follow(www=Order.ENTRY)  # its config was read again, the other one's not yet
    assert await second.claimed() == []
    await first.store.record(delivered(sent))
    assert await second.claimed() == [behind.id]


async def test_what_came_in_before_the_last_relay_read_its_config_again_is_put_in_order_too(start: Start) -> None:
    first, second = await two(start)
    for relay in (first, second):
        await relay.follow(www=Order.NONE)
    await second.follow(www=Order.LATEST)
    old = await first.tell()
    await first.follow(www=Order.LATEST)
    first.wait(1)
    new = await second.tell()
    assert await second.states(old, new) == ["merged", "pending"]


async def test_what_another_relay_may_be_sending_stays_first_in_its_lane(start: Start) -> None:
    first, second = await two(start)
    for relay in (first, second):
        await relay.follow(www=Order.NONE)
    await second.follow(www=Order.ENTRY)
    old = await first.tell()
    new = await second.tell()
    await first.follow(www=Order.ENTRY)
    assert await first.claimed() == []
    await second.store.record(delivered(new))
    assert await first.claimed() == [old.id]


async def test_what_another_relay_put_into_another_lane_is_not_begun_under_the_old_one(start: Start) -> None:
    first, second = await two(start)
    for relay in (first, second):
        await relay.follow(www=Order.LATEST)
    delivery = await first.tell()
    [found] = await first.claim()
    await second.follow(www=Order.ROUTE)
    assert await first.store.take(found, first.clock.now()) is None
    assert await first.claimed() == [delivery.id]


# -- what they know of each other ------------------------------------------------------------------------------------


async def test_all_count_what_all_have(start: Start) -> None:
    first, second = await two(start)
    await first.add("www")
    await second.add("www", "search")
    await until(lambda: first.counts() == second.counts() == {"www": (2, 0), "search": (1, 0)})


async def test_a_full_queue_is_full_for_all(start: Start) -> None:
    first, second = await two(start)
    await first.add("www")
    await until(lambda: second.counts() == {"www": (1, 0)})
    second.most["www"] = 1
    assert await second.state(await second.tell()) == State.FAILED


async def test_states_that_one_saves_the_other_hears(start: Start) -> None:
    first, second = await two(start)
    await first.store.save_states("route", {"www": {"state": "paused"}})
    await until(lambda: second.heard.saved == {("route", "www"): {"state": "paused"}})
    assert first.heard.saved == {}


async def test_what_another_has_decided_is_not_written_over_unseen(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    second.stop(monkeypatch)
    await first.store.save_states("route", {"www": {"state": "paused"}})
    await second.store.save_states("route", {"www": {"state": "healthy", "n": 1}}, over=False)
    assert await first.store.states("route") == {"www": {"state": "paused"}}
    await second.store.save_states("route", {"www": {"state": "healthy", "n": 2}})
    assert await first.store.states("route") == {"www": {"state": "healthy", "n": 2}}


class Overseer(Heard):
    """Has the health of routes told to who keeps it."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self.oversight = Oversight(relay.store, relay.clock, Notices(relay.clock))
        self.listening = Listening(relay.store, relay.clock, Notices(relay.clock))
        relay.shared_store.shared.follow(self)

    def states(self, kind: str, changed: Mapping[str, Mapping[str, Any]]) -> None:
        super().states(kind, changed)
        if kind == "route":
            self.oversight.adopt(changed)
        else:
            self.listening.adopt(changed)


async def test_a_pause_is_not_undone_by_what_is_heard_while_it_is_saved(start: Start) -> None:
    first, second = await two(start)
    here, there = Overseer(first).oversight, Overseer(second).oversight
    here.pause("www", "by hand")
    async with asyncio.TaskGroup() as group:
        saving = group.create_task(here.save())
        await asyncio.sleep(0)
        here.adopt({"www": RouteHealth(consecutive_failures=1).saved()})  # saved a moment before
    assert saving.result()
    assert here.paused("www")
    await until(lambda: there.paused("www"))


def overtaken(relay: Relay, by: Relay, here: Oversight, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `here` saves another relay saves over, and it hears so before it is done."""
    real = relay.store.save_states
    after = RouteHealth(since=by.clock.now()).saved()

    async def save_states(*values: Any, **how: Any) -> None:
        await real(*values, **how)
        await by.store.save_states("route", {"www": after})
        here.adopt({"www": after})

    monkeypatch.setattr(relay.store, "save_states", save_states)


@pytest.mark.parametrize("trouble", [None, Unavailable("it takes too long"), asyncio.CancelledError()])
async def test_what_was_saved_after_a_pause_counts_though_it_was_heard_before_that_was_done(
    start: Start, monkeypatch: pytest.MonkeyPatch, trouble: BaseException | None
) -> None:
    first, second = await two(start)
    here = Oversight(first.store, first.clock, Notices(first.clock))  # no beat tells it a second time
    here.pause("www", "by hand")

    async def cannot_say(kind: str) -> Mapping[str, Mapping[str, Any]]:
        assert trouble is not None
        raise trouble

    with monkeypatch.context() as late, suppress(asyncio.CancelledError):
        overtaken(first, second, here, late)
        if trouble is not None:
            late.setattr(first.store, "states", cannot_say)
        assert await here.save()
    assert here.paused("www") == (trouble is not None)
    assert await here.save()  # it asks again
    assert not here.paused("www")


async def test_what_is_heard_by_asking_is_obeyed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await two(start)
    await first.hears_nothing(monkeypatch)
    notices = Notices(first.clock)
    here, sent = Oversight(first.store, first.clock, notices), list[DeliveryId]()

    async def attempt(route: Route, delivery: Delivery) -> Result:
        sent.append(delivery.id)
        return delivered(delivery)

    here.pause("www", "it fails", PausedBy.FAILURES)
    async with Dispatcher(first.store, first.clock, attempt, here) as dispatcher:
        listening = Listening(first.store, first.clock, notices)
        peers = Peers(first.shared_store.shared, dispatcher, here, listening, notices)
        await dispatcher.follow(build(load(CONFIG), 1, first.clock.now()).routing.routes)
        [delivery] = await first.add("www")
        await dispatcher.obey()
        assert await first.state(delivery) == "held"
        here.pause("www", "by hand")
        with monkeypatch.context() as late:
            overtaken(first, second, here, late)
            assert await here.save()
        await until(lambda: sent == [delivery.id])
        await peers.close()


async def test_what_a_person_did_while_the_store_was_asked_is_not_undone_by_its_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    here = Oversight(first.store, first.clock, Notices(first.clock))
    await second.store.save_states("route", {"www": RouteHealth(consecutive_failures=1).saved()})
    real = first.store.states

    async def slow(kind: str) -> Mapping[str, Mapping[str, Any]]:
        found = await real(kind)
        here.pause("www", "by hand")
        with monkeypatch.context() as quick:
            quick.setattr(first.store, "states", real)
            assert await here.save()
        return found

    with monkeypatch.context() as late:
        late.setattr(first.store, "states", slow)
        assert await here.refresh(["www"]) == set()
    assert here.paused("www")
    assert await here.save()  # it asks again
    assert here.paused("www")


async def test_what_could_not_be_saved_over_what_another_saved_at_the_same_moment_is_saved_later(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    overseer = Overseer(first)
    built = build(load(CONFIG), 1, first.clock.now())
    with monkeypatch.context() as deaf:
        await first.hears_nothing(deaf)
        there = RouteHealth(last_success_at=second.clock.now())
        await second.store.save_states("route", {"www": there.saved()})
        heard_there = SourceHealth(second.clock.now(), last_event_at=second.clock.now())
        await second.store.save_states("source", {"any": heard_there.saved()})
        now = first.wait(5)
        [delivery] = await first.add("www")
        overseer.oversight.saw(built.routing.routes["www"], replace(delivered(delivery), at=now), Delivered())
        overseer.listening.heard(built.sources["any"], now)
        await overseer.oversight.save()
        await overseer.listening.save()
    await until(lambda: len(overseer.saved) == 2)
    await overseer.oversight.save()
    await overseer.listening.save()
    assert (await first.store.states("route"))["www"]["last_success_at"] == to_ms(now)
    assert (await first.store.states("source"))["any"]["last_event_at"] == to_ms(now)


async def test_what_was_read_before_it_was_written_over_is_not_told(start: Start) -> None:
    first, _ = await two(start)
    heard, member = Heard(), first.shared_store._member
    await first.store.save_states("route", {"www": {"state": "paused"}})
    saved = member.saved["route", "www"]
    member._tell(heard, (), (), False, {("route", "www"): ('{"state":"healthy"}', saved - 1)})
    assert heard.saved == {}


async def test_what_a_relay_sees_by_itself_does_not_undo_what_a_person_did_at_another(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(start)
    here, there = Overseer(first).oversight, Overseer(second).oversight
    [delivery] = await first.add("www")
    with monkeypatch.context() as deaf:
        await first.hears_nothing(deaf)
        there.pause("www", "by hand")
        assert await there.save()
        outcome = Retryable(Failure(Code.TIMEOUT, "no answer"))
        [route] = build(load(CONFIG), 1, first.clock.now()).routing.routes.values()
        for n in range(5):
            here.saw(route, again(delivery, first.clock.now(), n + 1), outcome)
        assert here.of("www").state is RouteState.UNHEALTHY
        assert await here.save()
    await until(lambda: here.paused("www"))
    assert there.paused("www")


async def test_an_errand_is_one_relays_until_it_is_done(start: Start) -> None:
    first, second = await two(start)
    hour = timedelta(hours=1)
    assert await first.shared_store.shared.errand("probe", hour)
    assert not await second.shared_store.shared.errand("probe", hour)
    assert await first.shared_store.shared.errand("probe", hour)
    await first.shared_store.shared.done("probe")
    assert await second.shared_store.shared.errand("probe", hour)


async def test_the_errand_of_a_dead_relay_is_free(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await two(start)
    assert await first.shared_store.shared.errand("probe", timedelta(hours=1))
    first.stop(monkeypatch)
    await until(lambda: bool(second.heard.gone))
    assert await second.shared_store.shared.errand("probe", timedelta(hours=1))


async def test_what_one_cancels_all_recall(start: Start) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    await second.store.cancel(delivery.id, second.clock.now())
    await until(lambda: first.heard.recalled == [delivery.id])
    with pytest.raises(WrongState):
        await first.store.cancel(delivery.id, first.clock.now())


async def test_routes_that_another_relay_sends_for_are_left_alone(start: Start) -> None:
    first, second = await two(start)
    await first.settle("www", "search")
    await until(
        lambda: any(
            set(each.routes) == {"search", "www"} for each in second.shared_store.shared.members() if not each.me
        )
    )
    [delivery, other] = await first.add("search", "elsewhere")
    await second.settle("www")
    assert await first.states(delivery, other) == ["pending", "held"]


async def test_what_a_relay_has_in_hand_of_a_route_that_it_no_longer_sends_for_is_sent_by_others(start: Start) -> None:
    first, second = await two(start)
    await second.settle("www")
    await until(lambda: any("www" in each.routes for each in first.shared_store.shared.members() if not each.me))
    oversight, answer = Oversight(first.store, first.clock, Notices(first.clock)), asyncio.Event()
    routes = build(load(CONFIG.replace(b"{name", b"{concurrency: 1, name")), 1, first.clock.now()).routing.routes
    sent: list[DeliveryId] = []

    async def attempt(route: Route, delivery: Delivery) -> Result:
        sent.append(delivery.id)
        await answer.wait()
        return delivered(delivery)

    async with Dispatcher(first.store, first.clock, attempt, oversight) as dispatcher:
        await dispatcher.follow(routes)
        born = []
        for _ in range(2):
            event = first.event()
            owed = first.owed(event)
            born.append(owed.delivery.id)
            dispatcher.offer(await first.store.add(event, [owed]))
        await until(lambda: sent == born[:1])
        assert await second.claimed() == []
        await dispatcher.follow({})
        assert await second.claimed() == born[1:]
        answer.set()


async def test_who_follows_hears_of_what_others_change(start: Start) -> None:
    first, second = await two(start)
    told: list[LogItem] = []
    await second.store.watch(lambda items, more: told.extend(items))
    await until(lambda: first.shared_store._member.followed)
    [delivery] = await first.add("www")
    await first.store.record(delivered(delivery))
    await until(lambda: [item.status for item in told][-1:] == ["delivered"])
    assert {item.id for item in told} == {first.store.ids.text("dlv_", delivery.id)}
    await second.store.watch(None)


# -- the database ----------------------------------------------------------------------------------------------------


async def test_a_database_that_goes_and_comes_back_needs_no_restart(start: Start, database: Database) -> None:
    relay = await start()
    [delivery] = await relay.add("www")
    database.cluster.stop(immediate=True)
    with pytest.raises(Unavailable, match="the database cannot be used"):
        await relay.add("www")
    with pytest.raises(Unavailable):
        await relay.claimed()
    assert relay.store.trouble() is not None
    database.cluster.start()
    await until(lambda: relay.store.trouble() is None)
    assert await relay.claimed() == [delivery.id]
    await relay.store.record(delivered(delivery))
    assert await relay.state(delivery) == "delivered"


_TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


async def test_a_name_that_leads_to_a_standby_for_a_while_needs_no_restart() -> None:
    with cluster() as primary, primary.database() as database:
        standby = primary.replica()
        name = primary.folder / ".s.PGSQL.1"

        def lead(to: Cluster) -> None:
            name.unlink(missing_ok=True)
            name.symlink_to(f".s.PGSQL.{to.port}")

        lead(primary)
        url = f"postgresql:///{database.name}?host={primary.folder}&port=1&user={ROLE}"
        clock = ManualClock()
        store = await open_url(url.removeprefix("postgresql:"), clock)
        try:
            relay = Relay(store, clock)
            [one] = await relay.add("www")
            standby.catch_up(primary)
            lead(standby)
            primary.psql(_TERMINATE.format(database.name))
            with pytest.raises(Unavailable, match="it is a standby"):
                await relay.add("www")
            with pytest.raises(Unavailable, match="it is a standby"):
                await relay.detail(one)
            lead(primary)  # nobody is cut off from the standby
            await until(lambda: store.trouble() is None)
            [other] = await relay.add("www")
            assert await relay.claimed() == [one.id, other.id]
        finally:
            await store.close()


async def test_a_session_that_takes_no_writes_is_not_kept(start: Start, database: Database) -> None:
    relay = await start("?target_session_attrs=any")
    database.cluster.psql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    database.cluster.psql(_TERMINATE.format(database.name))
    with pytest.raises(Unavailable, match=r"cannot execute .* \(25006\); it is a standby, or was set to"):
        await relay.add("www")
    database.cluster.psql(f"ALTER DATABASE {database.name} RESET default_transaction_read_only")
    await until(lambda: relay.store.trouble() is None)
    [delivery] = await relay.add("www")
    assert await relay.claimed() == [delivery.id]


async def test_what_was_committed_though_the_answer_was_lost_is_found_soon(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await start()
    commit = Ahead.commit

    def lost(self: Ahead) -> None:
        commit(self)
        raise psycopg.OperationalError("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(Ahead, "commit", lost)
        with pytest.raises(Unavailable, match="lost"):
            await relay.add("www")
    await until(lambda: relay.heard.routes == {"www"})
    assert len(await relay.claimed()) == 1


async def test_states_are_heard_of_also_where_the_clock_of_the_database_was_put_back(
    start: Start, database: Database
) -> None:
    first, second = await two(start)
    await first.store.save_states("route", {"www": {"n": 1}})
    await until(lambda: second.heard.saved == {("route", "www"): {"n": 1}})
    second.shared_store._member._looked_at += 3_600_000
    await first.store.save_states("route", {"search": {"n": 1}})
    await until(lambda: ("route", "search") in second.heard.saved)


async def test_a_connection_that_has_made_the_tables_waits_no_longer_for_others_than_any(database: Database) -> None:
    with connect(database.url, "test") as connection:
        schema.migrate(connection)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1min",)


_WAITING_LONG = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event = 'advisory' AND clock_timestamp() - query_start > interval '100 ms'
"""


async def test_who_makes_the_tables_may_take_its_time(database: Database) -> None:
    with connect(database.url, "first") as first:
        first.execute("SELECT pg_advisory_lock($1)", [schema.LOCK])
        url = f"{database.url}?options=-c%20statement_timeout%3D50"
        async with asyncio.TaskGroup() as group:
            with connect(url, "second") as second:
                waiting = group.create_task(asyncio.to_thread(schema.migrate, second))
                await until(lambda: database.sql(_WAITING_LONG) == [(1,)])
                first.execute("SELECT pg_advisory_unlock($1)", [schema.LOCK])
                await waiting


async def test_nobody_is_taken_for_dead_because_the_database_was_away(start: Start, database: Database) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    database.cluster.stop(immediate=True)
    await until(lambda: first.shared_store.shared.lapsed() and second.shared_store.shared.lapsed())
    database.cluster.start()
    await until(lambda: not (first.shared_store.shared.lapsed() or second.shared_store.shared.lapsed()))
    assert (first.heard.gone, second.heard.gone, first.heard.lost_times) == ([], [], 0)
    assert await first.claimed() == [delivery.id]


async def test_a_database_that_is_started_later_is_waited_for(database: Database) -> None:
    said: list[str] = []
    database.cluster.stop()
    async with asyncio.TaskGroup() as group:
        url = database.url.removeprefix("postgresql:")
        opening = group.create_task(open_url(url, SystemClock(), said.append))
        await until(lambda: bool(said))
        database.cluster.start()
    store = opening.result()
    assert store.counts() == {}
    assert len(said) == 1
    await store.close()


async def test_a_database_that_is_never_started_is_not_waited_for_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WAITING", 0.1)
    database.cluster.stop()
    try:
        with pytest.raises(Unavailable, match="cannot open the store"):
            await open_url(database.url.removeprefix("postgresql:"), SystemClock())
    finally:
        database.cluster.start()


async def test_a_server_that_takes_no_writes_is_waited_for_and_may_be_looked_at(
    start: Start, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    [delivery] = await (await start()).add("www")
    monkeypatch.setattr(opening, "WAITING", 0.1)
    database.cluster.psql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    url, said = database.url.removeprefix("postgresql:"), list[str]()
    with pytest.raises(Unavailable, match=r"cannot open the store .* session is read-only; it is a standby"):
        await open_url(url, SystemClock(), said.append)
    assert len(said) == 1
    reader = await open_reader(url)
    assert await reader.delivery(delivery.id) is not None
    await reader.close()


# -- clocks ----------------------------------------------------------------------------------------------------------


async def stepped(node: Relay, by: timedelta) -> None:
    """Its clock says that much more than the database's."""
    node.clock.step(datetime.now(UTC) + by - node.clock.now())


async def test_a_relay_whose_clock_alone_is_behind_moves_nothing_of_others(start: Start) -> None:
    first, second = await two(start)
    now, hour = datetime.now(UTC), timedelta(hours=1)
    await stepped(first, -hour)
    [delivery] = await second.add("www")
    await second.store.record(replace(again(delivery, now + 3 * hour), at=now))
    await until(lambda: "www" in first.counts())
    assert await first.store.set_back() == 0
    assert await second.store.next_due("www", now) == now.replace(microsecond=now.microsecond // 1000 * 1000) + 3 * hour


async def test_a_relay_whose_clock_was_ahead_alone_moves_what_it_has_set_and_nothing_else(start: Start) -> None:
    first, second = await two(start)
    now, hour = datetime.now(UTC), timedelta(hours=1)
    now = now.replace(microsecond=0)
    [ahead] = await first.add("ahead")
    [right] = await second.add("right")
    await first.store.record(replace(again(ahead, now + 3 * hour), at=now + hour))
    await second.store.record(replace(again(right, now + 3 * hour), at=now))
    await until(lambda: first.counts().keys() == {"ahead", "right"})
    await stepped(first, timedelta())
    assert await first.store.set_back() == 1
    assert await first.store.next_due("right", now) == now + 3 * hour
    due = await first.store.next_due("ahead", now)
    assert due is not None
    assert timedelta() <= due - (now + 2 * hour) <= datetime.now(UTC) - now


async def test_relays_whose_clocks_were_set_back_together_move_nothing_twice(start: Start) -> None:
    first, second = await two(start)
    now, hour = datetime.now(UTC).replace(microsecond=0), timedelta(hours=1)
    deliveries = [(await first.add("www"))[0] for _ in range(40)]
    for delivery in deliveries:
        await first.store.record(replace(again(delivery, now + 2 * hour), at=now + hour))
    await until(lambda: second.counts().get("www", (0, 0))[0] == 40)
    for node in (first, second):
        await stepped(node, timedelta())
    async with asyncio.TaskGroup() as group:
        moving = [group.create_task(node.store.set_back()) for node in (first, second)]
    assert sum(task.result() for task in moving) >= 40
    await stepped(second, timedelta())
    assert await second.store.set_back() == 0, "one that could not look meanwhile"
    due = await second.store.next_due("www", now)
    assert due is not None
    assert timedelta() <= due - (now + hour) <= datetime.now(UTC) - now


async def test_a_relay_knows_how_far_its_clock_is_ahead_of_the_databases(start: Start) -> None:
    first, _ = await two(start)
    first.clock.step(datetime.now(UTC) + timedelta(hours=1) - first.clock.now())
    await until(lambda: first.shared_store.shared.ahead() > timedelta(minutes=59))
