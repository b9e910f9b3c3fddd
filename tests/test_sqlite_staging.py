"""Ordinary batches of the SQLite store: written at once where they are ordinary, table by table where they are not, and
the same either way."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.delivery import HeldReason, Mark, Owed, Response
from relay.event import Change, Description
from relay.ids import Ids
from relay.lane import Order
from relay.store import Unavailable
from relay.stores._sql import tables
from relay.stores._sql.changes import Changed
from relay.stores.sqlite import SqliteStore, committer, open_store, schema, staging
from relay.stores.sqlite.connection import identity
from tests.contract.desk import MOST, Desk, again, delivered, expired, failed
from tests.contract.test_store import rejected
from tests.fakes import NOON, ManualClock

MARK = Mark(b"k" * 16, b"v" * 16, timedelta(minutes=10))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture(autouse=True)
def no_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the thread's own: these tests use its connection once it has answered."""
    monkeypatch.setattr(committer, "_CALM", 0.0)


@pytest.fixture
async def desk(path: Path) -> AsyncIterator[Desk]:
    """A store that knows the shapes of what the tests add, so that it may be ordinary."""
    clock = ManualClock()
    store = await open_store(path, clock=clock)

    async def reopen() -> SqliteStore:
        raise NotImplementedError

    desk = Desk(store, clock, reopen)
    await store.follow({})
    for routes in (("www",), ("www", "search"), ()):
        await desk.add(*routes)
    yield desk
    await store.close()


def thread_of(desk: Desk) -> committer.Committer:
    assert isinstance(desk.store, SqliteStore)
    thread = desk.store._writer._thread
    assert isinstance(thread, committer.Committer)
    return thread


def connection_of(desk: Desk) -> sqlite3.Connection:
    connection = thread_of(desk)._connection
    assert connection is not None
    return connection


@contextmanager
def said(desk: Desk) -> Iterator[list[str]]:
    """The statements of the writer's thread. For those in a trigger SQLite names the one that fired it again."""
    statements: list[str] = []
    last = ""

    def note(sql: str) -> None:
        nonlocal last
        if sql != last and threading.current_thread().name == "relay-writer":
            statements.append(sql.partition("(")[0])
        last = sql

    connection = connection_of(desk)
    connection.set_trace_callback(note)
    try:
        yield statements
    finally:
        connection.set_trace_callback(None)


AT_ONCE = ["INSERT INTO batch VALUES "]
ONE_BY_ONE = "BEGIN IMMEDIATE"


def peek(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def left(desk: Desk) -> int:
    """Rows that a batch left in the tables that it was laid out in."""
    connection = connection_of(desk)
    return sum(connection.execute(f"SELECT count(*) FROM temp.{table}").fetchone()[0] for table in staging._TABLES)


# -- what is ordinary ------------------------------------------------------------------------------------------------


async def test_events_and_results_of_a_batch_are_one_statement_of_the_thread_and_no_more(desk: Desk) -> None:
    (first,), (second,) = await desk.add("www"), await desk.add("www")
    with said(desk) as statements:
        await asyncio.gather(
            desk.add("www"),
            desk.add("www", "search"),
            desk.add(),
            desk.store.record(delivered(first)),
            desk.store.record(again(second, NOON)),
        )
    assert statements in (AT_ONCE, AT_ONCE * 2), "one commit, or a second for what came while it was under way"
    assert await desk.states(first, second) == ["delivered", "pending"]
    assert desk.counts() == {"www": (5, 0), "search": (2, 0)}
    assert left(desk) == 0


@pytest.mark.parametrize("number", [1, 2, 3, 5, 31, 63, 64, 65, 100, 200])
async def test_any_number_of_them_fits(desk: Desk, path: Path, number: int) -> None:
    with said(desk) as statements:
        added = await asyncio.gather(*(desk.add("www") for _ in range(number)))
        await asyncio.gather(*(desk.store.record(delivered(delivery)) for (delivery,) in added))
    assert ONE_BY_ONE not in statements
    assert peek(path, "SELECT count(*) FROM attempt") == [(number,)]
    assert peek(path, "SELECT count(*) FROM delivery WHERE state = 'delivered'") == [(number,)]
    assert desk.counts() == {"www": (2, 0), "search": (1, 0)}
    assert peek(path, "PRAGMA integrity_check") == [("ok",)]
    assert peek(path, "PRAGMA foreign_key_check") == []


async def test_one_event_may_go_to_more_routes_than_there_are_events(desk: Desk, path: Path) -> None:
    routes = [f"route{number}" for number in range(150)]
    await desk.add(*routes)
    with said(desk) as statements:
        await desk.add(*routes)
    assert ONE_BY_ONE not in statements
    assert peek(path, "SELECT count(*) FROM delivery WHERE route LIKE 'route%'") == [(300,)]


async def test_events_that_have_little_in_common_are_ordinary_too(desk: Desk, path: Path) -> None:
    def events() -> list[Any]:
        return [
            desk.event(description=Description(f"entry.{number}", (Change(f"model{number}", None, "publish", None),)))
            for number in range(20)
        ]

    for event in events():
        await desk.put(event, [desk.owe(event)])
    again = events()
    with said(desk) as statements:
        await asyncio.gather(*(desk.put(event, [desk.owe(event)]) for event in again))
    assert ONE_BY_ONE not in statements
    for event in again:
        stored = await desk.store.event(event.id)
        assert stored is not None
        assert stored.description["model"] == event.description.common.model
        assert stored.description["event"] == event.description.event


@pytest.mark.parametrize("large", ["nothing", "body", "extra", "answers"])
async def test_what_is_large_is_not_laid_out(desk: Desk, large: str) -> None:
    """What the tables once took of memory they keep."""
    many = 100
    added = await asyncio.gather(*(desk.add("www") for _ in range(many)))
    results = [delivered(delivery) for (delivery,) in added]
    event = desk.event(body=b"x" * (staging.MOST_BYTES if large == "body" else staging.MOST_BYTES // 2))
    if large == "extra":
        event = desk.event(description=replace(event.description, extra={"a": "x" * staging.MOST_BYTES}))
    elif large == "answers":
        answer = Response(200, (), b"x" * (staging.MOST_BYTES // 8), truncated=False)
        results = [
            replace(result, attempt=replace(result.attempt, response=answer)) for result in results if result.attempt
        ]
    with said(desk) as statements:
        await asyncio.gather(
            desk.store.add(event, [desk.owed(event)]), *(desk.store.record(result) for result in results)
        )
    assert (ONE_BY_ONE in statements) == (large != "nothing")
    connection = connection_of(desk)
    pages, size = (connection.execute(f"PRAGMA temp.{name}").fetchone()[0] for name in ("page_count", "page_size"))
    assert pages * size < 2 * staging.MOST_BYTES


@pytest.mark.parametrize("more", [0, 1])
async def test_no_more_is_laid_out_than_takes_a_moment(desk: Desk, path: Path, more: int) -> None:
    routes = [f"route{number}" for number in range(staging.MOST_ROWS - 1 + more)]
    await desk.add(*routes)
    with said(desk) as statements:
        await desk.add(*routes)
    assert (ONE_BY_ONE in statements) == bool(more)
    assert peek(path, "SELECT count(*) FROM delivery WHERE route LIKE 'route%'") == [(2 * len(routes),)]


async def test_what_goes_wrong_as_a_batch_is_laid_out_hurts_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    monkeypatch.setattr(staging, "_look", lambda *_: 1 / 0)
    with said(desk) as statements:
        await desk.add("www")
        await desk.add("www")
    assert ONE_BY_ONE in statements
    assert [type(each["exception"]) for each in told] == [ZeroDivisionError], "once, in the log"
    assert desk.store.trouble() is None
    monkeypatch.undo()
    with said(desk) as statements:
        await desk.add("www")
    assert statements == AT_ONCE


async def test_a_value_that_cannot_be_written_leaves_nothing_behind_for_the_next_batch(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    result = delivered(delivery)
    assert result.attempt is not None
    odd = replace(result, attempt=replace(result.attempt, duration_ms=1 << 70))
    outcomes = await asyncio.gather(desk.add("www"), desk.store.record(odd), return_exceptions=True)
    assert [isinstance(outcome, OverflowError) for outcome in outcomes] == [False, True]
    with said(desk) as statements:
        await asyncio.gather(desk.add("www"), desk.store.record(result))
    assert ONE_BY_ONE not in statements
    assert await desk.state(delivery) == "delivered"
    assert desk.counts()["www"] == (4, 0)
    assert left(desk) == 0


async def test_commands_and_refused_requests_beside_events_are_written_with_them(desk: Desk) -> None:
    (first,), (second,) = await desk.add("www"), await desk.add("www")
    refused = rejected(desk)
    desk.store.reject(refused)
    await asyncio.gather(desk.add("www"), desk.store.cancel(first.id, NOON), desk.store.record(delivered(second)))
    assert await desk.states(first, second) == ["cancelled", "delivered"]
    assert await desk.store.rejection(refused.id) is not None
    assert desk.counts()["www"] == (3, 0)


async def test_while_the_thread_looks_whether_it_can_write_again_nothing_is_laid_out(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out: list[bool] = []
    lay_out = staging.Staging.lay_out

    def noted(*args: Any) -> staging.Staged:
        laid_out.append(thread_of(desk)._trouble is None)
        return lay_out(*args)

    monkeypatch.setattr(staging.Staging, "lay_out", noted)
    connection_of(desk).execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(Unavailable, match="locked"):
                await desk.add("www")
        other.execute("ROLLBACK")
    await desk.add("www")  # which the thread sees by itself, or here
    await desk.add("www")
    assert desk.store.trouble() is None
    assert laid_out in ([True, True], [True, True, True])


async def test_who_follows_hears_of_what_was_written_at_once(desk: Desk) -> None:
    heard: list[Changed] = []
    (first,) = await desk.add("www")
    assert isinstance(desk.store, SqliteStore)
    await desk.store._writer.follow(heard.append)
    with said(desk) as statements:
        await asyncio.gather(desk.add("www"), desk.add(), desk.store.record(delivered(first)))
    assert ONE_BY_ONE not in statements
    await asyncio.sleep(0)
    items = [item for changed in heard for item in changed.items(desk.store.ids)]
    assert sorted((item.status, item.route) for item in items if item.route) == [
        ("delivered", "www"),
        ("pending", "www"),
    ]
    assert [item.status for item in items if item.route is None] == ["unmatched"]


@pytest.mark.parametrize("deliveries", [0, 3, 1000])
async def test_results_find_their_deliveries_by_their_ids_whatever_statistics_say(
    tmp_path: Path, deliveries: int
) -> None:
    with closing(sqlite3.connect(tmp_path / "statistics.db", isolation_level=None)) as connection:
        schema.create(connection)
        for statement in staging._SET_UP:
            connection.execute(statement)
        how = steps(connection)
        for number in range(deliveries):
            connection.execute(
                'INSERT INTO delivery (id, event_id, route, due, first_due, attempts, tries, "trigger", updated_at)'
                " VALUES (?, 1, 'www', 1, 1, 0, 0, 'initial', 1)",
                (number,),
            )
        connection.execute("ANALYZE main")
        assert steps(connection) == how
    assert "SeekRowid" in how
    assert not {"OpenAutoindex", "FilterAdd"} & set(how)


def steps(connection: sqlite3.Connection) -> list[str]:
    """What SQLite does to write a batch."""
    return [row[1] for row in connection.execute(f"EXPLAIN {staging._WRITE}", (0,) * 4)]


# -- what is not -----------------------------------------------------------------------------------------------------


async def test_what_is_repeated_is_known_and_the_rest_of_the_batch_is_stored(desk: Desk) -> None:
    await desk.tell(mark=MARK)
    with said(desk) as statements:
        event = desk.about()
        repeat, other = await asyncio.gather(desk.store.add(event, [desk.owed(event)], MARK), desk.add("www"))
    assert statements[:2] == [*AT_ONCE, ONE_BY_ONE], "it was tried"
    assert repeat.duplicate
    assert await desk.store.event(event.id) is None
    assert await desk.state(other[0]) == "pending"
    assert desk.counts() == {"www": (4, 0), "search": (1, 0)}
    with said(desk) as statements:
        await desk.add("www")
    assert statements == AT_ONCE
    assert left(desk) == 0


async def test_a_repeat_in_the_same_batch_is_known(desk: Desk) -> None:
    first, second = desk.about(), desk.about()
    outcomes = await asyncio.gather(
        desk.store.add(first, [desk.owed(first)], MARK), desk.store.add(second, [desk.owed(second)], MARK)
    )
    assert [outcome.duplicate for outcome in outcomes] == [False, True]
    assert [outcome.event for outcome in outcomes] == [first.id, first.id]


async def test_marks_are_forgotten_when_their_time_is_over(desk: Desk, path: Path) -> None:
    marks = [Mark(bytes([number]) * 16, b"v", timedelta(seconds=5)) for number in range(8)]
    for mark in marks[:4]:
        await desk.tell(mark=mark)
    desk.wait(6)
    with said(desk) as statements:
        for mark in marks[4:]:
            await desk.tell(mark=mark)
    assert ONE_BY_ONE not in statements
    assert {key for (key,) in peek(path, "SELECT key FROM seen")} == {mark.key for mark in marks[4:]}


async def test_marks_are_forgotten_also_where_no_batch_is_ordinary(desk: Desk, path: Path) -> None:
    desk.most["www"] = 0
    for number in range(8):
        desk.wait(6)
        with said(desk) as statements:
            await desk.tell(mark=Mark(bytes([number]) * 16, b"v", timedelta(seconds=5)))
        assert ONE_BY_ONE in statements
    assert peek(path, "SELECT key FROM seen") == [(bytes([7]) * 16,)]


async def test_a_result_whose_delivery_was_touched_meanwhile_is_recorded_by_itself(desk: Desk) -> None:
    (first,), (second,) = await desk.add("www"), await desk.add("www")
    await desk.store.settle(["search"], {"www": HeldReason.PAUSED})
    await desk.store.cancel(first.id, NOON)
    before = desk.counts()["www"]
    with said(desk) as statements:
        await asyncio.gather(desk.store.record(again(second, NOON)), desk.store.record(delivered(first)))
    assert statements.count(ONE_BY_ONE) == 1, "it was tried but once"
    assert await desk.states(first, second) == ["cancelled", "held"]
    assert desk.counts()["www"] == before
    assert len((await desk.detail(second)).attempts) == 1


async def test_a_result_is_recorded_once(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.store.record(failed(delivery))
    await desk.store.record(delivered(delivery))
    assert await desk.state(delivery) == "failed"
    assert desk.counts()["www"] == (2, 0)


@pytest.mark.parametrize("what", ["order", "paused", "entries", "large", "without an attempt", "new shape"])
async def test_what_needs_a_look_at_the_tables_is_written_table_by_table(desk: Desk, what: str) -> None:
    (delivery,) = await desk.add("www")
    event = desk.event()
    if what == "order":
        await desk.follow(www=Order.ENTRY)
        event = desk.about()
    elif what == "paused":
        await desk.pause()
    elif what == "entries":
        changes = tuple(Change("page", "published", "publish", entry) for entry in ("7", "8"))
        event = desk.event(description=Description("entry.publish", changes))
    elif what == "large":
        event = desk.event(body=b"x" * (staging.MOST_BYTES + 1))
    elif what == "new shape":
        event = desk.event(description=Description("entry.publish", (Change("other", None, "publish", "7"),)))
    with said(desk) as statements:
        if what == "without an attempt":
            await desk.store.record(expired(delivery))
        else:
            await desk.tell(event)
    assert ONE_BY_ONE in statements
    assert statements[:1] != AT_ONCE[:1] or what == "entries"


async def round_of(desk: Desk, drawn: Iterator[int]) -> None:
    """Events and results with all that rows may have in them."""
    desk.wait(1)
    events = [
        desk.event(),
        desk.event(b"\xff\x00", "www", Description("x", (Change("page", None, "publish", None),), NOON)),
        desk.event(b"", "blog", replace(Description("y", (Change("é", "s", "a", "é"),)), extra={"a": [1, None]})),
    ]
    owed = [desk.owe(event, route) for event in events for route in ("www", "search")]
    marks = [None, *(Mark(bytes([next(drawn) % 256]) * 16, b"v", timedelta(seconds=9)) for _ in events[1:])]
    await asyncio.gather(
        *(
            desk.store.add(event, [Owed(each, MOST) for each in owed if each.event is event], mark)
            for event, mark in zip(events, marks, strict=True)
        ),
        desk.add(),
    )
    await asyncio.gather(
        desk.store.record(delivered(owed[0])),
        desk.store.record(failed(owed[1])),
        desk.store.record(again(owed[2], NOON + timedelta(hours=1))),
        desk.store.record(again(owed[3], NOON)),
        desk.add("www"),
    )
    await desk.store.record(delivered(owed[3], 2))


def test_what_is_written_either_way_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batches, with all that rows may have in them, in two files."""

    async def write(path: Path, ordinary: bool) -> dict[str, list[Any]]:
        clock = ManualClock()
        store = await open_store(path, clock=clock)
        thread = store._writer._thread
        assert isinstance(thread, committer.Committer)
        if not ordinary:
            thread.prepare = lambda batch: None  # type: ignore[method-assign]

        async def reopen() -> SqliteStore:
            raise NotImplementedError

        desk = Desk(store, clock, reopen)
        drawn = iter(range(1 << 40, 1 << 41))
        monkeypatch.setattr(Ids, "draw", lambda *_: next(drawn))
        for known in (False, True):  # shapes
            with said(desk) as statements:
                await round_of(desk, drawn)
            assert (ONE_BY_ONE in statements) != (ordinary and known)
        counts = desk.counts()
        await store.close()
        written = {
            name: peek(path, f'SELECT * FROM "{name}" ORDER BY 1, 2') for name in tables.NAMES - {"meta", "known"}
        }
        return {**written, "counts": sorted(counts.items())}

    written = [asyncio.run(write(tmp_path / f"{ordinary}.db", ordinary)) for ordinary in (True, False)]
    assert len(written[0]["attempt"]) == 10
    assert written[0] == written[1]


# -- what the disk did wrong -----------------------------------------------------------------------------------------


class Dead:
    """A connection whose transactions fail, or say that they failed though they did not."""

    def __init__(self, connection: sqlite3.Connection, stored: bool) -> None:
        self._connection = connection
        self._stored = stored

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if sql == staging._WRITE:
            if self._stored:
                self._connection.execute(sql, values)
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, values)


@pytest.mark.parametrize("stored", [False, True])
async def test_after_a_failed_transaction_the_file_alone_is_believed(desk: Desk, stored: bool) -> None:
    before = desk.counts()["www"][0]
    thread_of(desk)._connection = Dead(connection_of(desk), stored)  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="disk I/O error"):
        await desk.add("www")
    assert desk.store.trouble() is not None
    await desk.add("search")
    assert desk.store.trouble() is None
    assert desk.counts() == {"www": (before + stored, 0), "search": (2, 0)}
    with said(desk) as statements:
        await desk.add("www")
    assert ONE_BY_ONE not in statements


async def test_somebody_elses_lock_is_waited_for_and_survived(desk: Desk, path: Path) -> None:
    connection = connection_of(desk)
    connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await desk.add("www")
        other.execute("ROLLBACK")
    assert connection_of(desk) is connection
    await desk.add("www")
    assert desk.store.trouble() is None
    assert desk.counts()["www"] == (3, 0)


@pytest.mark.parametrize("statement", ["staged_event", "staged_result", "batch"])
async def test_a_connection_that_lost_its_table_gets_no_wrong_rows(desk: Desk, statement: str) -> None:
    """Whatever is wrong with the table that rows are laid out in: nothing is stored by halves, and it heals."""
    await desk.add("www")
    kind = "VIEW" if statement == "batch" else "TABLE"
    connection_of(desk).execute(f"DROP {kind} temp.{statement}")
    outcomes = await asyncio.gather(desk.add("www"), return_exceptions=True)
    before = desk.counts()["www"][0]
    assert before == 3 + (not isinstance(outcomes[0], BaseException))
    await desk.add("www")
    assert desk.counts()["www"] == (before + 1, 0)
    assert desk.store.trouble() is None


async def test_nothing_is_promised_of_a_file_that_is_replaced_meanwhile(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out = staging.Staging.lay_out

    def replaced(*args: Any) -> staging.Staged:
        staged = lay_out(*args)
        path.rename(path.with_name("elsewhere.db"))
        return staged

    monkeypatch.setattr(staging.Staging, "lay_out", replaced)
    with pytest.raises(Unavailable, match="replaced or removed"):
        await desk.add("www")
    monkeypatch.undo()
    with pytest.raises(Unavailable, match="replaced or removed"):
        await desk.add("www")
    path.with_name("elsewhere.db").rename(path)
    await desk.add("www")
    assert desk.store.trouble() is None
    assert desk.counts()["www"] == (4, 0), "the file has what it was told before it went away"


@pytest.mark.parametrize("before", [0, 1])
async def test_nothing_is_promised_of_a_file_that_cannot_be_looked_at(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    answers = [identity(thread_of(desk)._path)] * before

    def look(_: Path) -> tuple[int, int] | None:
        if not answers:
            raise PermissionError("no way")
        return answers.pop()

    monkeypatch.setattr(committer, "identity", look)
    with pytest.raises(Unavailable, match="no way"):
        await desk.add("www")
    monkeypatch.undo()
    await desk.add("www")
    assert desk.counts()["www"] == (3 + before, 0), "what was written though nobody was told is counted"
