"""Several relays on one PostgreSQL: what each may have in hand, who takes over from whom, and what they learn of each
other. Real stores in one process, on a real server; whole daemons are in tests/torture."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.delivery import LogItem, Mark, State
from relay.ids import DeliveryId
from relay.lane import Order
from relay.store import Unavailable, WrongState
from relay.stores.postgresql import PostgresStore, bulk, joining, membership, open_url, opening
from relay.stores.postgresql.connection import Connection, connect
from relay.window import debounce
from tests.contract.desk import SECOND, Desk, again, delivered
from tests.fakes import ManualClock, until
from tests.postgres import Database

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

    def go_on(self) -> None:
        """As SIGCONT does."""
        self._stopped.set()


Start = Callable[[], Awaitable[Relay]]


@pytest.fixture
async def start(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts relays on one database."""
    monkeypatch.setattr(membership, "LEASE", 1.5)
    monkeypatch.setattr(membership, "BEAT", 0.1)
    monkeypatch.setattr(membership, "_MARGIN", 0.1)
    started: list[Relay] = []
    clock = ManualClock()

    async def another() -> Relay:
        store = await open_url(database.url.removeprefix("postgresql:"), clock)
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


async def test_what_a_relay_had_in_hand_that_stopped_in_the_middle_of_a_statement_is_taken_over(
    start: Start, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    first, second = await two(start)
    [delivery] = await first.add("www")
    first.stop(monkeypatch)
    half_sent = connect(database.url, "test")
    half_sent.pgconn.enter_pipeline_mode()
    half_sent.pgconn.send_query_params(b"BEGIN", None)
    number = str(first.shared_store._member.id).encode()
    half_sent.pgconn.send_query_params(b"SELECT 1 FROM process WHERE id = $1::bigint FOR KEY SHARE", [number])
    half_sent.pgconn.flush()  # and the rest never comes: the server waits for it
    try:
        await until(lambda: bool(second.heard.gone))
    finally:
        half_sent.close()
    assert await second.claimed() == [delivery.id]


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
