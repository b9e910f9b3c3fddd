"""How many events a second the store takes in, each on disk before it counts, and followed by its result.

python bench/store.py [seconds] [directory]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from time import perf_counter, process_time

import uvloop

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


async def carry(store: SqliteStore, until: float, record: bool) -> int:
    """Add one event after another, and record its delivery."""
    done = 0
    while perf_counter() < until:
        now = CLOCK.now()
        event = Event(
            id=EventId(store.ids.draw(to_ms(now))),
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
        delivery = Delivery(DeliveryId(store.ids.draw(to_ms(now))), "www", event, now, now)
        await store.add(event, [Owed(delivery, 1_000_000)])
        if record:
            attempt = Attempt(1, delivery.trigger, now, 12, SENT, ANSWER, None)
            await store.record(Result(delivery, attempt, State.DELIVERED, None, 1, None, now + timedelta(seconds=1)))
        done += 1
    return done


async def measure(directory: Path, adders: int, seconds: float, record: bool) -> None:
    """One line of the table."""
    store = await open_store(directory / f"{adders}-{record}.db", clock=CLOCK)
    began, cpu, commits = perf_counter(), process_time(), store.commits
    done = sum(await asyncio.gather(*(carry(store, began + seconds, record) for _ in range(adders))))
    took, used = perf_counter() - began, process_time() - cpu
    size = (await store.status()).size_bytes
    print(
        f"{adders:>7} {'add + record' if record else 'add':<13} {done / took:>9.0f} {used / done * 1e6:>8.0f}"
        f" {done * (1 + record) / (store.commits - commits):>14.1f} {size / done:>12.0f}"
    )
    await store.close()


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    print(f"{'adders':>7} {'what':<13} {'events/s':>9} {'CPU us':>8} {'writes/commit':>14} {'bytes/event':>12}")
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as directory:
        for record in (False, True):
            for adders in (1, 16, 64):
                uvloop.run(measure(Path(directory), adders, seconds, record))


if __name__ == "__main__":
    main()
