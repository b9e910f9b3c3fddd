"""What is true of the SQLite store alone: its file, its writer, its lock. Real files, real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.config import ConfigError, load
from relay.delivery import Delivery, Rejection
from relay.event import Description, Event
from relay.lane import Order
from relay.runtime import build
from relay.store import Locked, LogQuery, Unavailable, Unusable, WrongState
from relay.stores import lacking
from relay.stores import open_store as open_by_url
from relay.stores._sql import commands, committing, joining, lanes, settling, writer
from relay.stores._sql import reader as queries
from relay.stores._sql.changes import Changed
from relay.stores._sql.connection import Connection
from relay.stores._sql.deltas import Deltas, shift
from relay.stores.sqlite import (
    SqliteStore,
    affected_by_wal_reset_bug,
    bulk,
    changes,
    committer,
    open_reader,
    open_store,
    opening,
    reader,
    schema,
)
from relay.stores.sqlite.connection import BUSY_MS
from relay.stores.sqlite.tempo import Tempo
from tests.contract.desk import SECOND, Desk, again, attempt, delivered
from tests.fakes import NOON, ManualClock
from tests.harness import PATIENCE, write_config


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
async def desk(path: Path) -> AsyncIterator[Desk]:
    clock = ManualClock()
    stores: list[SqliteStore] = []

    async def reopen() -> SqliteStore:
        for store in stores:
            await store.close()
        stores.append(await open_store(path, clock=clock))
        return stores[-1]

    yield Desk(await reopen(), clock, reopen)
    await stores[-1].close()


def sqlite(desk: Desk) -> SqliteStore:
    assert isinstance(desk.store, SqliteStore)
    return desk.store


def thread_of(desk: Desk) -> committer.Committer:
    """The writer's thread."""
    thread = sqlite(desk)._writer._thread
    assert isinstance(thread, committer.Committer)
    return thread


async def on_writer(desk: Desk, sql: str) -> object:
    """Ask the writing connection."""
    row = await sqlite(desk)._writer.call(lambda connection, _: connection.execute(sql).fetchone())
    return row and row[0]


def peek(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("calm", "most"), [(float("inf"), 400), (0.0, 1500)])
async def test_the_log_is_emptied_earlier_where_little_comes(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch, calm: float, most: int
) -> None:
    monkeypatch.setattr(committer, "_CALM", calm)
    for _ in range(400):
        await desk.add("www")
    pages = path.with_name("relay.db-wal").stat().st_size // 4120
    assert most / 4 < pages <= most
    assert peek(path, "SELECT count(*) FROM event") == [(400,)]


@pytest.fixture
def always_tidying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each commit."""
    monkeypatch.setattr(committer, "_CALM", float("inf"))
    monkeypatch.setattr(committer, "_LEAST", 0)
    monkeypatch.setattr(committer, "_MOST", 1)


@pytest.mark.usefixtures("always_tidying")
async def test_a_checkpoint_keeps_nobody_waiting_for_the_commit_before_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    tidy = committer.Committer._tidy

    def slowly(self: committer.Committer) -> None:
        begun.set()
        go_on.wait(PATIENCE)
        tidy(self)

    monkeypatch.setattr(committer.Committer, "_tidy", slowly)
    async with asyncio.timeout(PATIENCE / 2), asyncio.TaskGroup() as group:
        try:
            await desk.add("www")  # answered although the thread is busy
            assert await asyncio.to_thread(begun.wait, PATIENCE / 4)
            assert desk.store.stalled(0.0) is None
            desk.clock.tick(31)
            assert desk.store.stalled() == "a checkpoint has not ended for 31 s"
            later = [group.create_task(desk.add("www")) for _ in range(3)]
            for _ in range(10):
                await asyncio.sleep(0)
            assert sqlite(desk).waiting == len(later)  # nobody touches the connection meanwhile
            ending = group.create_task(desk.store.close())
        finally:
            go_on.set()
    assert ending.done()


@pytest.mark.usefixtures("always_tidying")
@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), MemoryError(), RuntimeError()])
async def test_a_checkpoint_that_fails_is_made_later(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await on_writer(desk, "PRAGMA wal_autocheckpoint = 0")
    errors = [error]
    tidied = threading.Event()
    tidy = committer.Committer._tidy

    def failing(self: committer.Committer) -> None:
        if errors:
            raise errors.pop()
        tidy(self)
        tidied.set()

    monkeypatch.setattr(committer.Committer, "_tidy", failing)
    before = path.stat().st_size
    for _ in range(50):
        await desk.add("www")
    await on_writer(desk, "SELECT 1")
    assert not errors
    assert tidied.is_set()
    assert path.stat().st_size > before
    assert desk.store.trouble() is None


@pytest.mark.usefixtures("always_tidying")
async def test_refused_requests_are_written_though_their_time_came_during_a_checkpoint(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    late = asyncio.Event()
    waited = writer.Writer._reject_now

    def now(self: writer.Writer) -> None:
        waited(self)
        late.set()

    monkeypatch.setattr(committer.Committer, "_tidy", lambda _: go_on.wait(PATIENCE))
    monkeypatch.setattr(writer, "_REJECTIONS_DELAY", 0.0)
    monkeypatch.setattr(writer.Writer, "_reject_now", now)
    try:
        await desk.add("www")
        desk.store.reject(Rejection(desk.store.ids.draw(), "blog", NOON, 401, "no token", "192.0.2.1", ()))
        await late.wait()
    finally:
        go_on.set()
    async with asyncio.timeout(PATIENCE):
        while not peek(path, "SELECT 1 FROM rejection"):
            await asyncio.sleep(0)


@pytest.mark.usefixtures("always_tidying")
async def test_the_thread_makes_no_checkpoint_after_a_step_of_pruning(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes then would wait for both."""
    tidied: list[int] = []
    monkeypatch.setattr(committer.Committer, "_tidy", lambda _: tidied.append(1))
    await desk.add("www")
    await on_writer(desk, "SELECT 1")  # begins when the checkpoint before it has ended
    before = len(tidied)
    assert before
    await on_writer(desk, "UPDATE meta SET value = value")
    await on_writer(desk, "SELECT 1")
    assert len(tidied) == before
    await desk.add("www")
    await on_writer(desk, "SELECT 1")
    assert len(tidied) > before


# -- what follows others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bodies", "walks"), [(1.0, 1), (2.0, 1), (0.5, 2)])
async def test_where_bodies_go_earlier_pruning_walks_twice_and_twice_as_fast(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, bodies: float, walks: int
) -> None:
    paces: set[int] = set()

    async def step_ended(tempo: Tempo, size: int, worked: float, paced: bool) -> None:
        paces.add(tempo.walks)

    day = timedelta(days=1)
    (delivery,) = await desk.add("www")
    await desk.store.record(delivered(delivery))
    desk.wait(2 * day.total_seconds())
    monkeypatch.setattr(Tempo, "step_ended", step_ended)
    assert (await desk.store.prune(desk.clock.now(), day, bodies * day)).events == 1
    assert paces == {walks}


async def test_refused_requests_are_not_removed_at_the_pace_of_events(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be a thousand of them for each event."""
    paces: list[bool] = []

    async def noting(self: Tempo, size: int, worked: float, paced: bool) -> None:
        paces.append(paced)

    monkeypatch.setattr(Tempo, "step_ended", noting)
    desk.store.reject(Rejection(desk.store.ids.draw(), "blog", NOON, 401, "no token", "192.0.2.1", ()))
    await desk.add("www")
    desk.wait(100)
    await desk.store.prune(desk.clock.now(), SECOND, SECOND)
    assert False in paces


async def test_a_lull_is_when_results_are_written_and_nothing_waits(desk: Desk) -> None:
    first, second = (await desk.add("www"))[0], (await desk.add("www"))[0]
    begun, go_on = threading.Event(), threading.Event()

    def slowly(connection: Connection, deltas: Deltas) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    async def slow_together() -> None:
        """A result, and what takes long in the same commit."""
        await asyncio.gather(desk.store.record(delivered(first)), sqlite(desk)._writer.call(slowly))

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        lull = group.create_task(sqlite(desk)._writer.lull(PATIENCE * 2))
        try:
            await desk.add("www")  # an event, whose result is still to come
            slow = group.create_task(slow_together())
            assert await asyncio.to_thread(begun.wait, PATIENCE / 4)
            later = group.create_task(desk.add("www"))  # waits as the result is written
            await asyncio.sleep(0)
        finally:
            go_on.set()
        await slow
        await later
        assert not lull.done()
        await desk.store.record(delivered(second))
        await lull


async def test_a_lull_that_does_not_come_is_waited_for_no_longer_than_wanted(desk: Desk) -> None:
    await desk.add("www")
    await sqlite(desk)._writer.lull(0.001)
    await sqlite(desk)._writer.lull(0.0)


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
        ("secure_delete", 1),
        ("busy_timeout", 5000),
        ("temp_store", 2),
        ("page_size", 4096),
        ("auto_vacuum", 2),
        ("wal_autocheckpoint", 1000),
        ("journal_size_limit", 64 << 20),
        ("application_id", schema.APPLICATION_ID),
        ("user_version", schema.VERSION),
        ("integrity_check", "ok"),
        ("foreign_key_check", None),
    ],
)
async def test_the_writer_is_set_up_for_durability(desk: Desk, pragma: str, value: object) -> None:
    await desk.add("www")
    assert await on_writer(desk, f"PRAGMA {pragma}") == value


async def test_readers_cannot_write(desk: Desk) -> None:
    for name in ("_claims", "_logs"):
        connection = getattr(sqlite(desk), name)._connection
        for pragma, value in (("query_only", 1), ("wal_autocheckpoint", 0), ("mmap_size", 0)):
            found = await connection.execute_fetchall(f"PRAGMA {pragma}")
            assert (found[0][0] if found else 0) == value
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await connection.execute_fetchall("DELETE FROM meta")


def begun(path: Path) -> bytes:
    """What SQLite draws anew each time that it begins the log from its start."""
    return path.with_name(f"{path.name}-wal").read_bytes()[16:24]


async def test_what_a_disk_that_failed_may_not_have_taken_is_in_nobodys_way_after_a_restart(
    desk: Desk, path: Path
) -> None:
    await desk.add("www")
    thread = thread_of(desk)
    assert thread._connection is not None
    before = begun(path)
    thread._connection = DeadCommit(thread._connection, stored=True)  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="disk I/O error"):
        await desk.add("search")
    await desk.reopen()
    await desk.add("www")
    assert begun(path) != before
    assert desk.counts() == {"www": (2, 0), "search": (1, 0)}


async def test_who_reads_the_log_does_not_keep_relay_from_starting(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_READERS_MS", 1)
    await desk.add("www")
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        somebody.execute("BEGIN")
        assert somebody.execute("SELECT count(*) FROM event").fetchone() == (1,)
        await desk.reopen()
        await desk.add("www")
        assert somebody.execute("SELECT count(*) FROM event").fetchone() == (1,)
    assert await on_writer(desk, "PRAGMA busy_timeout") == BUSY_MS
    assert desk.counts() == {"www": (2, 0)}


@pytest.mark.parametrize(("error", "starts"), [("FULL", True), ("IOERR", False)])
def test_a_full_disk_does_not_keep_relay_from_starting_one_that_fails_does(error: str, starts: bool) -> None:
    class Disk:
        def execute(self, sql: str) -> sqlite3.Cursor:
            if "checkpoint" in sql:
                told = sqlite3.OperationalError("no")
                told.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{error}")
                raise told
            return memory.execute(sql)

    with closing(sqlite3.connect(":memory:")) as memory:
        if starts:
            opening._begin_log_anew(Disk())  # type: ignore[arg-type]
        else:
            with pytest.raises(sqlite3.OperationalError):
                opening._begin_log_anew(Disk())  # type: ignore[arg-type]


async def test_refused_requests_are_synced_like_all_else(desk: Desk) -> None:
    """Of a commit that is not, the disk may fail a part that nobody writes again: later ones lie behind it."""
    store = sqlite(desk)
    said: list[str] = []
    await store._writer.call(lambda connection, _: connection.set_trace_callback(said.append))  # type: ignore[attr-defined]
    store.reject(Rejection(store.ids.draw(), "blog", NOON, 401, "no", "192.0.2.1", ()))
    before = store.commits
    store._writer._kick()
    async with asyncio.timeout(PATIENCE):
        while store.commits == before:
            await asyncio.sleep(0)
    assert len((await store.search(LogQuery(status=("rejected",)))).items) == 1
    assert any("rejection" in statement for statement in said)
    assert not any("synchronous" in statement for statement in said)
    assert await on_writer(desk, "PRAGMA synchronous") == 2


# -- group commit ----------------------------------------------------------------------------------------------------


async def test_what_arrives_together_is_committed_together(desk: Desk) -> None:
    store = sqlite(desk)
    before = store.commits
    await asyncio.gather(*(desk.add("www") for _ in range(64)))
    assert store.commits == before + 1


async def test_what_arrives_while_a_commit_runs_shares_the_next(desk: Desk) -> None:
    store = sqlite(desk)
    before = store.commits

    async def one_after_another() -> None:
        for _ in range(10):
            (delivery,) = await desk.add("www")
            await store.record(delivered(delivery))

    await asyncio.gather(*(one_after_another() for _ in range(64)))
    assert store.commits - before <= 40, "of 1,280 writes"
    assert desk.counts() == {}


async def test_a_result_and_an_event_share_a_commit(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    before = sqlite(desk).commits
    await asyncio.gather(desk.store.record(delivered(delivery)), desk.add("www"), desk.store.settle(["www"], {}))
    assert sqlite(desk).commits - before <= 3, "settle asks twice"


async def test_a_caller_who_gives_up_harms_no_other(desk: Desk) -> None:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(desk.add("www"))
        second = group.create_task(desk.add("www"))
        await asyncio.sleep(0)
        first.cancel()
    assert len(second.result()) == 1
    assert desk.counts() == {"www": (2, 0)}, "it was on its way"


async def test_too_much_waiting_is_refused_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MOST_JOBS", 10)
    results = await asyncio.gather(*(desk.add("www") for _ in range(15)), return_exceptions=True)
    assert [isinstance(result, Unavailable) for result in results] == [False] * 10 + [True] * 5
    assert desk.counts() == {"www": (10, 0)}


async def test_too_many_bytes_waiting_are_refused_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MOST_BYTES", 1000)
    results = await asyncio.gather(*(desk.add("www", body=b"x" * 600) for _ in range(4)), return_exceptions=True)
    assert [isinstance(result, Unavailable) for result in results] == [False, False, True, True]
    await desk.add("www", body=b"x" * 600)


# -- what one write did wrong ----------------------------------------------------------------------------------------


def bad_event(desk: Desk, how: str) -> Event:
    event = desk.event()
    values = {
        "text": Description("half a \ud800 pair"),
        "type": Description(b"bytes"),  # type: ignore[arg-type]
        "object": Description(object()),  # type: ignore[arg-type]
        "number": Description(1 << 70),  # type: ignore[arg-type]
    }
    return Event(
        event.id, event.source, event.type, event.received_at, values[how], event.headers, event.body, event.sha256
    )


@pytest.mark.parametrize("how", ["text", "type", "object", "number"])
async def test_only_the_write_that_cannot_be_stored_fails(desk: Desk, how: str) -> None:
    (old,), (held,) = await desk.add("old"), await desk.add("held")
    await desk.store.settle(["old", "www"], {})
    bad = bad_event(desk, how)
    *_, outcome, retried = await asyncio.gather(
        desk.add("www"),
        desk.store.record(delivered(old)),
        desk.store.record(again(held, NOON)),
        desk.add("www"),
        desk.put(bad, [desk.owe(bad)]),
        desk.store.retry(held.id, NOON),
        return_exceptions=True,
    )
    assert isinstance(outcome, Exception)
    assert not isinstance(outcome, Unavailable)
    assert isinstance(retried, WrongState)
    assert desk.counts() == {"www": (2, 0), "held": (0, 1)}
    assert await desk.state(old) == "delivered"
    assert desk.store.trouble() is None


async def test_an_id_used_twice_fails_alone(desk: Desk) -> None:
    (first,) = await desk.add("www")
    event = desk.event()
    copy = Delivery(first.id, "www", event, NOON, NOON)
    outcomes = await asyncio.gather(desk.add("www"), desk.put(event, [copy]), return_exceptions=True)
    assert isinstance(outcomes[1], sqlite3.IntegrityError)
    assert await desk.store.event(event.id) is None
    assert desk.counts() == {"www": (2, 0)}


async def test_a_command_that_fails_undoes_only_itself(desk: Desk) -> None:
    def half(connection: Connection, deltas: Deltas) -> None:
        connection.execute("DELETE FROM delivery")
        shift(deltas, "www", -1, 0)
        raise ZeroDivisionError

    results = await asyncio.gather(desk.add("www"), sqlite(desk)._writer.call(half), return_exceptions=True)
    assert isinstance(results[1], ZeroDivisionError)
    assert desk.counts() == {"www": (1, 0)}
    assert len(await desk.claimed()) == 1


# -- what the disk did wrong -----------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_everything_and_heals(desk: Desk, path: Path) -> None:
    (delivery,) = await desk.add("www")
    pages = await on_writer(desk, "PRAGMA page_count")
    await on_writer(desk, f"PRAGMA max_page_count = {pages}")
    big = b"x" * 100_000

    async def record() -> None:  # begun after `add`: both are to be in one transaction
        await desk.store.record(again(delivery, NOON))

    results = await asyncio.gather(desk.add("www", body=big), record(), return_exceptions=True)
    assert all(isinstance(result, Unavailable) and "full" in str(result) for result in results)
    assert "SQLITE_FULL" in (desk.store.trouble() or "")
    assert desk.counts() == {"www": (1, 0)}
    assert len(await desk.claimed()) == 1, "reading goes on"
    thread_of(desk)._open().execute("PRAGMA max_page_count = 1000000")
    await desk.store.record(again(delivery, NOON))
    assert desk.store.trouble() is None
    await desk.add("www", body=big)
    assert desk.counts() == {"www": (2, 0)}
    assert peek(path, "PRAGMA integrity_check") == [("ok",)]


async def test_trouble_ends_by_itself_when_the_disk_is_well(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "_PROBE_EVERY", 0.01)
    connection = thread_of(desk)._connection
    assert connection is not None
    connection.execute("PRAGMA query_only = 1")
    with pytest.raises(Unavailable, match="readonly"):
        await desk.add("www")
    while desk.store.trouble() is not None:
        await asyncio.sleep(0.001)
    await desk.add("www")
    assert desk.counts() == {"www": (1, 0)}


class DeadCommit:
    """A connection whose COMMIT fails, or says that it failed though it did not."""

    def __init__(self, connection: sqlite3.Connection, stored: bool) -> None:
        self._connection = connection
        self._stored = stored

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            if self._stored:
                self._connection.execute(sql)
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, values)


@pytest.mark.parametrize("stored", [False, True])
async def test_after_a_failed_commit_the_file_alone_is_believed(desk: Desk, stored: bool) -> None:
    thread = thread_of(desk)
    assert thread._connection is not None
    thread._connection = DeadCommit(thread._connection, stored)  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="disk I/O error"):
        await desk.add("www")
    assert desk.store.trouble() is not None
    await desk.add("search")
    assert desk.store.trouble() is None
    assert desk.counts() == ({"www": (1, 0)} if stored else {}) | {"search": (1, 0)}
    assert await on_writer(desk, "PRAGMA synchronous") == 2


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_file_replaced_under_us_takes_nothing_more(desk: Desk, path: Path, how: str) -> None:
    (delivery,) = await desk.add("www")
    other = path.with_name("moved.db")
    path.rename(other)
    if how == "replaced":
        path.write_bytes(b"somebody else's")
    for write in (desk.add("www"), desk.store.record(delivered(delivery)), desk.store.retry(delivery.id, NOON)):
        with pytest.raises(Unavailable, match="replaced or removed"):
            await write
    assert "replaced" in (desk.store.trouble() or "")
    if how == "replaced":
        assert path.read_bytes() == b"somebody else's"
    other.replace(path)
    await desk.store.record(delivered(delivery))
    desk.wait(2)
    assert desk.store.trouble() is None


async def test_a_replaced_file_is_noticed_without_a_write(desk: Desk, path: Path) -> None:
    assert desk.store.trouble() is None
    path.rename(path.with_name("moved.db"))
    desk.wait(1)
    assert "replaced" in (desk.store.trouble() or "")


async def test_below_the_low_water_mark_events_are_refused_and_results_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (delivery,) = await desk.add("www")
    found = os.statvfs(desk.store.path)  # type: ignore[attr-defined]
    full = os.statvfs_result([*found[:4], 100, *found[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    desk.wait(1)
    with pytest.raises(Unavailable, match="no space"):
        await desk.add("www")
    await desk.store.record(delivered(delivery))
    assert desk.store.trouble() is None, "it can write: what was taken in is carried to its end"
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    desk.wait(1)
    await desk.add("www")
    assert desk.store.trouble() is None


async def test_status_tells_what_is_left_on_the_disk(desk: Desk) -> None:
    space = (await desk.store.status()).space
    assert space is not None
    assert 0 < space.free <= space.size


async def test_a_disk_that_fills_faster_than_a_second_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.add("www")
    found = os.statvfs(desk.store.path)  # type: ignore[attr-defined]
    full = os.statvfs_result([*found[:4], 100, *found[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(Unavailable, match="no space"):
        [await desk.add("www", body=b"x" * 100_000) for _ in range(100)]  # the clock stands still


async def test_a_query_that_takes_too_long_is_cut_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "QUERY_SECONDS", 0.01)
    logs = sqlite(desk)._logs
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(Unavailable, match="longer than"):
        await logs.ask(endless)
    monkeypatch.setattr(queries, "QUERY_SECONDS", 5.0)
    assert (await logs.search(LogQuery())).items == []


# -- the queue -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (reader.CLAIM, ("www", 0, "[]", 10, 1 << 20, 0)),
        (queries._NEXT_DUE, ("www", 0, 0)),
        (queries._COLLECTED, (1, True, 9)),
        (queries._WINDOWS, ()),
        (queries._MERGED_INTO_WINDOWS, ()),
        (queries._PENDING_OF, ("www", 0, 0, 5, 5, 9)),
        (queries._HELD_OF, ("www", "paused", 5, 9)),
        (lanes._HAS_UNFINISHED, ("www", "")),
        (lanes._RELEASE, ("www", "")),
        (lanes._ADMIT, ("www", "", 5)),
        (lanes._WAITING, ("www", "")),
        (lanes._NEWER, ("www", "", 5, "draft", "publish")),
        (lanes._UNFINISHED_OF, ("[1, 2]", "www")),
        (joining._CARRIER, ("www", "")),
        (joining._DELIVERIES_OF, (1,)),
        (commands._REMOVED, ("www", 500)),
        (commands._STILL_TO_BE_SENT, (1,)),
        (settling._PENDING, ()),
        (settling._HELD, ()),
        (settling._HOLD, ("paused", 0, "www", 5, 500)),
        (settling._RENAME, ("paused", "www", "removed", 5, 500)),
        (settling._RELEASE, (0, "www", "paused", 5, 500)),
        (queries._HELD_BY_ROUTE, ()),
        (queries._PENDING_NUMBER, ("www",)),
        (queries._FIRST_DUE, ()),
        (queries._OLDEST_PENDING, ()),
        ("SELECT route, count(*) FROM delivery WHERE state = 'held' GROUP BY route", ()),
        ("SELECT id FROM delivery WHERE state = 'pending' AND route = ? LIMIT 9", ("www",)),
    ],
)
async def test_no_query_of_the_queue_walks_the_deliveries(desk: Desk, sql: str, values: tuple[object, ...]) -> None:
    plan = [row[-1] for row in await sqlite(desk)._claims.ask("EXPLAIN QUERY PLAN " + sql, values)]
    steps = [step for step in plan if step.startswith(("SCAN delivery", "SEARCH delivery", "SCAN d ", "SEARCH d "))]
    assert steps
    for step in steps:
        assert "INDEX delivery_" in step or "USING INTEGER PRIMARY KEY" in step, plan
    assert not any("TEMP B-TREE" in step for step in plan[:4] if sql == queries._NEXT_DUE), plan


@pytest.mark.parametrize("statement", [lanes._RELEASE, lanes._ADMIT])
async def test_a_lane_goes_on_without_a_look_at_those_that_wait(desk: Desk, statement: str) -> None:
    values = ("www", "", 5)[: 2 + (statement is lanes._ADMIT)]
    plan = [row[-1] for row in await sqlite(desk)._claims.ask("EXPLAIN QUERY PLAN " + statement, values)]
    looks = [step for step in plan if "delivery_lane" in step]
    assert looks
    assert all(step.endswith("(route=? AND lane=? AND blocked=?)") for step in looks)


async def test_an_order_that_was_half_changed_when_relay_ended_is_changed_whole_whatever_comes_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "AT_ONCE", 2)
    await desk.follow(www=Order.ROUTE)
    told = [await desk.tell() for _ in range(5)]
    change = lanes.Relane.__call__

    def once(self: lanes.Relane, connection: Connection, deltas: Deltas) -> None:
        change(self, connection, deltas)
        monkeypatch.setattr(lanes.Relane, "__call__", dies)

    def dies(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lanes.Relane, "__call__", once)
    with pytest.raises(ZeroDivisionError):
        await desk.follow(www=Order.NONE)
    monkeypatch.setattr(lanes.Relane, "__call__", change)
    await desk.reopen()
    await desk.follow(www=Order.ROUTE)
    for head in told:
        assert await desk.claimed() == [head.id]
        await desk.send(head)


async def test_what_was_forgotten_can_be_read_from_no_file(desk: Desk, path: Path) -> None:
    secrets = [b"small secret", b"large secret " * 5000]
    told = []
    for body in (*secrets, b"kept secret"):
        event = replace(desk.about(body=body), headers=(("X-Odd", f"header of {body[:12].decode()}"),))
        told.append(await desk.tell(event))
        await desk.store.cancel(told[-1].id, NOON)
        for _ in range(3):  # rows that grow are moved about
            await desk.store.cancel((await desk.replay(event)).id, NOON)
    for delivery in told[:2]:
        await desk.store.forget(delivery.event.id)
    left = b"".join(each.read_bytes() for each in path.parent.iterdir())
    for word, there in ((b"kept secret", True), (b"of kept secret", True), (b"small secret", False), (b"large", False)):
        assert (word in left) is there
    assert (await on_writer(desk, "PRAGMA busy_timeout"), await on_writer(desk, "PRAGMA secure_delete")) == (5000, 1)


async def test_a_body_that_rotted_is_never_handed_out_as_intact(desk: Desk, path: Path) -> None:
    secret = b"the very body " * 10
    (rotten,), (sound,) = await desk.add("www", body=secret), await desk.add("www", body=b"{}")
    await desk.store.close()
    data = path.read_bytes()
    assert secret in data
    path.write_bytes(data.replace(secret, b"The" + secret[3:]))
    await desk.reopen()
    found = await desk.store.claim("www", None, NOON, 10, ())
    assert [(each.id, each.event.sha256) for each in found] == [(rotten.id, b""), (sound.id, sound.event.sha256)]


async def test_closing_leaves_one_file_with_everything_in_it(desk: Desk, path: Path) -> None:
    await desk.add("www")
    await desk.store.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["relay.db", "relay.db.lock"]


# -- opening ---------------------------------------------------------------------------------------------------------


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE shop (id)")


def foreign_in_wal_mode(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE shop (id)")


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to be taken for one" * 100)


def short_garbage(path: Path) -> None:
    path.write_bytes(b"x")


def newer(path: Path) -> None:
    opening._create(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


def without_a_table(path: Path) -> None:
    opening._create(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE attempt")


def without_a_number(path: Path) -> None:
    opening._create(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta")


def truncated(path: Path) -> None:
    opening._create(path)
    path.write_bytes(path.read_bytes()[: 4096 * 3])


def overwritten(path: Path) -> None:
    opening._create(path)
    path.write_bytes(path.read_bytes()[:100] + b"\x17" * 8092)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (foreign, "not one of relay's"),
        (foreign_in_wal_mode, "not one of relay's"),
        (garbage, "not a SQLite database"),
        (short_garbage, "not a SQLite database"),
        (newer, "newer relay"),
        (without_a_table, "tables are missing \\(attempt\\): restore a backup"),
        (without_a_number, "number is missing"),
        (truncated, "damaged"),
        (overwritten, "damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_file_that_cannot_be_used_is_refused_and_left_alone(path: Path, spoil: object, words: str) -> None:
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(Unusable, match=words) as caught:
        await open_store(path, clock=SystemClock())
    assert str(path) in str(caught.value)
    with pytest.raises(Unusable, match=words):
        await open_reader(path)
    assert path.read_bytes() == before


async def test_a_new_file_is_its_owners_alone(desk: Desk, path: Path) -> None:
    await desk.add("www")
    files = [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3


async def test_only_a_file_with_nothing_in_it_is_made_anew(path: Path) -> None:
    path.touch(mode=0o600)
    store = await open_store(path, clock=SystemClock())
    await store.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert peek(path, "PRAGMA user_version") == [(schema.VERSION,)]


async def test_a_crash_while_a_store_was_made_leaves_no_trace(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + ".new" + suffix).write_bytes(b"half made")
    store = await open_store(path, clock=SystemClock())
    await store.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["relay.db", "relay.db.lock"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:{}/none/relay.db", "directory .*none does not exist: create it"),
        ("sqlite:{}", "is a directory"),
        ("sqlite:", "needs a file"),
        ("sqlite::memory:", "needs a file"),
        ("mysql://localhost/relay", "no store is called 'mysql': there is postgresql, sqlite"),
        ("relay.db", "no store is called"),
    ],
)
async def test_a_url_that_names_no_store_is_refused(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        await open_by_url(url.format(tmp_path), SystemClock())


async def test_a_sqlite_that_is_too_old_is_refused_before_any_file_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    words = re.escape(f"sqlite: needs SQLite 3.37 or later, and {sys.executable} has 3.34.1")
    url = f"sqlite:{tmp_path}/relay.db"
    with pytest.raises(Unusable, match=words):
        await open_by_url(url, SystemClock())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=words):
        build(load(write_config(tmp_path, f'store: {{url: "{url}"}}'), environ={}), 1, NOON)
    assert lacking("postgresql://nobody@127.0.0.1/relay") is None


async def test_odd_names_are_names(tmp_path: Path) -> None:
    store = await open_by_url(f"sqlite:{tmp_path}/a b?mode=ro#%41.db", SystemClock())
    await store.close()
    assert (tmp_path / "a b?mode=ro#%41.db").exists()


# -- versions --------------------------------------------------------------------------------------------------------

NEXT = (*schema.MIGRATIONS, ("ALTER TABLE event ADD COLUMN mood TEXT", "UPDATE event SET mood = 'glad'"))


async def test_an_older_file_is_brought_up_to_date(desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.add("www")
    await desk.store.close()
    monkeypatch.setattr(schema, "MIGRATIONS", NEXT)
    monkeypatch.setattr(schema, "VERSION", len(NEXT))
    with pytest.raises(Unusable, match="older relay"):
        await open_reader(path)
    await desk.reopen()
    assert await on_writer(desk, "PRAGMA user_version") == len(NEXT)
    assert await on_writer(desk, "SELECT mood FROM event") == "glad"
    assert len(await desk.claimed()) == 1
    await desk.reopen()


async def test_a_migration_that_fails_changes_nothing(desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.add("www")
    await desk.store.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*NEXT, (NEXT[-1][0], "DELETE FROM event", "nonsense")))
    monkeypatch.setattr(schema, "VERSION", len(NEXT) + 1)
    with pytest.raises(Unusable, match="duplicate column"):
        await desk.reopen()
    assert peek(path, "PRAGMA user_version") == [(len(NEXT),)], "the step before it stands"
    assert peek(path, "SELECT count(*) FROM event") == [(1,)]


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.45.0", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.52", False),
        ("4.0.0", False),
    ],
)
def test_versions_with_the_wal_reset_bug_are_known(version: str, affected: bool) -> None:
    assert affected_by_wal_reset_bug(version) is affected


# -- one relay per file ----------------------------------------------------------------------------------------------

HOLDER = """
import asyncio, sys
from pathlib import Path
from relay.clock import SystemClock
from relay.stores.sqlite import open_store
async def main():
    store = await open_store(Path(sys.argv[1]), clock=SystemClock())
    print("open", flush=True)
    sys.stdin.read()
    await store.close()
asyncio.run(main())
"""


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process
        process.kill()


async def test_a_second_relay_is_told_who_has_the_file(path: Path) -> None:
    told: list[str] = []
    with another_process(path) as process:
        with pytest.raises(Locked, match=f"in use by another relay \\(pid {process.pid}, since 20"):
            await open_store(path, clock=SystemClock(), wait_for_lock=0.15, on_lock_wait=told.append)
        assert len(told) == 1
        assert str(process.pid) in told[0]
        link = path.with_name("link.db")
        link.symlink_to(path)
        with pytest.raises(Locked):
            await open_store(link, clock=SystemClock(), wait_for_lock=0)


async def test_a_waiting_relay_takes_over_when_the_other_leaves(path: Path) -> None:
    with another_process(path) as process:
        assert process.stdin is not None
        store = await open_store(path, clock=SystemClock(), on_lock_wait=lambda _: process.stdin.close())  # type: ignore[union-attr]
        assert path.with_name("relay.db.lock").read_text().startswith(f"{os.getpid()}\n")
        await store.close()


async def test_a_killed_relay_leaves_no_lock_behind(path: Path) -> None:
    with another_process(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = await open_store(path, clock=SystemClock(), wait_for_lock=0)
        await store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
async def test_a_lock_that_root_makes_belongs_to_whom_the_file_belongs_to(path: Path) -> None:
    await (await open_store(path, clock=SystemClock())).close()
    lock = path.with_name("relay.db.lock")
    lock.unlink()
    os.chown(path, 4321, 8765)
    await (await open_store(path, clock=SystemClock())).close()
    assert (lock.stat().st_uid, lock.stat().st_gid) == (4321, 8765)
    os.chown(lock, 1234, 5678)  # one that was there stays as it is
    await (await open_store(path, clock=SystemClock())).close()
    assert (lock.stat().st_uid, lock.stat().st_gid) == (1234, 5678)


@pytest.mark.parametrize(("made", "kept"), [(None, 0o600), (0o644, 0o600), (0o664, 0o660), (0o660, 0o660)])
async def test_who_may_not_write_the_lock_cannot_hold_it(path: Path, made: int | None, kept: int) -> None:
    lock = path.with_name("relay.db.lock")
    if made is not None:
        lock.touch()
        lock.chmod(made)
    before = os.umask(0)
    try:
        await (await open_store(path, clock=SystemClock())).close()
    finally:
        os.umask(before)
    assert lock.stat().st_mode & 0o777 == kept


async def test_a_lock_that_leads_elsewhere_is_not_followed(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("precious")
    path.with_name("relay.db.lock").symlink_to(other)
    with pytest.raises(Unusable, match=r"relay\.db\.lock: "):
        await open_store(path, clock=SystemClock())
    assert other.read_text() == "precious"


async def test_two_stores_in_one_process_exclude_each_other(desk: Desk, path: Path) -> None:
    with pytest.raises(Locked):
        await open_store(path, clock=SystemClock(), wait_for_lock=0)


# -- reading without a daemon ----------------------------------------------------------------------------------------


async def test_a_file_can_be_read_beside_a_running_relay_and_without_one(desk: Desk, path: Path) -> None:
    (delivery,) = await desk.add("www")
    for _ in range(2):
        offline = await open_reader(path)
        assert [item.route for item in (await offline.search(LogQuery())).items] == ["www"]
        assert (await offline.delivery(delivery.id)) is not None
        assert (await offline.status()).pending == 1
        assert offline.ids.number(offline.ids.text("dlv_", delivery.id)) == ("dlv_", delivery.id)
        await offline.close()
        await desk.store.close()


async def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(Unusable, match="no such file"):
        await open_reader(path)
    assert not path.exists()


@pytest.mark.parametrize("shared", ["", "b, c", "c"])
@pytest.mark.parametrize("number", [0, 1, 3, 7, 13, 28, 49, 64, 65, 127, 200])
def test_many_rows_are_written_each_once_however_many_there_are(number: int, shared: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB, c TEXT) STRICT")
        table = [(n, None if n % 3 else b"x", "") for n in range(number)]
        assert bulk.insert("INTO t", "a, b, c", shared)(connection, table) == number
        assert connection.execute("SELECT * FROM t ORDER BY a").fetchall() == table


async def test_results_of_one_batch_are_told_apart_where_one_delivery_was_touched_meanwhile(desk: Desk) -> None:
    deliveries = [(await desk.add("www"))[0] for _ in range(5)]
    touched = deliveries[2]
    await desk.store.cancel(touched.id, NOON)
    results = [replace(delivered(each), at=NOON + timedelta(seconds=number)) for number, each in enumerate(deliveries)]
    # Together with a new event, which must not be stored twice, nor be lost.
    recorded = asyncio.gather(*(desk.store.record(result) for result in results))
    added = await desk.add("www")
    await recorded
    assert await desk.states(*deliveries, *added) == [
        "delivered",
        "delivered",
        "cancelled",
        "delivered",
        "delivered",
        "pending",
    ]
    details = [await desk.detail(each) for each in deliveries]
    assert [detail.item.updated_at for detail in details if detail.item.status == "delivered"] == [
        NOON + timedelta(seconds=number) for number in (0, 1, 3, 4)
    ]
    assert [len(detail.attempts) for detail in details] == [1] * 5
    assert len((await desk.store.search(LogQuery())).items) == 6
    assert desk.counts() == {"www": (1, 0)}


@pytest.mark.parametrize("number", [1, 2, 5, 9, 64, 100])
async def test_each_of_many_results_has_its_own_time_whatever_their_order(desk: Desk, number: int) -> None:
    deliveries = [(await desk.add("www"))[0] for _ in range(number)]
    results = [
        replace(delivered(each), at=NOON + timedelta(seconds=place), attempt=replace(attempt(), duration_ms=place))
        for place, each in enumerate(deliveries)
    ]
    await asyncio.gather(*(desk.store.record(result) for result in reversed(results)))
    items = [(await desk.detail(each)).item for each in deliveries]
    assert [(item.duration_ms, item.updated_at) for item in items] == [
        (place, NOON + timedelta(seconds=place)) for place in range(number)
    ]
    assert {item.status for item in items} == {"delivered"}


async def test_what_was_noted_and_could_not_be_read_is_in_no_later_result_s_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement's OR ROLLBACK counts in the triggers that it fires too, whatever these say themselves."""
    heard: list[Changed] = []
    assert isinstance(desk.store, SqliteStore)
    await desk.store._writer.follow(heard.append)
    with monkeypatch.context() as patching:
        patching.setattr(changes, "collect", lambda connection: Changed(more=True))
        [delivery] = await desk.add("www")
    await desk.store.record(delivered(delivery))
    assert await desk.state(delivery) == "delivered"
    assert any(change.more for change in heard)
    assert [item.status for change in heard for item in change.items(desk.store.ids)] == ["delivered"]


def test_what_cannot_be_read_of_a_change_is_not_tried_again_with_the_next() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TEMP TABLE changed (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO changed VALUES (1)")
        assert changes.collect(connection).more  # there is no delivery, nor anything else
        assert connection.execute("SELECT count(*) FROM changed").fetchone() == (0,)
