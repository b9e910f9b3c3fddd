"""A database of PostgreSQL looked at as a whole: what must always hold, and what is said where it does not."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from relay.store import Unavailable, Unusable
from relay.stores import surveyed
from relay.stores.postgresql.survey import Survey
from relay.stores.sqlite import open_store
from relay.survey import CannotCopy
from tests.contract.desk import Desk
from tests.fakes import NOON, ManualClock
from tests.likeness import copy
from tests.postgres import PASSWORD, Cluster, Database
from tests.test_postgres_reader import never
from tests.test_search import some_traffic


def nothing(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with something of everything in it."""
    clock, path = ManualClock(), tmp_path / "relay.db"
    store = await open_store(path, clock=clock)
    await some_traffic(Desk(store, clock, never), store, clock, random.Random(3))
    await store.close()
    return path


@pytest.fixture
def filled(path: Path, database: Database) -> Database:
    copy(path, database.url)
    return database


def test_it_says_of_a_database_what_it_would_of_a_file(path: Path, filled: Database) -> None:
    with surveyed(f"sqlite:{path}") as file, surveyed(filled.url) as found:
        theirs, ours = file.figures(nothing), found.figures(nothing)
        assert ours.routes == theirs.routes
        assert {name: ours.rows[name] for name in theirs.rows if name != "meta"} == {
            name: number for name, number in theirs.rows.items() if name != "meta"
        }
        assert ours.rows["tally"] == len(ours.routes)
        assert (ours.oldest, ours.newest) == (theirs.oldest, theirs.newest)
        assert ours.size_bytes > 1 << 20
        assert ours.location == f"postgresql://127.0.0.1:{filled.cluster.port}/{filled.name}"
        assert found.newest() == file.newest() is not None
        assert found.states("order") == file.states("order")
        for later in (timedelta(), timedelta(days=1)):
            assert found.overdue(NOON + later) == file.overdue(NOON + later)
        assert found.overdue(NOON + timedelta(days=1))
        assert found.faults(True, nothing) == file.faults(True, nothing) == []
        assert set(file.laws(True)) | {"tallies"} == set(found.laws(True))


@pytest.mark.parametrize(
    ("law", "damage"),
    [
        ("conservation", "UPDATE event SET matched = matched + 1 WHERE id = (SELECT min(id) FROM event)"),
        ("events", "UPDATE delivery SET event_id = 5 WHERE id = (SELECT min(id) FROM delivery)"),
        ("references", "DELETE FROM event WHERE id = (SELECT min(event_id) FROM body)"),
        ("references", "UPDATE attempt SET delivery_id = 5 WHERE delivery_id = (SELECT min(delivery_id) FROM attempt)"),
        ("references", "UPDATE delivery SET shape = 99999 WHERE id = (SELECT min(id) FROM delivery)"),
        (
            "carriers",
            "UPDATE delivery SET state = 'merged', held_reason = NULL, held_at = NULL, merged_into = id"
            " WHERE id = (SELECT min(id) FROM delivery)",
        ),
        (
            "merged",
            "UPDATE delivery SET state = 'merged', held_reason = NULL, held_at = NULL,"
            " merged_into = (SELECT max(id) + 1 FROM delivery) WHERE id = (SELECT min(id) FROM delivery)",
        ),
        ("bodies", "DELETE FROM body WHERE event_id = (SELECT min(event_id) FROM delivery WHERE state = 'pending')"),
        (
            "windows",
            "UPDATE delivery SET open = 1 WHERE id = (SELECT min(id) FROM delivery WHERE state = 'delivered')",
        ),
        (
            "lanes",
            "UPDATE delivery SET lane = 'x', blocked = 1"
            " WHERE id = (SELECT min(id) FROM delivery WHERE state = 'held')",
        ),
        ("tallies", "UPDATE tally SET pending = pending + 1 WHERE route = 'www'"),
        ("tallies", "DELETE FROM tally WHERE route = 'www'"),
        ("tallies", "INSERT INTO tally VALUES ('nobody', 3, 1, 0)"),
        ("checksums", "UPDATE body SET content = 'x' WHERE event_id = (SELECT min(event_id) FROM body)"),
        ("integrity", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'delivery_shape'::regclass"),
    ],
)
def test_what_does_not_hold_is_told(filled: Database, law: str, damage: str) -> None:
    filled.sql(f"SET search_path = relay; {damage}")
    with surveyed(filled.url) as found:
        told = {fault.name: fault for fault in found.faults(True, nothing)}
    assert law in told
    assert told[law].count >= 1
    assert told[law].examples


def test_where_amcheck_is_all_indexes_are_read_against_their_tables(filled: Database) -> None:
    filled.sql("CREATE EXTENSION amcheck SCHEMA public; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC")
    # Of an index that says that it holds what it does not: rows are taken out of its sight.
    filled.sql(
        "SET search_path = relay;"
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'delivery_code'::regclass;"
        'INSERT INTO delivery (id, event_id, route, due, first_due, attempts, tries, "trigger", updated_at, code)'
        " SELECT 7, min(id), 'www', 1, 1, 0, 0, 'event', 1, 200 FROM event;"
        "UPDATE pg_index SET indisready = true WHERE indexrelid = 'delivery_code'::regclass;"
    )
    with surveyed(filled.url) as found:
        assert "integrity" not in {fault.name for fault in found.faults(False, nothing)}
        [fault] = [fault for fault in found.faults(True, nothing) if fault.name == "integrity"]
    assert "delivery_code" in fault.examples[0]


def test_it_cannot_write(filled: Database) -> None:
    with Survey(filled.url) as found, pytest.raises(Unavailable, match="read-only"):
        found._all("DELETE FROM meta")


def test_a_copy_is_made_with_pg_dump(filled: Database, tmp_path: Path) -> None:
    url = filled.cluster.url(filled.name, password=PASSWORD)
    with Survey(url) as found, pytest.raises(CannotCopy) as told:
        found.copy(tmp_path / "relay.dump", NOON, nothing)
    assert (
        f"'pg_dump --format=custom --schema=relay --file={tmp_path}/relay.dump"
        f" postgresql://relay@127.0.0.1:{filled.cluster.port}/{filled.name}'"
    ) in str(told.value)
    assert PASSWORD not in str(told.value)
    assert "PGPASSWORD" in str(told.value)


def test_what_is_no_store_is_said_to_be_none(database: Database, postgres: Cluster) -> None:
    with pytest.raises(Unusable, match="there is no store of relay's in it yet"):
        Survey(database.url)
    with pytest.raises(Unusable, match=r'"nowhere" does not exist'):
        Survey(postgres.url("nowhere"))
