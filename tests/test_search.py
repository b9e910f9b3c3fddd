"""Whatever filters are combined: the store finds, page by page, what looking at each delivery would find."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from relay.clock import rfc3339
from relay.delivery import Attempt, Code, Delivery, Failure, LogItem, Rejection, Request, Response, Result, State
from relay.event import Change, Description
from relay.ids import RejectionId
from relay.store import LogQuery, Page
from relay.stores._sql import search, shapes
from relay.stores.sqlite import SqliteStore, open_store
from relay.web import logquery
from tests.contract.desk import Desk
from tests.fakes import ManualClock

pytestmark = pytest.mark.long

ENTRIES = ("1", "12", "123", "é", "a%_b", None)
EVENTS = ("entry.publish", "entry.update", "100%", None)
CODES = (200, 202, 404, 500, 503, None)
EVERYTHING = ",".join(logquery.STATUSES)
MOST_PAGES = {1: 8, 7: 25, 1000: 25}
"""That are turned, by how much is on each."""


async def some_traffic(desk: Desk, store: SqliteStore, clock: ManualClock, draw: random.Random) -> None:
    """Events of all kinds; deliveries in all states."""
    told: list[Delivery] = []
    for _ in range(250):
        clock.advance(draw.choice((0.001, 1, 60)))
        changes = tuple(
            Change(
                model=draw.choice(("page", "post", None)),
                stage=draw.choice(("draft", "published")),
                action=draw.choice(("publish", "delete")),
                entry_id=draw.choice(ENTRIES),
            )
            for _ in range(draw.choice((1, 1, 1, 3)))
        )
        source = draw.choice(("blog", "shop"))
        event = desk.event(source=source, description=Description(draw.choice(EVENTS), changes))
        deliveries = [desk.owe(event, route) for route in ("www", "search", "audit") if draw.random() < 0.4]
        await desk.put(event, deliveries)
        told += deliveries
        if draw.random() < 0.2:
            number = RejectionId(store.ids.draw(int(clock.now().timestamp() * 1000)))
            store.reject(Rejection(number, source, clock.now(), draw.choice((401, 400)), "no such token", "::1", ()))
    for delivery in told:
        await end(store, delivery, clock, draw)
    replayed = draw.sample(told, 20)
    for delivery in replayed:
        await desk.replay(delivery.event, draw.choice(("www", "audit")))
    desk.paused.add("audit")
    await desk.settle("www", "search", "audit")


async def end(store: SqliteStore, delivery: Delivery, clock: ManualClock, draw: random.Random) -> None:
    """One of the ways in which a delivery goes on."""
    what = draw.random()
    if what < 0.2:
        return
    if what < 0.3:
        await store.cancel(delivery.id, clock.now())
        return
    code = draw.choice(CODES)
    failure = (
        Failure(Code.TIMEOUT if code is None else Code.HTTP_STATUS, f"{code} of 100%_sure") if code != 200 else None
    )
    response = None if code is None else Response(code, (), b"", False)
    made = Attempt(1, delivery.trigger, clock.now(), 12, Request("POST", "https://example.com/", ()), response, failure)
    state = draw.choice((State.FAILED, State.PENDING)) if failure else State.DELIVERED
    due = clock.now() + timedelta(minutes=1) if state is State.PENDING else None
    await store.record(Result(delivery, made, state, due, 1, failure, clock.now()))


def a_query(draw: random.Random, clock: ManualClock, some: list[LogItem]) -> dict[str, str]:
    """Filters, one to four of them."""
    one = draw.choice(some)
    middle = rfc3339(draw.choice(some).created_at)
    values = {
        "route": ["www", "search,audit", "nobody"],
        "source": ["blog", "blog,shop", "nobody"],
        "type": ["strapi", "prismic"],
        "model": ["page", "post,page", "nobody"],
        "stage": ["draft", "published,draft"],
        "action": ["publish", "delete"],
        "event": ["entry.publish", "100%", "nobody"],
        "entry_id": ["1", "12,é", "a%_b", "nobody"],
        "event_id": [one.event_id or one.id, "evt_01M85CA5GE9CERZWDHANEQSGCC"],
        "status": [*logquery.STATUSES, "failed,cancelled", "pending,held", "failed,pending", EVERYTHING],
        "code": ["500", "4xx", "200", "2xx", ">=400", "200-404,503", "418"],
        "since": [middle],
        "until": [middle],
        "q": ["1", "12", "entry.", "100%", "a%", "timeout", "SURE", "%_", "token", one.id, one.id[:16], one.id[4:13]],
    }
    return {name: draw.choice(values[name]) for name in draw.sample(list(values), draw.choice((1, 1, 2, 2, 3, 4)))}


class Searched(Protocol):
    async def search(self, query: LogQuery) -> Page: ...


async def all_pages(store: Searched, query: LogQuery) -> list[LogItem]:
    found, _ = await pages(store, query, sys.maxsize)
    return found


async def pages(store: Searched, query: LogQuery, most: int) -> tuple[list[LogItem], bool]:
    """What the first so many pages have, and whether that is all there is."""
    found: list[LogItem] = []
    for _ in range(most):
        page = await store.search(query)
        found += page.items
        if page.next is None:
            return found, True
        query = replace(query, before=page.next)
    return found, False


@pytest.fixture(params=[4096, 3], ids=["shapes", "most without a shape"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(shapes, "MOST_SHAPES", request.param)
    store = await open_store(tmp_path / "relay.db", clock=ManualClock())
    yield store
    await store.close()


@pytest.mark.parametrize("seed", range(4))
async def test_filters_find_what_looking_at_everything_would(
    store: SqliteStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, clock = random.Random(seed), ManualClock()
    if seed % 2:  # nothing is worth counting, and everything is met on the way
        monkeypatch.setattr(search, "_COUNTED", 1)
        monkeypatch.setattr(search, "_GATHERED", 1)
        monkeypatch.setattr(search, "_WAITING", 1)
    seen: dict[str, LogItem] = {}

    def told(items: Sequence[LogItem], more: bool) -> None:
        assert not more
        seen.update((item.id, item) for item in items)

    await store.watch(told)
    await some_traffic(Desk(store, clock, _never), store, clock, draw)
    everything = await all_pages(
        store, logquery.parse([("status", EVERYTHING), ("limit", "97")], clock.now(), store.ids)
    )
    assert len(everything) > 300
    assert {item.status for item in everything} == {*logquery.STATUSES} - {"merged"}
    assert {item.id: replace(seen[item.id], entries=()) for item in everything} == {
        item.id: item for item in everything
    }
    for _ in range(300):
        given = a_query(draw, clock, everything)
        pairs = [*given.items(), ("limit", draw.choice(("1", "7", "1000"))), ("order", draw.choice(("asc", "desc")))]
        query = logquery.parse(pairs, clock.now(), store.ids)
        expected = [item.id for item in everything if logquery.wants(query, seen[item.id], store.ids)]
        if query.ascending:
            expected.reverse()
        found, all_of_it = await pages(store, query, MOST_PAGES[query.limit])
        if not all_of_it:
            assert len(found) == MOST_PAGES[query.limit] * query.limit < len(expected), pairs
            del expected[len(found) :]
        assert [item.id for item in found] == expected, pairs


async def _never() -> SqliteStore:
    raise AssertionError
