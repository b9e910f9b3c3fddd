"""Debounce and batch: several events become one request. Pure.

A window is a delivery like any other, the *carrier*, with the time at which it is due. Until its first attempt it takes
in further events, whose deliveries are born merged into it. There are no timers: windows lie in the store, so that
neither a restart nor a reload loses, repeats or moves one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import orjson

from relay.clock import from_ms
from relay.event import Event
from relay.ids import DeliveryId, EventId, moment_ms
from relay.immutable import immutable

MOST_DEBOUNCED = 10_000
"""Events of one debounce window: past it the window closes and the next event opens another."""
MOST_BYTES = 8 << 20
"""Bodies of one batch."""

_AT_ONCE = 1000  # milliseconds between the id of an event and that of what is owed for it as it comes

BY = ("source", "type", "event", "environment", "branch", "locale", "model", "stage", "action", "entry_id")
"""The fields of a description by which windows can be split."""


@immutable
class Collected:
    """The events of a window that is being sent, in order of arrival, with their ids as users see them.

    Of a debounce window only the last one has its body: the others are told by their descriptions.
    """

    kind: str
    events: tuple[Event, ...]
    ids: tuple[str, ...]


def kind_of(key: str) -> str:
    """`debounce` or `batch`, of a window's key."""
    return str(orjson.loads(key)[0])


@immutable
class Grouping:
    """How a route collects. `longest` counts from the first event, `wait` from the last."""

    kind: Literal["debounce", "batch"]
    wait: timedelta
    longest: timedelta
    most: int
    by: tuple[str, ...] = ()
    delay: timedelta = timedelta()
    """What is waited after the window has closed."""

    def key(self, event: Event) -> str:
        """The window that an event belongs to, while it is open. A value that is not said is a value too."""
        what, common = event.description, event.description.common
        values = {
            "source": event.source,
            "type": event.type,
            "event": what.event,
            "environment": what.environment,
            "branch": what.branch,
            "locale": what.locale,
            "model": common.model,
            "stage": common.stage,
            "action": common.action,
            "entry_id": common.entry_id,
        }
        return orjson.dumps([self.kind, *(values[name] for name in self.by)]).decode()

    def due(self, opened: datetime, now: datetime, before: datetime | None = None) -> datetime:
        """When a window is due that was opened at `opened` and took its last event `now`; it was due `before`.

        One that was opened later than now was so by another clock: whatever that is worth, it waits no longer for it.
        """
        closes = now if self.most == 1 else min(opened + self.longest, now + self.wait)
        due = closes + self.delay
        return min(due, before) if before is not None and opened > now else due


def opened_at(carrier: DeliveryId, event: EventId, received: datetime) -> datetime:
    """When a window was opened: by its first event, which was received then.

    Ids never go back, as the clock may: while it is behind what is stored they say later than it was. But where the
    event is an old one that was owed again, only they say when that was.
    """
    owed = moment_ms(carrier)
    return received if owed - moment_ms(event) < _AT_ONCE else from_ms(owed)


def debounce(wait: timedelta, max_wait: timedelta, by: Sequence[str], delay: timedelta) -> Grouping:
    """Quiet for `wait` ends the window, `max_wait` after its first event at the latest."""
    return Grouping("debounce", wait, max_wait, MOST_DEBOUNCED, tuple(by), delay)


def batch(most: int, wait: timedelta, delay: timedelta) -> Grouping:
    """Up to `most` events, or what has come `wait` after the first."""
    return Grouping("batch", wait, wait, most, (), delay)
