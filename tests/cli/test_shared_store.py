"""The verbs on a PostgreSQL that several relays share: beside a running daemon, and without one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay import checkup
from relay.checkup import Verdict
from relay.shared import Server
from tests.cli.running import Ended, complaint, run, serving
from tests.cli.test_daemon_verbs import sent_id
from tests.harness import write_config
from tests.postgres import PASSWORD, Cluster, Database, cluster

TEXT = """
server: {{listen: "127.0.0.1:0"}}
admin: {{listen: {{unix: {folder}/admin.sock}}}}
store: {{url: "{url}"}}
sources: {{open: {{type: generic, verify: none}}}}
routes: [{{name: down, to: {{url: "http://127.0.0.1:1"}}, retry: none}}]
"""


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A server that asks for the password."""
    with cluster(password=True) as made:
        yield made


@pytest.fixture
def database(guarded: Cluster) -> Iterator[Database]:
    with guarded.database() as made:
        yield made


def configured(folder: Path, url: str) -> Path:
    return write_config(folder, TEXT.format(folder=folder, url=url))


def checks(ended: Ended) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in ended.json["checks"]}


def test_verbs_read_the_database_beside_a_daemon_and_without_one(tmp_path: Path, database: Database) -> None:
    config = configured(tmp_path, database.url)
    body = tmp_path / "body.json"
    body.write_text("{}")
    with serving(config) as relay:
        event = sent_id(run("send", "open", "--file", body, "--to", relay.public + "/in/open", "--config", config))
        beside = checks(run("doctor", "--json", "--config", config))
        assert beside["processes"]["detail"].startswith("1 alive: ")
        assert run("db", "prune", "--config", config).code == 0
        relay.kill()
    assert [item["event_id"] for item in run("logs", "--json", "--config", config).json["items"]] == [event]
    assert event in run("show", event, "--config", config).out
    stats = run("db", "stats", "--json", "--config", config).json
    assert (stats["rows"]["event"], stats["deliveries"]["failed"], stats["free_bytes"]) == (1, 1, None)
    shown = run("db", "stats", "--config", config).out
    assert f"database  postgresql://127.0.0.1:{database.cluster.port}/{database.name}" in shown
    assert "left" not in shown
    assert run("db", "check", "--config", config).code == 0
    assert run("db", "prune", "--json", "--config", config).json == {"events": 0, "deliveries": 0, "bodies": 0}
    config.write_text(config.read_text().replace("store: {", "store: {retention: 1ms, "))
    would = run("db", "prune", "--dry-run", "--json", "--config", config).json
    assert would == {"events": 1, "deliveries": 1, "bodies": 0, "dry_run": True}
    assert run("db", "prune", "--json", "--config", config).json == {"events": 1, "deliveries": 1, "bodies": 0}
    alone = checks(run("doctor", "--json", "--config", config))
    for found in (beside, alone):
        assert found["database"]["verdict"] == found["schema"]["verdict"] == found["conservation"]["verdict"] == "ok"
        assert "PostgreSQL" in found["database"]["detail"]
        assert "disk" not in found


def test_doctor_says_what_makes_a_server_forget(tmp_path: Path, database: Database) -> None:
    database.sql(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    ended = run("doctor", "--json", "--config", configured(tmp_path, database.url))
    assert ended.code == 1
    said = [check["detail"] for check in ended.json["checks"] if check["name"] == "durability"]
    assert any("synchronous_commit is off" in each for each in said)
    assert any("fsync or full_page_writes is off" in each for each in said)  # as in all clusters of tests


def test_a_database_without_a_store_stays_so(tmp_path: Path, database: Database) -> None:
    config = configured(tmp_path, database.url)
    assert checks(run("doctor", "--json", "--config", config))["schema"]["verdict"] == "warning"
    for verb in (["logs"], ["db", "stats"], ["db", "prune"], ["db", "prune", "--dry-run"]):
        line = complaint(run(*verb, "--config", config), 78)
        assert PASSWORD not in line
    assert database.sql("SELECT 1 FROM pg_namespace WHERE nspname = 'relay'") == []


def test_a_store_of_a_newer_relay_is_for_the_operator(tmp_path: Path, database: Database) -> None:
    config = configured(tmp_path, database.url)
    with serving(config):
        pass
    database.sql("UPDATE relay.meta SET value = '99' WHERE key = 'schema'")
    ended = run("doctor", "--json", "--config", config)
    assert ended.code == 78
    assert "newer relay" in checks(ended)["store"]["detail"]


@pytest.mark.parametrize("verb", [["logs"], ["db", "stats"], ["db", "prune"], ["db", "prune", "--dry-run"]])
def test_a_wrong_password_is_for_the_operator_and_a_server_that_is_down_is_not(
    tmp_path: Path, database: Database, verb: list[str]
) -> None:
    wrong = database.url.replace(":p%40ss", ":wrong-%40-word")
    line = complaint(run(*verb, "--config", configured(tmp_path, wrong)), 78)
    assert "password authentication failed" in line
    assert "wrong-" not in line
    down = database.url.replace(str(database.cluster.port), "1")
    line = complaint(run(*verb, "--config", configured(tmp_path, down)), 1)
    assert "Connection refused" in line
    assert "p%40ss" not in line


def test_one_of_several_hosts_that_is_down_may_come_back(tmp_path: Path, database: Database) -> None:
    port = str(database.cluster.port)
    several = database.url.replace(port, f"{port},127.0.0.1:1").replace(":p%40ss", ":wrong-%40-word")
    assert run("db", "stats", "--config", configured(tmp_path, several)).code == 1
    reachable = database.url.replace(f"127.0.0.1:{port}", f"127.0.0.1:1,127.0.0.1:{port}")
    assert "127.0.0.1:1," in reachable
    assert checks(run("doctor", "--json", "--config", configured(tmp_path, reachable)))["database"]["verdict"] == "ok"


def test_a_backup_is_made_by_postgresql(tmp_path: Path, database: Database) -> None:
    config = configured(tmp_path, database.url)
    with serving(config):
        pass
    line = complaint(run("db", "backup", tmp_path / "copy", "--config", config), 1)
    assert "pg_dump" in line
    assert PASSWORD not in line
    assert not (tmp_path / "copy").exists()


def test_what_is_missing_from_this_shell_matters_only_where_the_store_needs_it(
    tmp_path: Path, database: Database
) -> None:
    url = database.url.replace("p%40ss%3Aw%2Frd%20%2541", "${DB_PASSWORD}")
    assert "${" in url
    config = configured(tmp_path, url)
    config.write_text(config.read_text().replace("verify: none", "token: '${TOKEN_OF_A_SOURCE}'"))
    known = {"DB_PASSWORD": "p%40ss%3Aw%2Frd%20%2541", "TOKEN_OF_A_SOURCE": "a-token-of-some-length"}
    with serving(config, known):
        # The daemon can be asked by who knows nothing of its database,
        assert run("logs", "--json", "--config", config).json["items"] == []
    # and the database by who knows nothing of the daemon's sources.
    assert run("db", "stats", "--config", config, environ={"DB_PASSWORD": known["DB_PASSWORD"]}).code == 0
    ended = run("db", "stats", "--config", config)
    assert ended.code == 78
    assert "store.url: the environment variable DB_PASSWORD is not set" in ended.err
    assert checks(run("doctor", "--json", "--config", config))["store"]["verdict"] == "warning"


def test_a_url_on_the_command_line_is_judged_like_that_of_the_config(tmp_path: Path) -> None:
    line = complaint(run("db", "copy", f"sqlite:{tmp_path}/x.db", "postgres://relay:canary-word/7@db/relay"), 2)
    assert "'@' is written %40" in line
    assert "canary" not in line


FIT = Server("postgresql://db:5432/relay", "15.1", None, 1, 1, (), 0.0004, 0.0, ("a:1 (1.0.0)", "b:7 (1.0.0)"))


@pytest.mark.parametrize(
    ("change", "name", "verdict", "words"),
    [
        ({}, "database", Verdict.OK, "PostgreSQL 15.1, 0.4 ms away"),
        ({}, "durability", Verdict.OK, "survives a power cut"),
        ({}, "processes", Verdict.OK, "2 alive: a:1 (1.0.0), b:7 (1.0.0)"),
        ({"alive": ()}, "processes", Verdict.OK, "none alive"),
        ({"version": "12.9", "too_old": "13"}, "database", Verdict.FAILED, "needs 13 or newer"),
        ({"round_trip": 0.12}, "database", Verdict.WARNING, "120.0 ms away"),
        ({"schema": 0}, "schema", Verdict.WARNING, "no tables"),
        ({"newest_schema": 2}, "schema", Verdict.WARNING, "version 1: this relay makes 2 of it"),
        ({"risks": ("it forgets",)}, "durability", Verdict.FAILED, "it forgets"),
        ({"ahead": -7.0}, "database clock", Verdict.WARNING, "7.0 s behind this machine's"),
    ],
)
def test_what_a_server_says_is_judged(change: dict[str, Any], name: str, verdict: Verdict, words: str) -> None:
    [found] = [check for check in checkup.database(replace(FIT, **change)) if check.name == name]
    assert found.verdict is verdict
    assert words in found.detail
