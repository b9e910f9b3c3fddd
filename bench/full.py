"""A store's file with many finished deliveries in it, as some weeks of traffic leave it: made by the thousand, not one
by one, and not by the clock."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from relay.ids import moment_ms
from relay.stores._sql import rows, shapes
from tests.torture.bulk import AT_ONCE, in_bulk, insert

BODY = b'{"event":"entry.publish","entry":{"id":1,"text":"' + b"x" * 200 + b'"}}'
_DIGEST = sha256(BODY).digest()
_HEADERS = orjson.dumps([["Host", "relay.example.com"], ["User-Agent", "axios/1.6"], ["Authorization", "***"]]).decode()
_SENT = orjson.dumps([["webhook-id", "dlv_01J00000000000000000000000"], ["Content-Type", "application/json"]]).decode()
_PER_MS = next(1 << bits for bits in range(63) if moment_ms(1 << bits))

TYPES = ("storyblok", "strapi", "contentstack", "prismic", "hygraph")
ACTIONS = (("publish", "published"), ("update", "draft"), ("create", "draft"), ("unpublish", "published"))
ERRORS = (
    (503, "http_status", "503 Service Unavailable"),
    (500, "http_status", "500 Internal Server Error"),
    (404, "http_status", "404 Not Found"),
    (None, "timeout", "no answer within 30 s"),
    (None, "connect_error", "connection refused by 192.0.2.7:443"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of what there is."""

    deliveries: int
    routes: int = 20
    sources: int = 10
    models: int = 30
    entries: int = 200_000
    unmatched: float = 0.02
    """Of the events."""
    failed: float = 0.02
    waiting: float = 0.001


def fill(path: Path, size: Size, newest_ms: int, span_ms: int, seed: int = 1) -> None:
    """Make a store in `path` whose deliveries are spread evenly over `span_ms` up to `newest_ms`."""
    with in_bulk(path) as connection:
        known = _Shapes(connection)
        events = _events(size, newest_ms, span_ms, random.Random(seed))
        while some := [event for event, _ in zip(events, range(AT_ONCE), strict=False)]:
            connection.execute("BEGIN")
            insert(connection, "event", f"{rows.EVENT_COLUMNS}, shape", [known.event(event.row) for event in some])
            insert(connection, "body", "event_id, content", [(event.row[0], BODY) for event in some])
            insert(
                connection,
                "delivery",
                f"{rows.DELIVERY_COLUMNS}, state, code, error_code, error_message, duration_ms, merged_into",
                [known.delivery(event.row, delivery) for event in some for delivery in event.deliveries],
            )
            insert(
                connection,
                "attempt",
                f"delivery_id, {rows.ATTEMPT_COLUMNS}",
                [_attempt(delivery) for event in some for delivery in event.deliveries if delivery.attempts],
            )
            connection.execute("COMMIT")


@dataclass(frozen=True, slots=True)
class _Delivery:
    id: int
    route: str
    state: str
    attempts: int
    code: int | None
    error: tuple[str, str] | None
    into: int | None


@dataclass(frozen=True, slots=True)
class _Event:
    row: tuple[Any, ...]
    deliveries: tuple[_Delivery, ...]


def _events(size: Size, newest_ms: int, span_ms: int, draw: random.Random) -> Iterator[_Event]:
    made, number = 0, 0
    carrier: dict[str, int] = {}
    # Which routes want which source: one or two each, so that a delivery in ten is of a rare kind.
    wanted = {n: [f"route-{(n * 2 + k) % size.routes}" for k in range(1 + n % 2)] for n in range(size.sources)}
    expected = size.deliveries / 1.5
    while made < size.deliveries:
        moment = newest_ms - span_ms + int(span_ms * min(1.0, made / size.deliveries))
        id_ = moment * _PER_MS + number % 60_000 * 32
        number += 1
        source = min(int(draw.expovariate(0.4)), size.sources - 1)
        action, stage = ACTIONS[min(int(draw.expovariate(1.2)), len(ACTIONS) - 1)]
        entry = str(min(int(draw.paretovariate(0.6)), size.entries) if draw.random() < 0.7 else number % size.entries)
        routes = () if draw.random() < size.unmatched else wanted[source]
        row = (
            id_,
            f"source-{source}",
            TYPES[source % len(TYPES)],
            f"entry.{action}",
            moment,
            None,
            None,
            None,
            None,
            f"model-{min(int(draw.expovariate(0.3)), size.models - 1)}",
            stage,
            action,
            entry,
            None,
            None,
            _HEADERS,
            _DIGEST,
            len(BODY),
            len(routes),
        )
        deliveries = []
        for k, route in enumerate(routes, start=1):
            what = draw.random()
            late = number > expected * (1 - size.waiting * 5)
            if late and what < 0.2:
                deliveries.append(_Delivery(id_ + k, route, "pending", 0, None, None, None))
            elif what < size.failed:
                code, *error = ERRORS[int(what / size.failed * len(ERRORS))]
                deliveries.append(_Delivery(id_ + k, route, "failed", 1, code, (error[0], error[1]), None))
            elif what < size.failed + 0.01 and route in carrier:
                deliveries.append(_Delivery(id_ + k, route, "merged", 0, None, None, carrier[route]))
            elif what < size.failed + 0.013:
                deliveries.append(_Delivery(id_ + k, route, "cancelled", 0, None, None, None))
            else:
                carrier[route] = id_ + k
                code = 204 if route.endswith("7") else 202 if draw.random() < 0.0001 else 200
                deliveries.append(_Delivery(id_ + k, route, "delivered", 1, code, None, None))
        made += len(deliveries)
        yield _Event(row, tuple(deliveries))


class _Shapes:
    """Numbers of shapes, as the store gives them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[Any, ...], int] = {}

    def event(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*row, None if row[rows.MATCHED] else shapes.Shapes().unmatched(self._connection, row))

    def delivery(self, event: tuple[Any, ...], made: _Delivery) -> tuple[Any, ...]:
        moment = moment_ms(made.id)
        key = (made.route, *event[1:4], *event[9:12])
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = shapes.Shapes().number(self._connection, key)
        waits = made.state == "pending"
        plain = (made.id, event[0], made.route, number, event[12], moment, moment, made.attempts, made.attempts)
        ended = (made.state, made.code, *(made.error or (None, None)), 12 if made.attempts else None, made.into)
        return (*plain, "initial" if waits else "retry", moment, *ended)


def _attempt(made: _Delivery) -> tuple[Any, ...]:
    moment = moment_ms(made.id)
    code, message = made.error or (None, None)
    answer = (None, None, None, None) if made.code is None else (made.code, "[]", b"ok", 0)
    return (
        made.id,
        1,
        "initial",
        moment,
        12,
        "POST",
        "https://api.example.com/hooks/***",
        _SENT,
        *answer,
        code,
        message,
    )
