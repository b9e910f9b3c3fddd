"""A file that an older relay wrote becomes today's, with all that is in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from relay.clock import to_ms
from relay.delivery import Delivery, Trigger
from relay.lane import Order
from relay.store import Counts, LogQuery, Unusable, WrongState
from relay.stores._sql import rows
from relay.stores.sqlite import SqliteStore, open_reader, open_store, schema
from tests.contract.desk import Desk, delivered
from tests.fakes import NOON, ManualClock

NOW = to_ms(NOON)
PER_MS = 1 << 21  # ids of one millisecond
ONE_OF_EACH = (
    # state, held_reason, trigger, attempts, error_code, merged_into
    ("pending", None, "initial", 0, None, None),
    ("pending", None, "retry", 2, "timeout", None),
    ("pending", None, "manual", 1, "timeout", None),
    ("delivered", None, "retry", 1, None, None),
    ("failed", None, "retry", 3, "http_status", None),
    ("failed", None, "initial", 0, "queue_full", None),
    ("held", "removed", "initial", 0, None, None),
    ("held", "disabled", "retry", 1, "timeout", None),
    ("held", "paused", "initial", 0, None, None),
    ("merged", None, "initial", 0, None, 1),
    ("cancelled", None, "retry", 1, "timeout", None),
)


def number(n: int) -> int:
    return (NOW - 60_000) * PER_MS + n


def deliveries(count: int) -> Iterator[tuple[Any, ...]]:
    """Rows of the first schema, in its order."""
    for n in range(1, count + 1):
        state, reason, trigger, attempts, error, into = ONE_OF_EACH[(n - 1) % len(ONE_OF_EACH)]
        yield (
            number(10 * n + 1),
            number(10 * n),
            f"route{n % 3}",
            state,
            reason,
            None if reason is None else NOW - n,
            NOW - 2 * n,
            NOW - 3 * n,
            attempts,
            attempts,
            trigger,
            500 if error == "http_status" else None,
            error,
            error and "no luck",
            12 if attempts else None,
            into and number(11),
            NOW - n,
        )


def old_file(path: Path, count: int) -> None:
    """What a relay of the first schema left behind."""
    body = b'{"a":1}'
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for statement in schema.MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO meta VALUES ('store', '12345')")
        table = list(deliveries(count))
        connection.executemany(f"INSERT INTO delivery VALUES ({', '.join('?' * 17)})", table)
        connection.executemany(
            "INSERT INTO event VALUES (?, 'blog', 'strapi', 'entry.publish', ?, NULL, NULL, NULL, NULL, 'page',"
            " 'published', 'publish', ?, NULL, NULL, '[[\"X-Odd\", \"caf\\udce9\"]]', ?, ?, 1)",
            [(row[1], NOW - 60_000, str(n % 7), sha256(body).digest(), len(body)) for n, row in enumerate(table)],
        )
        connection.executemany("INSERT INTO body VALUES (?, ?)", [(row[1], body) for row in table])
        connection.executemany(
            "INSERT INTO attempt VALUES (?, ?, 'initial', ?, 12, 'POST', 'https://example.com/', '[]', 500, '[]',"
            " x'ff', 0, 'http_status', 'no luck')",
            [(row[0], n, NOW) for row in table for n in range(1, row[8] + 1)],
        )
        connection.execute("INSERT INTO rejection VALUES (?, 'blog', ?, 401, 'no', '192.0.2.1', '[]')", (7, NOW))
        connection.execute("COMMIT")


UNCHANGED = ("meta", "body", "attempt", "rejection")
COLUMNS = (
    'id, event_id, route, state, held_reason, held_at, due, first_due, attempts, tries, "trigger", code, error_code,'
    " error_message, duration_ms, merged_into, updated_at"
)


def contents(path: Path) -> dict[str, list[Any]]:
    """Everything that the first schema knew."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        tables = {
            name: connection.execute(f"SELECT {columns} FROM {name} ORDER BY 1, 2").fetchall()
            for name, columns in (("event", rows.EVENT_COLUMNS), *((name, "*") for name in UNCHANGED))
        }
        return tables | {"delivery": connection.execute(f"SELECT {COLUMNS} FROM delivery ORDER BY id").fetchall()}


async def opened(path: Path) -> tuple[SqliteStore, Desk]:
    clock = ManualClock()
    store = await open_store(path, clock=clock)
    return store, Desk(store, clock, lambda: open_store(path, clock=clock))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.mark.parametrize("count", [0, len(ONE_OF_EACH), 10_000])
async def test_nothing_of_a_file_of_the_first_schema_is_lost(path: Path, count: int) -> None:
    old_file(path, count)
    before = contents(path)
    assert len(before["delivery"]) == count
    with pytest.raises(Unusable, match="older relay"):
        await open_reader(path)
    store, _ = await opened(path)
    assert contents(path) == before
    waits = [row[3:5] for row in before["delivery"]]
    status = await store.status()
    assert (status.pending, status.held) == (
        sum(state == "pending" for state, _ in waits),
        sum(state == "held" for state, _ in waits),
    )
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        for pragma, good in (
            ("integrity_check", [("ok",)]),
            ("foreign_key_check", []),
            ("user_version", [(schema.VERSION,)]),
        ):
            assert connection.execute(f"PRAGMA {pragma}").fetchall() == good
        assert connection.execute("PRAGMA auto_vacuum").fetchall() == [(2,)]


async def test_what_was_there_before_is_found_by_every_filter(path: Path) -> None:
    old_file(path, 100)
    with closing(sqlite3.connect(path)) as connection:
        several = '[{"entry_id": "a"}, {"entry_id": "b"}, {"entry_id": null}]'
        connection.execute("UPDATE event SET changes = ?, entry_id = NULL WHERE id = ?", (several, number(10)))
        connection.execute("UPDATE event SET matched = 0, model = 'other' WHERE id = ?", (number(10),))
        connection.execute("DELETE FROM delivery WHERE event_id = ?", (number(10),))
        connection.execute("UPDATE event SET changes = ?, entry_id = NULL WHERE id = ?", (several, number(20)))
        connection.commit()
    store, _ = await opened(path)

    async def found(**filters: Any) -> int:
        return len((await store.search(LogQuery(limit=1000, **filters))).items)

    assert await found(route=("route1",)) == sum(row[2] == "route1" for row in deliveries(100)) - 1
    assert await found(model=("page",), action=("publish",)) == 99
    assert await found(entry_id=("3",)) == sum((n % 7) == 3 for n in range(100))
    assert await found(code=((500, 599),)) == sum(row[11] == 500 for row in deliveries(100))
    assert await found(status=("unmatched",), model=("other",)) == 1
    assert await found(status=("unmatched",), entry_id=("b",)) == 1
    assert await found(entry_id=("a",)) == 1
    await store.close()


async def test_what_waited_before_goes_on(path: Path) -> None:
    old_file(path, len(ONE_OF_EACH))
    store, desk = await opened(path)
    routes = ("route0", "route1", "route2")
    pending = [row[0] for row in deliveries(len(ONE_OF_EACH)) if row[3] == "pending"]
    found = [delivery for route in routes for delivery in await desk.claim(route)]
    assert sorted(delivery.id for delivery in found) == pending
    assert all(delivery.event.sha256 and delivery.reserved and delivery.lane is None for delivery in found)
    again = [delivery.id for route in routes for delivery in await store.claim(route, True, NOON, 9, ())]
    assert again == [number(21)], "one that waits for another try, by the store's own lights"
    for delivery in found:
        await store.record(delivered(delivery, delivery.attempts + 1))
    assert sum((await store.settle(routes, {})).released.values()) == 3
    resumed = [delivery.trigger for route in routes for delivery in await desk.claim(route)]
    assert sorted(resumed) == [Trigger.INITIAL, Trigger.RESUME, Trigger.RETRY]
    await store.close()


async def test_what_had_ended_before_is_as_it_was(path: Path) -> None:
    old_file(path, len(ONE_OF_EACH))
    store, desk = await opened(path)
    done = await store.retry_all(LogQuery(), NOON)
    assert done.count == 2
    merged = next(row for row in deliveries(len(ONE_OF_EACH)) if row[3] == "merged")
    with pytest.raises(WrongState, match="merged"):
        await store.retry(merged[0], NOON)
    detail = await store.delivery(merged[15])
    assert detail is not None
    assert detail.merged == [merged[1]]
    failed = next(row for row in deliveries(len(ONE_OF_EACH)) if row[3] == "failed")
    detail = await store.delivery(failed[0])
    assert detail is not None
    assert [attempt.n for attempt in detail.attempts] == [1, 2, 3]
    assert desk.store.ids.text("dlv_", merged[0]) == (await store.deliveries_of(merged[1]))[0].item.id
    await store.close()


async def test_what_waited_before_is_put_into_lanes(path: Path) -> None:
    old_file(path, 100)
    store, desk = await opened(path)
    await store.settle(["route0"], {})
    before = store.counts()["route0"].pending
    await desk.follow(route0=Order.ROUTE)
    sent: list[Delivery] = []
    while found := await desk.claim("route0"):
        assert len(found) == 1
        await store.record(delivered(found[0], found[0].attempts + 1))
        sent += found
    assert len(sent) == before
    assert store.counts().get("route0", Counts()) == Counts()
    await store.close()


async def test_a_file_that_cannot_be_brought_up_to_date_is_left_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_file(path, len(ONE_OF_EACH))
    before = contents(path)
    monkeypatch.setattr(
        schema, "MIGRATIONS", (schema.MIGRATIONS[0], (*schema.MIGRATIONS[1], "nonsense"), *schema.MIGRATIONS[2:])
    )
    with pytest.raises(Unusable, match="nonsense"):
        await opened(path)
    assert contents(path) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(1,)]
    monkeypatch.undo()
    store, _ = await opened(path)
    assert contents(path) == before
    await store.close()
