"""What a route sends of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import orjson

from relay.event import Event


class Content(NamedTuple):
    """A body and its content type; None for no `Content-Type` header."""

    body: bytes
    type: str | None


Payload = Callable[[Event, str], Content]
"""Renders an event; the second argument is the event's id as users see it."""


def full(event: Event, event_id: str) -> Content:
    """The sender's body byte for byte, with its content type."""
    return Content(event.body, header(event, "content-type") or "application/octet-stream")


def normalized(event: Event, event_id: str) -> Content:
    """The event's description."""
    return Content(orjson.dumps(event.as_json(event_id)), "application/json")


def empty(event: Event, event_id: str) -> Content:
    """Nothing: for hooks that only want to be called."""
    return Content(b"", None)


PAYLOADS: dict[str, Payload] = {"full": full, "normalized": normalized, "empty": empty}


def header(event: Event, lower_name: str) -> str | None:
    """The first value of an event's header."""
    for name, value in event.headers:
        if name.lower() == lower_name:
            return value
    return None
