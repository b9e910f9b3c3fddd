"""`relay db` and `relay doctor`: beside a real relay, without one, and on files that somebody has broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay import checkup
from relay.checkup import Verdict
from relay.clock import SystemClock
from relay.ids import Ids
from relay.space import Space, space
from relay.steps import BEHIND
from relay.stores.sqlite.survey import Survey
from relay.survey import Overdue
from tests.certificates import write_certificate
from tests.cli.running import TOP, Ended, command, complaint, free_ports, items_when, run, serving
from tests.cli.standin import log_item, standing_in
from tests.cli.test_daemon_verbs import at_terminal, sent_id
from tests.cli.test_prefixes import ONE
from tests.fakes import until
from tests.harness import RelayProcess, relay_here, relay_process, write_config
from tests.torture.disk import small_disk
from tests.torture.row import Skipped

TEXT = """
server: {{listen: "127.0.0.1:{}"}}
admin: {{listen: "127.0.0.1:{}"}}
sources: {{open: {{type: generic, verify: none, map: {{action: body.action, entry_id: body.id}}}}}}
routes:
  - {{name: down, match: {{action: down}}, to: {{url: "http://127.0.0.1:{}"}}, retry: none}}
  - {{name: slow, match: {{action: slow}}, to: {{url: "http://127.0.0.1:1"}}, debounce: {{wait: 1h}}}}
  - {{name: lane, match: {{action: lane}}, to: {{url: "http://127.0.0.1:1"}}, order: entry, delay: 1h}}
"""


def send(config: Path, action: str, count: int = 1) -> None:
    body = config.parent / "body.json"
    body.write_text(f'{{"action": "{action}", "id": "42"}}')
    for _ in range(count):
        sent_id(run("send", "open", "--file", body, "--config", config))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """Two failed, three in a window, two in a lane, one that nobody wanted."""
    folder = tmp_path_factory.mktemp("db")
    with serving(write_config(folder, TEXT.format(*free_ports(3)))) as relay:
        send(relay.config, "down", 2)
        send(relay.config, "slow", 3)
        send(relay.config, "lane", 2)
        send(relay.config, "nothing")
        items_when(relay.admin, lambda items: sum(item["status"] == "failed" for item in items) == 2)
        yield relay


@pytest.fixture
def copied(served: RelayProcess, tmp_path: Path) -> Path:
    """The config of a store that is a backup of it, with no daemon."""
    ended = run("db", "backup", tmp_path / "relay.db", "--config", served.config)
    assert ended.code == 0, ended
    return write_config(tmp_path, TEXT.format(*free_ports(3)))


def spoil(config: Path, sql: str) -> None:
    with closing(sqlite3.connect(config.parent / "relay.db")) as connection, connection:
        connection.execute(sql)


# --- db ---------------------------------------------------------------------------------------------------------------


def test_stats_count_what_there_is(served: RelayProcess) -> None:
    shown = run("db", "stats", "--json", "--config", served.config).json
    assert shown["rows"]["event"] == 8
    assert shown["rows"]["delivery"] == 7
    assert shown["routes"] == {"down": {"failed": 2}, "slow": {"pending": 1, "merged": 2}, "lane": {"pending": 2}}
    assert shown["deliveries"]["failed"] == 2
    assert shown["oldest"] < shown["newest"]
    assert shown["size_bytes"] > 0
    text = run("db", "stats", "--config", served.config).out
    assert "ROUTE  PENDING  HELD  DELIVERED  FAILED  MERGED  CANCELLED\ndown   0        0     0          2" in text


def test_a_store_that_is_whole_passes(served: RelayProcess) -> None:
    ended = run("db", "check", "--json", "--config", served.config)
    assert ended.code == 0
    assert ended.json == {
        "ok": True,
        "checked": [
            "integrity", "references", "conservation", "events", "merged", "carriers", "bodies", "windows", "lanes",
            "checksums",
        ],
        "faults": [],
    }  # fmt: skip


SPOILT = {
    "conservation": "DELETE FROM delivery WHERE id = (SELECT min(id) FROM delivery WHERE route = 'lane')",
    "events": "DELETE FROM event WHERE id = (SELECT event_id FROM delivery WHERE route = 'down' LIMIT 1)",
    "merged": "UPDATE delivery SET merged_into = (SELECT max(id) FROM delivery) + 1 WHERE state = 'merged'",
    "carriers": "UPDATE delivery SET merged_into = id WHERE state = 'merged'",
    "bodies": "DELETE FROM body WHERE event_id IN (SELECT event_id FROM delivery WHERE state = 'pending')",
    "windows": "UPDATE delivery SET due = 0 WHERE open = 1",
    "lanes": "UPDATE delivery SET blocked = 1 WHERE route = 'lane'",
    "references": "INSERT INTO body VALUES (4711, x'00')",
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_must_hold_and_does_not_is_found_by_both(copied: Path, name: str) -> None:
    spoil(copied, SPOILT[name])
    ended = run("db", "check", "--json", "--config", copied)
    assert ended.code == 1
    faults = {fault["name"]: fault for fault in ended.json["faults"]}
    assert faults[name]["count"] >= 1
    assert faults[name]["examples"]
    assert checks(run("doctor", "--json", "--config", copied))[name]["verdict"] == "failed"
    assert f"failed  {name}" in run("db", "check", "--config", copied).out


def test_a_window_whose_carrier_was_sent_is_found(copied: Path) -> None:
    spoil(copied, "UPDATE delivery SET state = 'delivered' WHERE open = 1")
    assert checks(run("doctor", "--json", "--config", copied))["windows"]["verdict"] == "failed"


def test_what_was_pruned_is_not_missed(copied: Path) -> None:
    """A carrier that is no newer than what was pruned may have been pruned."""
    spoil(copied, "UPDATE delivery SET merged_into = 1 WHERE state = 'merged'")
    assert run("db", "check", "--config", copied).code == 1
    spoil(copied, "INSERT INTO meta VALUES ('pruned_deliveries_up_to', '1')")
    assert run("db", "check", "--config", copied).code == 0


def test_what_is_merged_into_a_merged_one_is_found(copied: Path) -> None:
    last = "(SELECT max(id) FROM delivery WHERE state = 'merged')"
    spoil(copied, f"UPDATE delivery SET merged_into = {last} WHERE state = 'merged' AND id < {last}")
    [fault] = run("db", "check", "--json", "--config", copied).json["faults"]
    assert (fault["name"], fault["count"]) == ("carriers", 1)


def test_a_body_that_is_forgotten_or_was_removed_before_a_retry_is_not_missed(copied: Path) -> None:
    spoil(copied, "DELETE FROM body")
    spoil(copied, "UPDATE event SET headers = '[]' WHERE id IN (SELECT event_id FROM delivery WHERE route = 'lane')")
    spoil(copied, "UPDATE delivery SET \"trigger\" = 'manual' WHERE route = 'slow'")
    assert run("db", "check", "--config", copied).code == 0


def test_a_body_that_is_not_what_was_accepted_is_found_by_who_reads_all(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[Survey.__module__], "AT_ONCE", 3)
    spoil(copied, "UPDATE body SET content = x'00' WHERE event_id IN (SELECT max(id) FROM event)")
    [fault] = run("db", "check", "--json", "--config", copied).json["faults"]
    assert (fault["name"], fault["count"]) == ("checksums", 1)
    assert fault["examples"][0].startswith("evt_")
    assert run("db", "check", "--config", copied).code == 1
    assert run("doctor", "--json", "--config", copied).code == 0
    told: list[tuple[int, int]] = []
    with Survey(copied.parent / "relay.db") as opened:
        opened.faults(True, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert {total for _, total in told} == {len(opened.laws(False)) + 3}


def damaged(config: Path, *names: str) -> None:
    """Overwrite most of the first pages of these tables and indexes."""
    path = config.parent / "relay.db"
    with closing(sqlite3.connect(path)) as connection:
        marks = ",".join("?" * len(names))
        found = connection.execute(f"SELECT rootpage FROM sqlite_master WHERE name IN ({marks})", names).fetchall()
    with path.open("r+b") as file:
        for [root] in found:
            file.seek((root - 1) * 4096)
            file.write(b"\xff" * 4096)


@pytest.mark.parametrize("names", [["delivery_event"], ["delivery", "delivery_event"], ["attempt"], ["event"]])
def test_a_damaged_page_is_for_the_operator(copied: Path, names: list[str]) -> None:
    damaged(copied, *names)
    assert run("db", "check", "--config", copied).code == 78
    ended = run("doctor", "--json", "--config", copied)
    assert ended.code == 78
    assert any("restore a backup" in check["detail"] for check in ended.json["checks"])
    to = copied.parent / "copy.db"
    line = complaint(run("db", "backup", to, "--config", copied), 78)
    assert "it is damaged (" in line
    assert line.endswith(": restore a backup")
    assert not to.exists()


@pytest.mark.parametrize("name", ["event", "delivery"])
def test_damage_met_while_counting_is_for_the_operator(copied: Path, name: str) -> None:
    damaged(copied, name)
    line = complaint(run("db", "stats", "--config", copied), 78)
    assert line.endswith(": restore a backup")


def test_text_that_is_none_is_damage(copied: Path) -> None:
    spoil(copied, "UPDATE delivery SET route = CAST(x'ff' AS TEXT) WHERE route = 'lane'")
    line = complaint(run("db", "stats", "--config", copied), 78)
    assert line.endswith(": restore a backup")


def test_a_backup_is_whole_private_and_never_replaces_anything_unasked(served: RelayProcess, tmp_path: Path) -> None:
    to = tmp_path / "copy.db"
    where = ["--config", str(served.config)]
    shown = run("db", "backup", to, "--json", *where).json
    assert shown["size_bytes"] == to.stat().st_size
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]
    before = to.read_bytes()
    assert "is there already" in complaint(run("db", "backup", to, *where), 1)
    assert to.read_bytes() == before
    assert run("db", "backup", to, "--force", *where).code == 0
    with closing(sqlite3.connect(to)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (8,)
        [[marked]] = connection.execute("SELECT value FROM meta WHERE key = 'backup'").fetchall()
        assert marked.endswith("Z")


def test_a_backup_never_goes_where_the_store_is(served: RelayProcess, tmp_path: Path) -> None:
    where = ["--config", str(served.config)]
    link = tmp_path / "link.db"
    link.symlink_to(served.config.parent / "relay.db")
    for to in (served.config.parent / "relay.db", link):
        assert "is the store itself" in complaint(run("db", "backup", to, "--force", *where), 1)
    assert "does not exist" in complaint(run("db", "backup", tmp_path / "no" / "copy.db", *where), 1)


def test_a_running_relay_prunes_when_it_is_asked(tmp_path: Path) -> None:
    config = write_config(tmp_path, TEXT.format(*free_ports(3)))
    done = {"events": 3, "deliveries": 5, "bodies": 1}
    with standing_in({"POST /store/prune": lambda query, handler: done}) as admin:
        assert run("db", "prune", "--json", "--url", admin.url, "--config", config).json == done
        said = run("db", "prune", "--url", admin.url, "--config", config).out
        assert said == "3 events and 5 deliveries removed, and the bodies of 1 that are kept\n"


def test_without_a_daemon_the_file_itself_is_pruned(copied: Path) -> None:
    copied.write_text(copied.read_text().replace("relay.db'}", "relay.db', retention: 500ms}"))
    waiting = run("logs", "--status", "pending,held,merged", "--json", "--config", copied).json["items"]
    ended = run("logs", "--status", "failed", "--json", "--config", copied).json["items"]
    unmatched = run("logs", "--status", "unmatched", "--json", "--config", copied).json["items"]
    assert waiting
    assert ended
    would = run("db", "prune", "--dry-run", "--json", "--config", copied).json
    said = run("db", "prune", "--dry-run", "--config", copied).out
    assert said == "3 events and 2 deliveries would be removed, and the bodies of 0 that are kept\n"
    assert run("logs", "--status", "failed", "--json", "--config", copied).json["items"] == ended
    done = run("db", "prune", "--json", "--config", copied).json
    assert would == {**done, "dry_run": True}
    assert (done["events"], done["deliveries"]) == (len(ended) + len(unmatched), len(ended))
    assert run("logs", "--json", "--config", copied).json["items"] == waiting
    assert run("db", "check", "--config", copied).code == 0
    nothing = "0 events and 0 deliveries removed, and the bodies of 0 that are kept\n"
    assert run("db", "prune", "--config", copied).out == nothing


def test_a_running_relay_says_what_it_would_prune(tmp_path: Path) -> None:
    config = write_config(tmp_path, TEXT.format(*free_ports(3)))
    would = {"events": 1, "deliveries": 5, "bodies": 0}
    with standing_in({"POST /store/prune": lambda query, handler: would}) as admin:
        args = ("db", "prune", "--dry-run", "--url", admin.url, "--config", config)
        assert run(*args, "--json").json == {**would, "dry_run": True}
        said = run(*args).out
        assert said == "1 event and 5 deliveries would be removed, and the bodies of 0 that are kept\n"
        assert admin.asked == [("POST /store/prune", {"dry_run": "1"})] * 2


def test_what_would_be_pruned_is_counted_beside_who_writes_and_without_a_way_to(copied: Path) -> None:
    """Nobody else has to let go of the file, and nothing is made of it that was not there."""
    copied.write_text(copied.read_text().replace("relay.db'}", "relay.db', retention: 30d, bodies: 500ms}"))
    path = copied.parent / "relay.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        would = run("db", "prune", "--dry-run", "--json", "--config", copied).json
        writer.execute("ROLLBACK")
    assert would == {**run("db", "prune", "--json", "--config", copied).json, "dry_run": True}
    assert (would["events"], would["bodies"]) == (0, 3)


def test_without_a_store_db_says_so(tmp_path: Path) -> None:
    config = write_config(tmp_path, TEXT.format(*free_ports(3)))
    for args in (["stats"], ["check"], ["backup", tmp_path / "to.db"], ["prune"], ["prune", "--dry-run"]):
        assert "there is no store at" in complaint(run("db", *args, "--config", config), 1)
    (tmp_path / "relay.db").write_bytes(b"These are my holiday photos. " * 400)
    for args in (["stats"], ["check"], ["backup", tmp_path / "to.db"], ["prune", "--dry-run"]):
        assert "not a SQLite database" in complaint(run("db", *args, "--config", config), 78)


# --- doctor -----------------------------------------------------------------------------------------------------------


def checks(ended: Ended) -> dict[str, dict[str, Any]]:
    """By name; of several of a name the worst."""
    worst = [Verdict.OK, Verdict.WARNING, Verdict.FAILED]
    found: dict[str, dict[str, Any]] = {}
    for check in ended.json["checks"]:
        before = found.get(check["name"])
        if before is None or worst.index(check["verdict"]) > worst.index(before["verdict"]):
            found[check["name"]] = check
    return found


def test_a_relay_that_is_well_has_nothing_to_fear(served: RelayProcess) -> None:
    ended = run("doctor", "--json", "--config", served.config)
    assert ended.code == 0
    assert ended.json["ok"] is True
    found = checks(ended)
    assert {name for name, check in found.items() if check["verdict"] != "ok"} == set()
    assert found.keys() == {
        "config", "secrets", "daemon", "certificates", "dns", "disk", "integrity", "references", "conservation",
        "events", "merged", "carriers", "bodies", "windows", "lanes", "overdue", "clock",
    }  # fmt: skip


def test_each_check_is_a_line_that_fits_a_terminal(served: RelayProcess) -> None:
    lines = run("doctor", "--config", served.config).out.splitlines()
    assert all(line.split()[0] == "ok" for line in lines)
    assert max(map(len, at_terminal(60, "doctor", "--config", str(served.config)))) <= 60


def test_without_a_daemon_the_file_is_looked_at_all_the_same(copied: Path) -> None:
    ended = run("doctor", "--json", "--config", copied)
    assert ended.code == 0
    assert checks(ended)["daemon"]["verdict"] == "warning"
    assert checks(ended)["conservation"]["verdict"] == "ok"


def test_a_sqlite_that_is_too_old_is_found_before_there_is_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path, TEXT.format(*free_ports(3)))
    assert checks(run("doctor", "--json", "--config", path))["config"]["verdict"] == "ok"
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    ended = run("doctor", "--json", "--config", path)
    assert ended.code == 1
    assert "store.url: sqlite: needs SQLite 3.37 or later" in checks(ended)["config"]["detail"]


def test_mistakes_of_the_config_are_told_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("rowtes: []\n")
    ended = run("doctor", "--json", "--config", path)
    assert ended.code == 1
    assert checks(ended)["config"]["detail"] == f"{path}:1:1: rowtes: unknown key (did you mean 'routes'?)"


def test_secrets_that_cannot_be_read_fail_unless_the_daemon_has_found_them(tmp_path: Path) -> None:
    text = TEXT.format(*free_ports(3)).replace("verify: none", 'token: "${file:/nowhere/token}"')
    ended = run("doctor", "--json", "--config", write_config(tmp_path, text))
    assert ended.code == 1
    assert "/nowhere/token" in checks(ended)["secrets"]["detail"]
    health = {"status": "ok", "version": "1", "checks": {}, "config": {"generation": 1, "sha256": ""}}
    with standing_in({"GET /health": lambda query, handler: health}) as admin:
        ended = run("doctor", "--json", "--url", admin.url, "--config", tmp_path / "config.yaml")
    assert checks(ended)["secrets"]["verdict"] == "warning"
    assert "'relay reload' takes it" in checks(ended)["daemon"]["detail"]


def test_a_daemon_that_fails_or_wants_a_token_is_told_as_such(copied: Path) -> None:
    health = {
        "status": "failing",
        "version": "1",
        "checks": {"store": "the disk is gone", "disk": "ok"},
        "config": {"generation": 1, "sha256": ""},
    }
    with standing_in({"GET /health": lambda query, handler: (503, health)}) as admin:
        ended = run("doctor", "--json", "--url", admin.url, "--config", copied)
        assert ended.code == 1
        assert checks(ended)["daemon"]["detail"] == "failing: store: the disk is gone: see its log"
        admin.answers["GET /health"] = lambda query, handler: (401, {"error": "unauthorized", "detail": "no"})
        for url, shown in (
            (admin.url, admin.url),
            (admin.url.replace("//", "//ann:hush@"), admin.url.replace("//", "//***@")),
        ):
            said = checks(run("doctor", "--json", "--url", url, "--config", copied))["daemon"]["detail"]
            assert said == f"the relay at {shown} wants one of its tokens: --token or $RELAY_TOKEN"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((421, {"error": "misdirected_request", "detail": "this Host is none of mine"}), "this Host is none of mine"),
        ((200, ["another", "program"]), "is not relay's admin side"),
        ((503, None), "is not relay's admin side"),
    ],
)
def test_what_answers_in_the_daemons_place_fails_and_all_else_is_looked_at(
    copied: Path, answer: tuple[int, object], why: str
) -> None:
    with standing_in({"GET /health": lambda query, handler: answer}) as admin:
        ended = run("doctor", "--json", "--url", admin.url, "--config", copied)
    assert ended.code == 1
    found = checks(ended)
    assert found["daemon"]["verdict"] == "failed"
    assert why in found["daemon"]["detail"]
    assert found["conservation"]["verdict"] == found["clock"]["verdict"] == "ok"


@pytest.mark.parametrize(("days", "verdict"), [(365, "ok"), (13, "warning"), (-1, "failed")])
def test_certificates_are_looked_at_before_they_expire(tmp_path: Path, days: int, verdict: str) -> None:
    paths = write_certificate(tmp_path, "server", days)
    tls = f"tls: {{cert: {paths[0]}, key: {paths[1]}}}"
    text = TEXT.format(*free_ports(3)).replace("server: {", f"server: {{{tls}, ")
    found = checks(run("doctor", "--json", "--config", write_config(tmp_path, text)))["certificates"]
    assert found["verdict"] == verdict
    paths[0].unlink()
    assert checks(run("doctor", "--json", "--config", tmp_path / "config.yaml"))["certificates"]["verdict"] == "failed"


def test_names_that_do_not_resolve_are_told_with_their_routes(tmp_path: Path) -> None:
    text = TEXT.format(*free_ports(3)).replace('http://127.0.0.1:1"', 'http://nobody.invalid"')
    found = checks(run("doctor", "--json", "--config", write_config(tmp_path, text)))["dns"]
    assert found["verdict"] == "failed"
    assert found["detail"].startswith("nobody.invalid (route slow, route lane): ")


def test_the_names_of_notifiers_servers_are_looked_up(tmp_path: Path) -> None:
    notifiers = """notifiers:
  mail: {type: email, smtp: "smtp://mail.invalid", from: a@example.com, to: b@example.com}
  chat: {type: webhook, url: "https://chat.invalid/hook"}
  here: {type: webhook, url: "http://127.0.0.1:9/hook"}
  elsewhere: {type: webhook, url: "${file:/nowhere/url}"}
"""
    ended = run("doctor", "--json", "--config", write_config(tmp_path, notifiers + TEXT.format(*free_ports(3))))
    said = [check["detail"] for check in ended.json["checks"] if check["name"] == "dns"]
    assert sorted(detail.partition(": ")[0] for detail in said) == [
        "chat.invalid (notifier chat)",
        "mail.invalid (notifier mail)",
    ]


def test_a_clock_that_is_behind_the_store_is_noticed(copied: Path) -> None:
    later = Ids(0).draw(round((datetime.now(UTC) + timedelta(hours=2)).timestamp() * 1000))
    spoil(copied, f"UPDATE delivery SET id = {later} WHERE id = (SELECT max(id) FROM delivery)")
    ended = run("doctor", "--json", "--config", copied)
    assert ended.code == 1
    assert "behind the newest entry of the store" in checks(ended)["clock"]["detail"]


def test_what_is_stored_while_the_doctor_reads_does_not_make_the_clock_wrong(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = datetime.now(UTC)
    said = [began]

    def two_minutes_later(query: dict[str, str], handler: object) -> dict[str, Any]:
        said.append(began + timedelta(minutes=2))
        newest = Ids(0).draw(round(said[-1].timestamp() * 1000))
        spoil(copied, f"UPDATE delivery SET id = {newest} WHERE id = (SELECT max(id) FROM delivery)")
        return {"status": "ok", "version": "1", "checks": {}, "config": {"generation": 1, "sha256": ""}}

    monkeypatch.setattr(SystemClock, "now", lambda self: said[-1])
    with standing_in({"GET /health": two_minutes_later}) as admin:
        ended = run("doctor", "--json", "--url", admin.url, "--config", copied)
    assert len(said) == 2
    assert (ended.code, checks(ended)["clock"]["verdict"]) == (0, "ok")


def test_a_clock_may_be_as_far_behind_the_store_as_health_lets_it() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert checkup.clock(now, now + BEHIND - timedelta(milliseconds=1), 1.0, 1.1).verdict is Verdict.OK
    assert checkup.clock(now, now + BEHIND, 1.0, 1.1).verdict is Verdict.FAILED


def test_a_clock_that_is_set_meanwhile_is_noticed() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert checkup.clock(now, now, 1.0, 1.1).verdict is Verdict.OK
    assert checkup.clock(now, now, -30.0, 1.1).verdict is Verdict.WARNING


@pytest.mark.parametrize(
    ("free", "verdict"), [(1 << 30, Verdict.OK), (100 << 20, Verdict.WARNING), (1 << 20, Verdict.FAILED)]
)
def test_a_disk_that_fills_up_is_noticed(free: int, verdict: Verdict) -> None:
    assert checkup.disk(Space(free, 32 << 20, 10 << 30)).verdict is verdict


@pytest.mark.parametrize(("size", "kept", "enough"), [(10 << 10, 32, 256), (512, 32, 128), (64, 8, 16), (8, 1.5, 3)])
def test_what_is_little_and_what_is_kept_goes_by_the_size_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, kept: float, enough: int
) -> None:
    def found(free: int) -> Space:
        blocks = os.statvfs_result((1, 1, size << 20, free, free, 0, 0, 0, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: blocks)
        return space(tmp_path / "relay.db")

    assert not found(enough << 20).little
    assert found((enough << 20) - 1).little
    assert not found(int(kept * (1 << 20))).lacking
    assert found(int(kept * (1 << 20)) - 1).lacking


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB."""
    try:
        with small_disk(tmp_path, 12 << 20) as path:
            yield path
    except Skipped as why:
        pytest.skip(str(why))


def test_on_a_small_disk_events_are_refused_where_it_is_said_and_nowhere_else(tmp_path: Path, small: Path) -> None:
    text = f"store: {{url: 'sqlite:{small}/relay.db'}}\n{TEXT.format(*free_ports(3))}"
    with serving(write_config(tmp_path, text)) as relay:
        send(relay.config, "nobody's")
        found = checks(run("doctor", "--json", "--config", relay.config))
        assert (found["disk"]["verdict"], found["daemon"]["verdict"]) == ("ok", "ok")
        with contextlib.suppress(OSError):
            (small / "other").write_bytes(b"x" * (12 << 20))
        os.truncate(small / "other", (small / "other").stat().st_size - (1 << 20))
        body = relay.config.parent / "body.json"
        while run("send", "open", "--file", body, "--config", relay.config).code == 0:
            continue  # relay looks once a second
        disk = checks(run("doctor", "--json", "--config", relay.config))["disk"]
        assert (disk["verdict"], "events are refused" in disk["detail"]) == ("failed", True)


def test_what_is_overdue_fails_only_where_it_might_be_sent(copied: Path) -> None:
    from relay.config import load

    spoil(copied, "UPDATE delivery SET due = 1000 WHERE route = 'lane'")
    with Survey(copied.parent / "relay.db") as opened:
        found = opened.overdue(datetime.now(UTC) - timedelta(minutes=5))
    assert found == {"lane": Overdue(1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))}, "what is blocked is not due"
    config = load(copied).config
    assert [check.verdict for check in checkup.overdue(config, found, {}, True)] == [Verdict.FAILED]
    assert [check.verdict for check in checkup.overdue(config, found, {}, False)] == [Verdict.WARNING]
    assert [check.verdict for check in checkup.overdue(config, found, {"lane": {"state": "paused"}}, True)] == [
        Verdict.OK
    ]
    slow = load(copied.read_bytes().replace(b"delay: 1h", b"rate: 1/h")).config
    assert [check.verdict for check in checkup.overdue(slow, found, {}, True)] == [Verdict.WARNING]


def test_the_doctor_changes_nothing(copied: Path) -> None:
    path = copied.parent / "relay.db"
    before = path.read_bytes()
    shutil.copy(path, copied.parent / "kept.db")
    assert run("doctor", "--config", copied).code == 0
    assert path.read_bytes() == before


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["db", "stats", "--json"], "counting"),
        (["db", "check", "--json"], "reading all of it"),
        (["doctor", "--json"], "looking at everything"),
    ],
)
def test_long_work_shows_its_progress_where_somebody_looks_and_leaves_the_output_alone(
    served: RelayProcess, args: list[str], shown: str
) -> None:
    master, slave = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(TOP)}
    with subprocess.Popen(
        command(*args, "--config", served.config), stdout=subprocess.PIPE, stderr=slave, env=environ
    ) as process:
        os.close(slave)
        told = b""
        with contextlib.suppress(OSError):  # EIO: the other side is gone
            while chunk := os.read(master, 65536):
                told += chunk
        os.close(master)
        assert process.stdout is not None
        json.loads(process.stdout.read())
    assert shown in told.decode()


def test_many_ids_show_their_progress_too(served: RelayProcess, tmp_path: Path) -> None:
    ids = [f"dlv_01M85CA5GE9CETFWDHANEQSG{place:02d}" for place in range(30)]
    answers: dict[str, Any] = {
        f"POST /logs/{one}/retry": lambda query, handler: {"delivery": log_item(ONE)} for one in ids
    }
    with standing_in(answers) as admin:
        out = tmp_path / "out"
        master, slave = pty.openpty()
        with out.open("wb") as file:
            done = subprocess.run(
                command("retry", *ids, "--url", admin.url),
                stdout=file,
                stderr=slave,
                env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(TOP)},
                check=False,
            )
        os.close(slave)
        told = os.read(master, 65536).decode()
        os.close(master)
    assert done.returncode == 0
    assert "asking the daemon" in told
    assert len(out.read_text().splitlines()) == 30


# --- beside a relay that works, and after one that was killed ---------------------------------------------------------


async def test_a_backup_that_is_made_while_events_come_in_is_one_moment_of_the_store(tmp_path: Path) -> None:
    text = """
sources: {any: {type: generic, verify: none}}
routes: [{name: off, to: {url: "http://127.0.0.1:1"}, delay: 1h}]
"""
    async with relay_here(tmp_path, text) as relay:
        taken = 0
        stop = asyncio.Event()

        async def send_on() -> None:
            nonlocal taken
            while not stop.is_set():
                assert (await relay.post("/in/any"))[0] == 200
                taken += 1

        async with asyncio.TaskGroup() as group:
            senders = [group.create_task(send_on()) for _ in range(4)]
            await until(lambda: taken > 50)
            before = taken
            with Survey(tmp_path / "relay.db") as survey:
                now = datetime.now(UTC)
                await asyncio.to_thread(survey.copy, tmp_path / "copy.db", now, lambda done, total: None)
            stop.set()
            await asyncio.wait(senders)
    with Survey(tmp_path / "copy.db") as copy:
        assert copy.faults(True, lambda done, total: None) == []
        rows = copy.figures(lambda done, total: None).rows
    assert before <= rows["event"] == rows["delivery"]


async def test_after_a_crash_what_was_committed_is_in_the_backup(tmp_path: Path) -> None:
    async with relay_process(tmp_path, "sources: {any: {type: generic, verify: none}}\n") as relay:
        async with aiohttp.ClientSession() as session:
            async with session.post(relay.public + "/in/any", data=b"{}") as answer:
                assert answer.status == 200
        relay.kill()
        done = await asyncio.to_thread(run, "db", "backup", tmp_path / "copy.db", "--config", relay.config)
    assert done.code == 0
    with Survey(tmp_path / "copy.db") as copy:
        assert copy.figures(lambda done, total: None).rows["event"] == 1
