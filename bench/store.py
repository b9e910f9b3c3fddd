"""How many events a second the store takes in, each on disk before it counts, and followed by its result."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from hashlib import sha256
from time import perf_counter, process_time

from bench.place import Place, Table
from relay.clock import SystemClock, to_ms
from relay.delivery import Attempt, Delivery, Owed, Request, Response, Result, State
from relay.event import Change, Description, Event
from relay.ids import DeliveryId, EventId
from relay.stores.sqlite import SqliteStore, open_store

BODY = b'{"event":"entry.publish","entry":{"id":1,"text":"' + b"x" * 429 + b'"}}'
HEADERS = (
    ("Host", "relay.example.com"),
    ("User-Agent", "axios/1.6"),
    ("Content-Type", "application/json"),
    ("X-Strapi-Event", "entry.publish"),
    ("Authorization", "***"),
    ("Content-Length", "480"),
)
SENT = Request(
    "POST",
    "https://api.example.com/hooks/***",
    (
        ("Content-Type", "application/json"),
        ("User-Agent", "relay/1.0"),
        ("webhook-id", "dlv_01J00000000000000000000000"),
        ("webhook-timestamp", "1700000000"),
        ("X-Relay-Source", "blog"),
        ("X-Relay-Event", "entry.publish"),
        ("X-Relay-Attempt", "1"),
        ("X-Relay-Hops", "1"),
        ("webhook-signature", "***"),
    ),
)
ANSWER = Response(
    200,
    (
        ("Server", "nginx"),
        ("Date", "Tue, 10 Nov 2026 12:00:00 GMT"),
        ("Content-Type", "application/json"),
        ("Content-Length", "15"),
        ("Connection", "keep-alive"),
    ),
    b'{"status":"ok"}',
    False,
)
CLOCK = SystemClock()


async def carry(opened: SqliteStore, until: float, record: bool) -> int:
    """Add one event after another, and record its delivery."""
    done = 0
    while perf_counter() < until:
        now = CLOCK.now()
        event = Event(
            id=EventId(opened.ids.draw(to_ms(now))),
            source="blog",
            type="strapi",
            received_at=now,
            description=Description(
                event="entry.publish",
                changes=(Change("address", "published", "publish", "1"),),
                locale="en",
                extra={"uid": "api::address.address"},
            ),
            headers=HEADERS,
            body=BODY,
            sha256=sha256(BODY).digest(),
        )
        delivery = Delivery(DeliveryId(opened.ids.draw(to_ms(now))), "www", event, now, now)
        await opened.add(event, [Owed(delivery, 1_000_000)])
        if record:
            attempt = Attempt(1, delivery.trigger, now, 12, SENT, ANSWER, None)
            await opened.record(Result(delivery, attempt, State.DELIVERED, None, 1, None, now + timedelta(seconds=1)))
        done += 1
    return done


async def store(place: Place) -> Table:
    """Events that are added, then also recorded, by so many at once."""
    table = Table("The store alone")
    for record in (False, True):
        for adders in (1, 16, 64):
            opened = await open_store(place.folder / f"{adders}-{record}.db", clock=CLOCK)
            began, cpu, commits = perf_counter(), process_time(), opened.commits
            done = sum(await asyncio.gather(*(carry(opened, began + place.seconds, record) for _ in range(adders))))
            took, used = perf_counter() - began, process_time() - cpu
            size = (await opened.status()).size_bytes
            table.rows.append(
                {
                    "what": "add and record" if record else "add",
                    "at once": adders,
                    "events/s": done / took,
                    "CPU us per event": used / done * 1e6,
                    "writes per commit": done * (1 + record) / (opened.commits - commits),
                    "bytes per event": size / done,
                }
            )
            await opened.close()
    return table
