"""`relay db copy`: a set-up moves from SQLite to a real PostgreSQL, wholly or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench.full import Size, fill
from relay.clock import to_ms
from relay.delivery import HeldReason, LogItem, Mark, Rejection
from relay.event import Change, Description
from relay.ids import RejectionId
from relay.lane import Order
from relay.store import LogQuery, Store
from relay.stores import open_store
from relay.stores.postgresql import schema
from relay.stores.postgresql.copying import ORDER, copy
from relay.stores.sqlite import SqliteStore
from relay.stores.sqlite import schema as sqlite_schema
from relay.web import logquery
from relay.window import batch, debounce
from tests.cli.running import command, complaint, run, run_process
from tests.contract.desk import Desk, again, failed
from tests.fakes import NOON, ManualClock
from tests.harness import PATIENCE
from tests.postgres import Cluster, Database
from tests.test_search import EVERYTHING, a_query, some_traffic

ODD = "".join(map(chr, range(32))) + '\x7f\x85\u2028\u2400 é \U0001f680 "quoted" \\ \\u0000 {x,"y"} %_\''
"""Text that one of the two might write in another way."""


async def _fill(path: Path) -> None:
    clock = ManualClock()
    store = await open_store(f"sqlite:{path}", clock)
    assert isinstance(store, SqliteStore)

    async def never() -> Store:
        raise AssertionError

    desk = Desk(store, clock, never)
    await some_traffic(desk, store, clock, random.Random(1))
    # Windows, lanes, and what was merged into them.
    desk.groupings["collected"] = desk.groupings["by hand"] = batch(10, timedelta(hours=1), timedelta(0))
    await desk.follow(lane=Order.ENTRY, latest=Order.LATEST, collected=Order.NONE)
    for name in ("7", "7", "8", ODD):
        clock.advance(1)
        for route in ("lane", "latest", "collected"):
            await desk.tell(desk.about(name), route)
    first = (await desk.claim("lane"))[0]
    await store.record(again(first, clock.now() + timedelta(hours=1)))
    taken = (await desk.claim("latest"))[0]
    assert await store.take(taken, clock.now())
    # Repeats.
    for value in (b"a", b"a", b"b"):
        await desk.tell(desk.about("9"), mark=Mark(sha256(b"key").digest(), value, timedelta(days=1)))
    # What is held, also by hand.
    by_hand = await desk.tell(route="by hand")
    await store.hold(by_hand.id, clock.now())
    await desk.add("gone")
    await desk.settle("www", "search", "audit", "lane", "latest", *desk.groupings, kept={"gone": HeldReason.REMOVED})
    # Odd text in all that has text, and bytes that are none.
    several = tuple(Change(ODD, "draft", ODD, entry) for entry in (ODD, "1", None))
    description = Description(ODD, several, environment=ODD, branch="", locale=ODD, extra={ODD: [ODD, None]})
    odd = replace(desk.event(bytes(range(256)), ODD, description), headers=((ODD, "caf\udce9\0"), ("", "")), type=ODD)
    one = desk.owe(odd)
    await desk.put(odd, [one])
    result = failed(one)
    assert result.failure is not None
    await store.record(replace(result, failure=replace(result.failure, message=ODD)))
    await desk.put(replace(desk.event(b"", ODD, replace(description, changes=several[:1])), type=ODD))
    await desk.put(desk.event(b"", "blog", Description(None, (Change(None, None, None, None),))))
    number = RejectionId(store.ids.draw(to_ms(clock.now())))
    store.reject(Rejection(number, ODD, clock.now(), 401, ODD, "::1", ((ODD, "caf\udce9"),)))
    await store.save_states("route", {"www": {"state": "paused", ODD: ODD}, "search": {}})
    await store.save_states("source", {"blog": {"last": "x"}})
    await store.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with something of everything."""
    path = tmp_path_factory.mktemp("filled") / "relay.db"
    asyncio.run(_fill(path))
    return path


@pytest.fixture
def source(filled: Path, tmp_path: Path) -> Path:
    """The same, to be broken."""
    return Path(shutil.copy(filled, tmp_path / "relay.db"))


def spoil(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def asked(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def nothing_in(database: Database) -> bool:
    return database.sql("SELECT to_regclass('relay.meta')::text") == [(None,)]


def moves(source: Path, database: Database) -> Any:
    ended = run("db", "copy", f"sqlite:{source}", database.url, "--json")
    assert ended.code == 0, ended
    return ended.json


def refused(source: Path, url: str, code: int) -> str:
    return complaint(run("db", "copy", f"sqlite:{source}", url), code)


# --- what moves -------------------------------------------------------------------------------------------------------


NOT_AS_IT_WAS = {"delivery": ["taken"], "shape": ["key"]}


def without(row: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [value for place, value in enumerate(row) if place not in places]


def kept(value: Any) -> Any:
    """As PostgreSQL keeps it."""
    match value:
        case str():
            return value.replace("\0", "\u2400")
        case tuple() | list():
            return [kept(each) for each in value]
        case dict():
            return {name: kept(each) for name, each in value.items()}
    return value


def test_all_that_a_store_has_moves_over(filled: Path, database: Database) -> None:
    assert asked(filled, "SELECT count(*) FROM delivery WHERE taken = 1 OR open = 1 OR blocked = 1")[0][0] > 3
    assert set(ORDER) == {name for [name] in asked(filled, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    before = sha256(filled.read_bytes()).digest()
    shown = moves(filled, database)
    assert sha256(filled.read_bytes()).digest() == before
    for table in ORDER:
        [counted] = [each for each in shown["tables"] if each["name"] == table]
        columns = [row[1] for row in asked(filled, f"PRAGMA table_info({table})")]
        names = ", ".join(f'"{column}"' for column in columns)
        ours = [kept(row) for row in asked(filled, f"SELECT {names} FROM {table}")]
        there = database.sql(f"SELECT {names} FROM {table}")
        if table == "meta":
            there = [row for row in there if row[0] not in ("schema", "members")]
        assert counted["rows"] == len(there) > 0, table
        # What is not as it was: see the next test.
        anew = [columns.index(column) for column in NOT_AS_IT_WAS.get(table, ())]
        mine, theirs = [sorted((without(row, anew) for row in rows), key=repr) for rows in (ours, there)]
        assert theirs == mine, table
    assert shown["bad_bodies"] == 0
    assert database.url.rpartition("/")[2] in shown["target"]
    assert "relay@" not in shown["target"]


def test_what_only_postgresql_keeps_is_made(filled: Path, database: Database) -> None:
    moves(filled, database)
    assert database.sql("SELECT count(*) FROM delivery WHERE owner IS NOT NULL OR taken <> 0") == [(0,)]
    waiting = (
        "SELECT route, sum(state = 'pending'), sum(state = 'held') FROM delivery"
        " WHERE state IN ('pending', 'held') GROUP BY 1"
    )
    assert sorted(database.sql("SELECT route, pending, held FROM tally")) == sorted(asked(filled, waiting))
    made = "SELECT key = json_build_array(route, source, type, event, model, stage, action)::text FROM shape"
    assert set(database.sql(made)) == {(True,)}
    [(highest,)] = database.sql("SELECT max(id) FROM shape")
    assert database.sql("SELECT nextval(pg_get_serial_sequence('relay.shape', 'id'))") == [(highest + 1,)]
    analyzed = "SELECT count(*) FROM pg_stats WHERE schemaname = 'relay' AND tablename = 'delivery'"
    assert database.sql(analyzed)[0][0] > 20


def test_the_tables_are_those_that_relay_makes(filled: Path, database: Database) -> None:
    moves(filled, database)
    words = (
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'relay' ORDER BY 1",
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'relay'::regnamespace ORDER BY 1, 2",
        "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'relay'::regnamespace ORDER BY 1",
    )
    with database.cluster.database() as another:
        make_tables(another)
        for sql in words:
            assert database.sql(sql) == another.sql(sql) != []


async def all_pages(store: Store, query: LogQuery) -> list[LogItem]:
    found: list[LogItem] = []
    while True:
        page = await store.search(query)
        found += page.items
        if page.next is None:
            return found
        query = replace(query, before=page.next)


@pytest.fixture
async def both(source: Path, database: Database) -> AsyncIterator[tuple[Store, Store, ManualClock]]:
    """A store, and what was copied of it, open."""
    await asyncio.to_thread(copy, source, database.url, lambda done, total: None)
    clock = ManualClock(NOON + timedelta(days=1))
    async with contextlib.AsyncExitStack() as stack:
        stores = []
        for url in (f"sqlite:{source}", database.url):
            stores.append(await open_store(url, clock))
            stack.push_async_callback(stores[-1].close)
        yield stores[0], stores[1], clock


async def test_searches_find_the_same_in_the_copy(both: tuple[Store, Store, ManualClock]) -> None:
    old, new, clock = both
    everything = await all_pages(old, logquery.parse([("status", EVERYTHING)], clock.now(), old.ids))
    assert len(everything) > 300
    assert {item.status for item in everything} == {*logquery.STATUSES}
    draw = random.Random(1)
    for given in [{}, {"status": EVERYTHING}, *(a_query(draw, clock, everything) for _ in range(100))]:
        query = logquery.parse(list(given.items()), clock.now(), old.ids)
        assert plain(await all_pages(new, query)) == plain(await all_pages(old, query)), given


def plain(items: Sequence[LogItem]) -> list[Any]:
    """What they say; a NUL is one within JSON alone."""
    return [kept(asdict(item)) for item in items]


async def test_a_store_goes_on_where_it_was_copied(both: tuple[Store, Store, ManualClock]) -> None:
    old, new, clock = both
    assert new.counts() == old.counts() != {}
    await new.save_states("route", {"www": {"state": "healthy"}})  # it was paused
    await new.settle(list(new.counts()), {})
    await old.settle(list(old.counts()), {})
    for route in old.counts():
        claimed = [await each.claim(route, None, clock.now(), 1000, ()) for each in (old, new)]
        assert [delivery.id for delivery in claimed[1]] == [delivery.id for delivery in claimed[0]], route
        for mine, theirs in zip(*claimed, strict=True):
            assert (theirs.event.body, theirs.event.headers) == (mine.event.body, mine.event.headers)
    clock.advance(60)

    async def never() -> Store:
        raise AssertionError

    desk = Desk(new, clock, never)
    desk.groupings["collected"] = batch(10, timedelta(hours=1), timedelta(0))
    [window] = [each for each in await new.windows() if each.route == "collected"]
    await desk.tell(route="collected")
    [now] = [each for each in await new.windows() if each.route == "collected"]
    assert (now.id, now.events[:-1]) == (window.id, window.events)
    repeated = await new.add(desk.about("9"), [], Mark(sha256(b"key").digest(), b"b", timedelta(days=1)))
    assert repeated.duplicate
    [fresh] = await desk.add("a route that nobody had")
    await desk.send(fresh)
    assert await desk.state(fresh) == "delivered"


def test_text_that_becomes_the_same_without_nul_is_there_once(source: Path, database: Database) -> None:
    asyncio.run(_fill_with_nul(source))
    before = dict(asked(source, "SELECT route, count(*) FROM delivery GROUP BY 1"))
    names = "SELECT count(*) FROM shape WHERE event LIKE 'odd%'"
    assert asked(source, names) == [(3,)]
    moves(source, database)
    assert database.sql(names) == [(1,)]
    assert dict(database.sql("SELECT route, count(*) FROM delivery GROUP BY 1")) == before
    [(number,)] = database.sql("SELECT id FROM shape WHERE event LIKE 'odd%'")
    assert database.sql("SELECT count(*) FROM delivery WHERE route = 'nul' AND shape = " + str(number)) == [(3,)]
    opened = """SELECT count(*) FROM delivery WHERE route = 'by entry' AND open = 1"""
    assert database.sql(opened) == asked(source, opened) == [(3,)]
    assert database.sql("SELECT count(*) FROM mention WHERE entry_id LIKE 'odd%'") == [(1,)]


async def _fill_with_nul(path: Path) -> None:
    clock = ManualClock(NOON + timedelta(days=1))
    store = await open_store(f"sqlite:{path}", clock)

    async def never() -> Store:
        raise AssertionError

    desk = Desk(store, clock, never)
    desk.groupings["by entry"] = debounce(timedelta(hours=1), timedelta(hours=1), ("entry_id",), timedelta(0))
    names = ("odd\0\u2400", "odd\u2400\0", "odd\u2400\u2400")
    for name in names:
        event = desk.event(description=Description(name, (Change("page", None, None, name),)))
        await desk.put(event, [desk.owe(event, "nul")])
        await desk.tell(desk.about(name), "by entry")
    changes = tuple(Change("page", None, None, name) for name in names)
    several = desk.event(description=Description("several", changes))
    await desk.put(several, [desk.owe(several, "several")])
    await store.close()


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose copying takes a second or two."""
    path = tmp_path_factory.mktemp("larger") / "relay.db"
    fill(path, Size(20_000), to_ms(NOON), 86_400_000)
    return path


@pytest.mark.parametrize("doing", ["COPY delivery", "row_to_json"])
def test_a_copy_that_was_killed_leaves_nothing_and_the_next_one_succeeds(
    larger: Path, database: Database, doing: str
) -> None:
    ours = f"FROM pg_stat_activity WHERE datname = '{database.name}' AND application_name LIKE 'relay copy%'"
    killed = subprocess.Popen(command("db", "copy", f"sqlite:{larger}", database.url), stdout=subprocess.PIPE)
    try:
        until = time.monotonic() + PATIENCE
        while not database.cluster.psql(f"SELECT 1 {ours} AND query LIKE '%{doing}%'"):
            assert time.monotonic() < until
            assert killed.poll() is None, "it was done before"
    finally:
        killed.kill()
        out, _ = killed.communicate()
    assert (killed.returncode, out) == (-signal.SIGKILL, b"")
    while database.cluster.psql(f"SELECT 1 {ours}"):
        assert time.monotonic() < until
    assert nothing_in(database)
    ended = run_process("db", "copy", f"sqlite:{larger}", database.url)
    assert ended.code == 0, ended
    assert database.sql("SELECT count(*) FROM delivery") == asked(larger, "SELECT count(*) FROM delivery")


def test_ctrl_c_leaves_nothing(larger: Path, database: Database) -> None:
    ours = f"FROM pg_stat_activity WHERE datname = '{database.name}' AND application_name LIKE 'relay copy%'"
    stopped = subprocess.Popen(
        command("db", "copy", f"sqlite:{larger}", database.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + PATIENCE
    while not database.cluster.psql(f"SELECT 1 {ours} AND starts_with(query, 'COPY event')"):
        assert time.monotonic() < until
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=PATIENCE)
    assert (stopped.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    assert nothing_in(database)


def test_progress_grows_up_to_its_end(filled: Path, database: Database) -> None:
    told: list[tuple[int, int]] = []
    copied = copy(filled, database.url, lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {told[-1][0]} == {3 * sum(table.rows for table in copied.tables)}


def test_people_are_told_what_to_do_next(filled: Path, database: Database) -> None:
    out = run("db", "copy", f"sqlite:{filled}", database.url).out
    [(deliveries,)] = database.sql("SELECT count(*) FROM delivery")
    assert f"\ndelivery   {deliveries} " in out
    assert out.endswith(
        "Next: set store.url to that URL and start relay. Do not start it on the old file: it would send again.\n"
    )


def test_a_body_that_was_damaged_before_is_told_of(source: Path, database: Database) -> None:
    spoil(source, "UPDATE body SET content = x'00' WHERE event_id IN (SELECT event_id FROM body LIMIT 2)")
    ended = run("db", "copy", f"sqlite:{source}", database.url)
    assert ended.code == 0
    assert "\n2 bodies had another checksum than when accepted" in ended.out


def test_what_comes_to_the_database_as_something_else_is_noticed(filled: Path, database: Database) -> None:
    make_tables(database)
    database.sql(
        "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.client := 'x' || NEW.client; RETURN NEW; END $$;"
        " CREATE TRIGGER other BEFORE INSERT ON rejection FOR EACH ROW EXECUTE FUNCTION other()"
    )
    line = refused(filled, database.url, 1)
    assert "what came to the table rejection is not what was sent" in line
    assert database.sql("SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM tally)") == [(0,)]
    database.sql("DROP TRIGGER other ON rejection")
    moves(filled, database)


# --- what is refused --------------------------------------------------------------------------------------------------


def make_tables(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute("SET search_path = relay")
        schema.migrate(connection)


def test_a_database_that_holds_something_is_refused(filled: Path, database: Database) -> None:
    moves(filled, database)
    before = database.sql("SELECT count(*), max(id) FROM delivery")
    assert "holds a store already" in refused(filled, database.url, 1)
    assert database.sql("SELECT count(*), max(id) FROM delivery") == before


async def test_a_database_that_a_relay_runs_on_is_refused(filled: Path, database: Database) -> None:
    store = await open_store(database.url, ManualClock())
    try:
        line = await asyncio.to_thread(refused, filled, database.url, 1)
    finally:
        await store.close()
    assert "relays run on it" in line


def test_a_database_of_a_newer_relay_or_of_others_is_refused(filled: Path, database: Database) -> None:
    make_tables(database)
    database.sql("UPDATE meta SET value = '99' WHERE key = 'schema'")
    assert "newer relay (schema 99" in refused(filled, database.url, 78)
    database.sql(
        "DROP SCHEMA relay CASCADE; CREATE SCHEMA relay AUTHORIZATION relay; CREATE TABLE relay.other (id int)"
    )
    assert "is not relay's" in refused(filled, database.url, 78)


def test_one_copies_at_a_time(filled: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.stores.postgresql.copying._WAIT", 0.0)
    with psycopg.connect(database.url, application_name="relay copy elsewhere:1") as other:
        other.execute("SELECT pg_advisory_lock(%s)", [schema.LOCK])
        assert "relay copy elsewhere:1 is making its tables" in refused(filled, database.url, 1)
    moves(filled, database)


async def test_a_store_that_a_relay_runs_on_is_refused(source: Path, database: Database) -> None:
    store = await open_store(f"sqlite:{source}", ManualClock())
    try:
        line = await asyncio.to_thread(refused, source, database.url, 1)
    finally:
        await store.close()
    assert f"is in use by another relay (pid {os.getpid()}, since " in line
    assert line.endswith("stop it first")
    assert nothing_in(database)


def test_sources_that_cannot_be_copied_are_refused(source: Path, database: Database, tmp_path: Path) -> None:
    for missing in (tmp_path / "none.db", tmp_path / "nowhere" / "none.db"):
        assert f"there is no store at {missing}" in refused(missing, database.url, 1)
    assert not list(tmp_path.glob("none*")), "no lock is left where nothing is"
    (tmp_path / "text.db").write_text("no database\n" * 1000)
    assert "not a SQLite database" in refused(tmp_path / "text.db", database.url, 78)
    spoil(source, "INSERT INTO meta VALUES ('backup', '2026-11-25T00:00:00Z')")
    assert "it is a backup" in refused(source, database.url, 78)
    spoil(source, "DELETE FROM meta WHERE key = 'backup'", "PRAGMA user_version = 2")
    assert "older relay (schema 2)" in refused(source, database.url, 78)
    spoil(source, "PRAGMA user_version = 99")
    assert "newer relay (schema 99" in refused(source, database.url, 78)
    spoil(source, f"PRAGMA user_version = {sqlite_schema.VERSION}")
    with source.open("r+b") as file:
        file.seek(4096 * 12)
        file.write(os.urandom(4096 * 4))
    assert "it is damaged" in refused(source, database.url, 78)
    assert nothing_in(database)


def test_a_database_that_cannot_be_used_is_refused(filled: Path, postgres: Cluster) -> None:
    assert "does not exist" in refused(filled, postgres.url("nowhere"), 1)
    line = refused(filled, "postgresql://relay:secret@127.0.0.1:1/relay", 1)
    assert "cannot copy to postgresql://127.0.0.1:1/relay" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "urls", [("relay.db", "postgresql://x/y"), ("sqlite:", "postgresql://x/y"), ("sqlite:relay.db", "sqlite:b.db")]
)
def test_what_is_no_url_of_a_store_is_wrong_usage(urls: tuple[str, str]) -> None:
    assert "expected a URL that begins with" in complaint(run("db", "copy", *urls), 2)


def test_without_the_driver_it_is_said_what_to_install(filled: Path) -> None:
    text = "import sys; sys.modules['psycopg'] = None; from relay.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", text, "db", "copy", f"sqlite:{filled}", "postgresql://127.0.0.1:1/relay"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "relay: postgresql: needs psycopg: pip install 'psycopg[binary]>=3.2'\n"
