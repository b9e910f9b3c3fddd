"""How much went through relay in each of the last sixty minutes: counted in memory, for whoever looks at a chart.

After a start the store says what the relay before it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.clock import from_ms

MINUTES = 60
HOUR = timedelta(minutes=MINUTES)
_SECONDS = 60
_MINUTE = timedelta(minutes=1)


@dataclass(slots=True)
class Minute:
    """What happened in one minute; `number` counts minutes since 1970."""

    number: int
    events: int = 0
    delivered: int = 0
    failed: int = 0

    @property
    def at(self) -> datetime:
        """When it began."""
        return from_ms(self.number * _SECONDS * 1000)


class Pace:
    """A ring of minutes. Turned on the hot path, so it does no more than look a minute up and add one."""

    __slots__ = ("_from", "_present", "_ring", "_until")

    def __init__(self) -> None:
        self._ring = [Minute(0) for _ in range(MINUTES)]
        self._present = self._ring[0]  # the last one that was looked up, and its bounds
        self._from = self._until = self._present.at

    def seed(self, minute: Minute) -> None:
        """What the relay before this one did in a minute."""
        self._ring[minute.number % MINUTES] = minute
        self._until = self._from

    def accepted(self, now: datetime) -> None:
        """An event was stored."""
        minute = self._present if self._from <= now < self._until else self._minute(now)
        minute.events += 1

    def delivered(self, now: datetime) -> None:
        """A delivery was sent."""
        (self._present if self._from <= now < self._until else self._minute(now)).delivered += 1

    def failed(self, now: datetime) -> None:
        """A delivery was given up."""
        self._minute(now).failed += 1

    def last_hour(self, now: datetime) -> Sequence[Minute]:
        """Sixty minutes, the oldest first, the last one still going on."""
        newest = _number(now)
        found = {minute.number: minute for minute in self._ring}
        return [found.get(number) or Minute(number) for number in range(newest - MINUTES + 1, newest + 1)]

    def _minute(self, now: datetime) -> Minute:
        """Where it is not the present one."""
        number = _number(now)
        minute = self._ring[number % MINUTES]
        if minute.number != number:  # an hour ago it stood for another one
            minute = self._ring[number % MINUTES] = Minute(number)
        self._present, self._from = minute, minute.at
        self._until = self._from + _MINUTE
        return minute


def _number(now: datetime) -> int:
    return int(now.timestamp()) // _SECONDS
