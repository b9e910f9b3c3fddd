"""What becomes of ages and of due times when somebody sets the wall clock.

Times are kept by the wall clock, since it is what goes on over restarts. Beside it there is the time that has really
passed; where the two part by more than clocks are put right by, the wall clock made a step.

- *Back*: what was to wait until some time would wait for that much longer. The store takes what was set when the clock
  said more than it says now for set now (`Store.set_back`).
- *Ahead*: what waits would seem to have waited that much longer, and be given up. Nothing is changed for it, for the
  clock may go back the next moment: the step is remembered, and counted out of the age of what is older than it. What
  was due later is due early by it.

A step back first takes back steps ahead: what was there before them is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from relay.clock import Clock, from_ms, to_ms
from relay.immutable import immutable

BEHIND = timedelta(seconds=30)
"""By how much the clock must be behind what it said before: less is what clocks are put right by."""
KNOWN = "clock"
"""As what `saved` is kept in the store."""
_AHEAD = timedelta(seconds=5)  # the same of steps ahead, which are only counted
_KEPT = 16  # steps ahead that are remembered, the last ones
_NONE = timedelta()


@immutable
class Ahead:
    """A step ahead: what was seen last before it, and how far."""

    after: datetime
    by: timedelta
    late: bool
    """The clock was behind what is stored until then. What is stored as of later than `after` is of an earlier run,
    and as old as it seems."""

    @property
    def landed(self) -> datetime:
        """What the clock said next."""
        return self.after + self.by

    def passed_over(self, first_due: datetime, received: datetime) -> bool:
        """Whether what became due then, of an event that was received then, was there before the step."""
        if self.late:
            return first_due <= self.after or (received <= self.after and first_due < self.landed)
        return first_due < self.landed  # also what was not due yet; or another relay's, whose clock made no step


class Steps:
    """The steps of the wall clock while relay runs. To be asked now and then, by whoever is about to rely on it."""

    def __init__(self, clock: Clock, newest: datetime | None = None) -> None:
        self._clock = clock
        behind = _NONE if newest is None else newest - clock.now()
        self.back = behind if behind >= BEHIND else None
        """By how much the clock was set back, until somebody has seen to it. At the start: is behind what is stored."""
        self.unsaved = False
        """Whether the steps ahead are others than those that were saved last."""
        self._newest = newest or clock.now()
        """What is stored was stored by then: while the clock says less it is behind."""
        self._seen = clock.now(), clock.passed()
        self._ahead: list[Ahead] = []
        self._unsaid = _NONE

    def look(self) -> None:
        """Compare the two clocks."""
        now, passed = self._clock.now(), self._clock.passed()
        known, at = self._seen
        self._seen = now, passed
        then = known + timedelta(seconds=passed - at)
        if now - then >= _AHEAD:
            self._ahead = [*self._ahead[1 - _KEPT :], Ahead(then, now - then, self._newest - then >= BEHIND)]
            self._unsaid += now - then
            self.unsaved = True
        elif then - now >= _AHEAD:
            self._went_back(then - now)
        self._newest = max(self._newest, now)

    def _went_back(self, by: timedelta) -> None:
        left = by
        self.unsaved |= bool(self._ahead)
        while self._ahead and left > _NONE:
            last = self._ahead.pop()
            less = min(last.by, left)
            if last.by > less:
                self._ahead.append(Ahead(last.after, last.by - less, last.late))
            left -= less
        if by >= BEHIND or self.back is not None:
            self.back = by if self.back is None else self.back + by

    def seen_to(self, by: timedelta) -> None:
        """What was to be done about so much was done; it may have been set back again meanwhile."""
        self.back = None if self.back is None or self.back <= by else self.back - by

    def said(self) -> timedelta:
        """How far the clock went ahead since this was asked last."""
        ahead, self._unsaid = self._unsaid, _NONE
        return ahead

    def skipped(self, first_due: datetime, received: datetime) -> timedelta:
        """How much of the age of something did not really pass, as far as it was seen."""
        return sum([step.by for step in self._ahead if step.passed_over(first_due, received)], _NONE)

    # What is kept over a restart: that what waited still waits does not depend on whether relay went on.

    def saved(self) -> Mapping[str, Any]:
        """The steps ahead as JSON data."""
        return {
            "ahead": [[to_ms(step.after), round(step.by.total_seconds() * 1000), step.late] for step in self._ahead]
        }

    def restore(self, saved: Mapping[str, Any] | None) -> None:
        """What an earlier run has seen, but for what was taken back since."""
        ahead: Sequence[Sequence[Any]] = (saved or {}).get("ahead", ())
        steps = [Ahead(from_ms(after), timedelta(milliseconds=by), late) for after, by, late in ahead]
        now = self._clock.now()
        self._ahead = [step for step in steps if step.landed <= now] + self._ahead
