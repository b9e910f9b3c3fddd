"""How a relay comes by its connections to PostgreSQL: what it waits for, what an operator must mend, and poolers."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from relay.clock import SystemClock
from relay.store import Unavailable, Unusable
from relay.stores.postgresql import open_reader, open_url, opening, server
from relay.stores.postgresql.connection import connect, refusal
from tests.fakes import ManualClock
from tests.harness import PATIENCE
from tests.pooler import pooler
from tests.postgres import ROLE, SUPERUSER, Database


def rest(url: str) -> str:
    return url.removeprefix("postgresql:")


def limit(database: Database, connections: int) -> None:
    database.cluster.psql(f'ALTER DATABASE "{database.name}" CONNECTION LIMIT {connections}')


# Five connections: writer, claims, logs, health, membership.
@pytest.mark.parametrize("free", range(5))
async def test_a_start_that_gets_no_more_connections_gives_back_those_it_has_and_waits(
    database: Database, free: int
) -> None:
    held = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'relay %'"
    said: list[str] = []
    waiting = asyncio.Event()

    class Clock(SystemClock):
        async def sleep(self, seconds: float) -> None:
            waiting.set()
            await super().sleep(0.01)

    def gone() -> bool:
        return database.cluster.psql(f"{held} AND datname = '{database.name}'") == [(0,)]

    limit(database, free)
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            started = group.create_task(open_url(rest(database.url), Clock(), said.append))
            await waiting.wait()
            while not gone():
                await asyncio.sleep(0.01)
            limit(database, -1)
    finally:
        limit(database, -1)
    assert len(said) == 1
    assert "cannot open the store" in said[0]
    assert "too many connections" in said[0]
    assert database.sql("SELECT count(*) FROM process") == [(1,)], "it says that it lives when it has all of them"
    await started.result().close()


async def test_what_the_url_says_of_a_session_holds_before_what_relay_does(database: Database) -> None:
    said = (
        "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('search_path')"
    )
    with connect(f"{database.url}?options=-c%20statement-timeout%3D50%20--lock_timeout%3D7", "writer") as connection:
        assert connection.execute(said.encode()).fetchone() == ("50ms", "7ms", "relay")
    with connect(database.url, "writer") as connection:
        assert connection.execute(said.encode()).fetchone() == ("1min", "0", "relay")
        assert connection.execute("SHOW enable_seqscan").fetchone() == ("off",)


async def test_a_schema_that_was_made_for_relay_is_enough(database: Database) -> None:
    """In a database that is another one's, where relay may make none."""
    database.sql(f'ALTER DATABASE "{database.name}" OWNER TO {SUPERUSER}')
    with pytest.raises(Unusable, match="may not create a schema"):
        await open_url(rest(database.url), ManualClock())
    database.sql(f"CREATE SCHEMA relay AUTHORIZATION {ROLE}")
    store = await open_url(rest(database.url), ManualClock())
    await store.save_states("route", {"www": {"n": 1}})
    assert await store.states("route") == {"www": {"n": 1}}
    await store.close()


async def test_a_pooler_that_gives_each_connection_a_session_is_as_good_as_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WAITING", 0.0)
    with pooler(database, shared=False) as url:
        store = await open_url(rest(url), ManualClock())
        await store.save_states("route", {"www": {"n": 1}})
        assert await store.states("route") == {"www": {"n": 1}}
        await store.close()


async def test_a_pooler_that_shares_sessions_is_for_the_operator(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WAITING", 0.0)
    said: list[str] = []
    with pooler(database, shared=True) as url:
        with pytest.raises(Unusable, match=r"cannot open the store .*transaction mode.*pool_mode = session"):
            await open_url(rest(url), ManualClock(), said.append)
        with pytest.raises(Unusable, match="transaction mode"):
            await open_reader(rest(url))
        with pytest.raises(Unusable, match="transaction mode"):
            server(rest(url))
        with psycopg.connect(url, autocommit=True) as another:
            left = another.execute(
                "SELECT current_setting('statement_timeout'), count(*) FROM pg_prepared_statements"
            ).fetchone()
        assert left == ("0", 0), "others come across nothing of relay's"
    assert not said


async def test_what_a_pooler_does_not_take_is_for_the_operator(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "WAITING", 0.0)
    said: list[str] = []
    with (
        pooler(database, shared=False) as url,
        pytest.raises(Unusable, match=r"unsupported startup parameter: options; .*ignore_startup_parameters"),
    ):
        await open_url(rest(f"{url}?options=-c%20work_mem%3D8MB"), ManualClock(), said.append)
    assert not said


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("FATAL:  unsupported startup parameter: options", Unusable),
        ("FATAL:  unsupported startup parameter in options: jit", Unusable),
        ("FATAL:  no such database: relay", Unusable),
        ("FATAL:  SASL authentication failed", Unusable),
        ("FATAL:  no more connections allowed (max_client_conn)", Unavailable),
        ("FATAL:  query_wait_timeout", Unavailable),
        ("FATAL:  server login has been failing, try again later", Unavailable),
    ],
)
def test_what_poolers_say_is_judged(words: str, kind: type[Exception]) -> None:
    assert isinstance(refusal("", psycopg.OperationalError(words)), kind)
