"""Files that relays of every released schema really wrote are taken over by this one."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from relay.stores.sqlite import open_store, schema
from tests.fakes import ManualClock
from tests.harness import relay_here, sink

FOLDER = Path(__file__).parent / "schemas"
SCHEMAS = range(1, schema.VERSION + 1)
SOON = datetime(2026, 11, 26, 6, 55, tzinfo=UTC)  # a few minutes after they were written: nothing is too old
DIGESTS = (
    "ae2afa53f50bc98ad6f12bdbd9f2418c94de4afcf86bb1f103c08b1e38176872",
    "b77867897a642aa691d16502adb942c1c3b962e3311c44b21816bb1ba85aaeee",
    "2786c9c44df22f1222ca0555795c0cfe92709d739eabddc0a8e9d639c2c9e2da",
)


def written(folder: Path, number: int) -> Path:
    """The file that a relay of schema `number` left behind."""
    path = folder / "relay.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((FOLDER / f"{number}.sql").read_text())
    return path


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def config(sink_url: str) -> str:
    """The config that was run, with all routes sending to one sink."""
    return re.sub(r"http://127\.0\.0\.1:\d+", sink_url, (FOLDER / "config.yaml").read_text())


def test_what_is_released_is_never_edited() -> None:
    digests = tuple(sha256("\n".join(statements).encode()).hexdigest() for statements in schema.MIGRATIONS)
    assert digests == DIGESTS, (
        "a released schema is changed by a new one: a new one wants its digest, and its dump, here"
    )


def test_every_schema_has_a_file_that_a_relay_wrote() -> None:
    assert sorted(int(path.stem) for path in FOLDER.glob("*.sql")) == list(SCHEMAS)


@pytest.mark.parametrize("number", SCHEMAS)
async def test_a_file_that_was_brought_up_to_date_is_as_a_new_one(tmp_path: Path, number: int) -> None:
    def tables(path: Path) -> set[tuple[Any, ...]]:
        found = rows(path, "SELECT type, name, tbl_name, sql FROM sqlite_master")
        return {(*row[:3], row[3] and "".join(row[3].replace('"', "").split())) for row in found}

    old, new = written(tmp_path, number), tmp_path / "new.db"
    for path in (old, new):
        await (await open_store(path, clock=ManualClock(SOON))).close()
    assert tables(old) == tables(new)
    assert rows(old, "PRAGMA user_version") == [(schema.VERSION,)]
    assert rows(old, "PRAGMA integrity_check") == [("ok",)]
    assert rows(old, "PRAGMA foreign_key_check") == []


@pytest.mark.parametrize("number", SCHEMAS)
async def test_a_sqlite_without_arrows_brings_it_up_to_date_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    mentions = "SELECT entry_id, event_id FROM mention ORDER BY 1, 2"
    found = []
    for place, version in (("own", sqlite3.sqlite_version_info), ("older", (3, 37, 2))):
        (folder := tmp_path / place).mkdir()
        path = written(folder, number)
        with closing(sqlite3.connect(path)) as connection, connection:
            changes = json.dumps([{"entry_id": "one", "model": "page"}, {"entry_id": None}, {"entry_id": "two"}])
            connection.execute(
                "UPDATE event SET entry_id = NULL, changes = ? WHERE id = (SELECT min(id) FROM event)", [changes]
            )
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        await (await open_store(path, clock=ManualClock(SOON))).close()
        found.append(rows(path, mentions))
    assert found[0] == found[1]
    if number < schema.VERSION:
        assert [entry for entry, _ in found[0] if entry in ("one", "two")] == ["one", "two"]


def test_no_step_needs_arrows_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    assert not [each for step in schema.MIGRATIONS for each in step if "->" in schema._said(each)]


@pytest.mark.parametrize("number", SCHEMAS[:-1])
async def test_what_an_older_relay_wrote_is_kept_before_it_is_brought_up_to_date(tmp_path: Path, number: int) -> None:
    path = written(tmp_path, number)
    everything = ("SELECT * FROM event", "SELECT * FROM body", "SELECT * FROM delivery", "SELECT * FROM attempt")
    before = [rows(path, query) for query in everything]
    store = await open_store(path, clock=ManualClock(SOON))
    kept = tmp_path / f"relay.db.schema-{number}"
    assert f"is kept in {kept}" in "".join(store.notes())
    assert await store.restored() is None
    await store.close()
    assert [rows(kept, query) for query in everything] == before
    assert rows(kept, "PRAGMA user_version") == [(number,)]
    assert rows(kept, "PRAGMA integrity_check") == [("ok",)]
    assert kept.stat().st_mode & 0o777 == 0o600
    again = await open_store(path, clock=ManualClock(SOON))
    assert "is kept in" not in "".join(again.notes())
    await again.close()


async def test_a_disk_without_room_for_a_copy_does_not_keep_an_older_store_from_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, 1)
    room = 2 * path.stat().st_size  # enough for one of both
    disk = os.statvfs_result([1, 1, room, room, room, 0, 0, 0, 0, 255])
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    store = await open_store(path, clock=ManualClock(SOON))
    assert "without a copy" in "".join(store.notes())
    await store.close()
    assert rows(path, "PRAGMA user_version") == [(schema.VERSION,)]
    assert [file.name for file in tmp_path.iterdir() if "schema" in file.name] == []


@pytest.mark.parametrize("number", SCHEMAS)
async def test_a_relay_goes_on_with_what_an_older_one_wrote(tmp_path: Path, number: int) -> None:
    path = written(tmp_path, number)
    before = rows(path, "SELECT id, route, state, attempts FROM delivery ORDER BY id")
    waiting = [row for row in before if row[1] == "unreachable" and row[2] == "pending"]
    attempts = rows(path, "SELECT * FROM attempt")
    assert waiting
    async with sink() as destination, relay_here(tmp_path, config(destination.url), ManualClock(SOON)) as relay:
        listed = (await relay.get("/logs?limit=1000&status=pending,delivered,failed,held,merged"))["items"]
        assert sorted((item["route"], item["status"], item["attempts"]) for item in listed) == sorted(
            (route, state, made) for _, route, state, made in before
        )
        [rejected] = (await relay.get("/logs?status=rejected"))["items"]
        assert rejected["source"] == "blog"
        [unmatched] = (await relay.get("/logs?status=unmatched"))["items"]
        assert (unmatched["source"], unmatched["model"]) == ("shop", "Post")
        for item in listed:
            shown = await relay.get(f"/logs/{item['id']}")
            assert len(shown["attempts"]) == item["attempts"]
        assert destination.received == [], "nothing is due yet"
        for item in listed:
            if (item["route"], item["status"]) == ("unreachable", "pending"):
                status, _ = await relay.ask("POST", f"/logs/{item['id']}/retry")
                assert status in (200, 202)
        received = await destination.wait_count(len(waiting))
        assert {request.path for request in received} == {"/gone"}
        assert all(request.body for request in received)
        await relay.logs_when(lambda items: all(item["status"] == "delivered" for item in items), "?route=unreachable")
    assert set(attempts) <= set(rows(path, "SELECT * FROM attempt"))


@pytest.mark.parametrize("number", [number for number in SCHEMAS if number >= 2])
async def test_windows_lanes_and_pauses_of_an_older_one_are_kept(tmp_path: Path, number: int) -> None:
    written(tmp_path, number)
    async with sink() as destination, relay_here(tmp_path, config(destination.url), ManualClock(SOON)) as relay:
        [route] = [route for route in (await relay.get("/health"))["routes"] if route["name"] == "paused"]
        assert (route["state"], route["reason"]) == ("paused", "a freeze")
        assert route["held"] >= 1
        [window] = (await relay.get("/windows"))["items"]
        assert (window["route"], len(window["events"])) == ("windowed", 2 if number == 2 else 4)
        status, _ = await relay.ask("POST", f"/windows/{window['id']}/flush")
        assert status == 200
        [request] = await destination.wait_count(1)
        assert request.path == "/window"
