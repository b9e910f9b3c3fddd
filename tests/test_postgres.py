"""The PostgreSQL that tests have: nobody else's, and gone with them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests import postgres as clusters
from tests.harness import PATIENCE
from tests.postgres import ROLE, Cluster, Database, _rows, cluster, needed


def ask(url: str, sql: str) -> object:
    """What the last of these statements says first."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        rows = _rows(connection.execute(sql.encode()))
    return rows[0][0] if rows else None


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_a_database_is_empty_and_belongs_to_an_ordinary_role(postgres: Cluster) -> None:
    for _ in range(4):
        with postgres.database() as database:
            assert ask(database.url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
            assert ask(database.url, "CREATE TABLE kept (id int); SELECT current_user") == ROLE
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ask(database.url, "COPY kept FROM PROGRAM 'true'")
    assert len(postgres.psql("SELECT FROM pg_database WHERE datname LIKE 'relay%'")) == 2, "all others were dropped"


def test_tables_in_the_roles_own_schema_need_no_other_name(database: Database) -> None:
    ask(database.url, f"CREATE SCHEMA {ROLE}; CREATE TABLE kept AS SELECT 7 AS id")
    assert database.sql("DELETE FROM kept RETURNING id, tableoid::regclass::text") == [(7, "kept")]
    assert ask(database.url, f"SELECT count(*) FROM {ROLE}.kept") == 0


def test_a_database_can_be_like_another(postgres: Cluster, database: Database) -> None:
    ask(database.url, "CREATE TABLE kept AS SELECT 7 AS id")
    with postgres.database(template=database.name) as another:
        assert another.sql("SELECT id FROM kept") == [(7,)]


@pytest.mark.parametrize("immediate", [True, False])
def test_what_was_committed_is_there_after_a_restart(postgres: Cluster, database: Database, immediate: bool) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS id")
        postgres.restart(immediate=immediate)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert ask(database.url, "SELECT id FROM kept") == 7
    assert ("not properly shut down" in postgres.log.rpartition("starting PostgreSQL")[2]) is immediate


def test_it_can_be_away_and_come_back_where_it_was(postgres: Cluster, database: Database) -> None:
    postgres.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        ask(database.url, "SELECT 1")
    with postgres.database():
        assert ask(database.url, "SELECT 1") == 1, "whoever wants a database has it running"


def test_the_socket_leads_to_it_too(postgres: Cluster, database: Database) -> None:
    url = postgres.url(database.name, host=str(postgres.folder))
    assert ask(url, "SELECT inet_client_addr() IS NULL AND current_user = 'relay'") is True


def test_it_sorts_as_people_do(database: Database) -> None:
    if clusters._version() >= 15:
        assert ask(database.url, "SELECT 'a' < 'B'") is True


def test_commits_are_synced_where_that_is_asked_for(postgres: Cluster) -> None:
    assert postgres.psql("SHOW fsync") == [("off",)]
    with cluster(fsync=True, settings={"work_mem": "1MB"}) as durable:
        assert durable.psql("SHOW fsync; SHOW full_page_writes; SHOW synchronous_commit") == [("on",)]
        assert durable.psql("SHOW fsync") == durable.psql("SHOW full_page_writes") == [("on",)]
        assert durable.psql("SHOW work_mem") == [("1MB",)]


def test_with_tls_and_a_password_nobody_comes_in_without_both() -> None:
    with cluster(tls=True, password=True) as secured, secured.database() as database:
        assert ask(database.url, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            ask(secured.url(database.name, sslmode="disable"), "SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(secured.url(database.name, password="another"), "SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            ask(secured.url(database.name, sslrootcert="system"), "SELECT 1")


def test_a_replica_takes_over(postgres: Cluster) -> None:
    with cluster() as primary, primary.database() as database:
        replica = primary.replica(synchronous=True)
        url = primary.url(database.name, replica)
        ask(url, "CREATE TABLE kept AS SELECT 7 AS id")
        replica.catch_up(primary)
        assert replica.psql("SELECT pg_is_in_recovery()") == [(True,)]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            ask(replica.url(database.name), "DELETE FROM kept")
        primary.stop(immediate=True)
        with pytest.raises(psycopg.OperationalError, match="session is read-only"):
            ask(url, "SELECT 1")
        replica.promote()
        assert ask(url, "INSERT INTO kept SELECT 8 RETURNING (SELECT count(*) FROM kept)") == 1
        assert ask(url, "SELECT sum(id) FROM kept") == 15


def test_a_cluster_goes_with_a_test_that_fails() -> None:
    made: list[Cluster] = []

    def fail() -> None:
        with cluster() as left:
            made.extend((left, left.replica()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    for each in made:
        assert not each.folder.exists()
        assert not listens(each.port)


_KILLED = """
from tests.postgres import cluster

with cluster() as left, left.database() as database:
    replica = left.replica()
    print(left.folder, left.port, replica.port, flush=True)
    input()
"""


def test_a_cluster_goes_also_with_tests_that_are_killed() -> None:
    needed()
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        folder, *ports = tests.stdout.readline().split()
        assert all(listens(int(port)) for port in ports)
        tests.send_signal(signal.SIGKILL)
        tests.wait(PATIENCE)
        until(lambda: not Path(folder).exists())
        until(lambda: not any(listens(int(port)) for port in ports))


def test_where_there_is_no_postgresql_tests_skip_unless_they_must_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_binaries", lambda: None)
    monkeypatch.delenv("RELAY_TEST_NEEDS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed: it is in Debian's package postgresql"):
        needed()
    monkeypatch.setenv("RELAY_TEST_NEEDS", "other postgresql")
    with pytest.raises(pytest.fail.Exception, match="not installed"):
        needed()
