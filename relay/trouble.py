"""What is wrong with the store, said when it begins, once a minute for each reason while it lasts, and when it is over:
a full disk must not be filled with complaints about it."""

from __future__ import annotations

import re

from relay import journal
from relay.clock import Clock

_SILENCE = 60.0
_WELL = 10.0
"""Seconds without a failure after which it is over. Whatever asks the store again does so after 5 at most; and where
nearly nothing is left of a disk, a small write succeeds between two that fail."""
_NUMBER = re.compile("[0-9]+")


class Seldom:
    """Knows what may be said once a minute for each reason."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until: dict[str, float] = {}

    def may_say(self, reason: str) -> bool:
        """Whether this was not said within the last minute; if so it is taken to be said now."""
        now, cause = self._clock.monotonic(), _NUMBER.sub("", reason)  # how much is left differs from one to the next
        if now < self._silent_until.get(cause, now):
            return False
        self._silent_until = {known: until for known, until in self._silent_until.items() if until > now}
        self._silent_until[cause] = now + _SILENCE
        return True


class Trouble:
    """The store's trouble, as whoever needs the store finds it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seldom = Seldom(clock)
        self._failed_at: float | None = None  # None while all is well

    def failed(self, reason: str) -> None:
        """The store could not do something."""
        self._failed_at = self._clock.monotonic()
        if self._seldom.may_say(reason):
            journal.store_trouble(reason)

    def look(self, reason: str | None) -> None:
        """What the store says of itself, asked now and then."""
        if reason is not None:
            self.failed(reason)
        elif self._failed_at is not None and self._clock.monotonic() - self._failed_at >= _WELL:
            self._failed_at, self._seldom = None, Seldom(self._clock)  # if it begins again, that is news
            journal.store_recovered()
