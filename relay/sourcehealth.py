"""How each source is doing: whether it is heard from, and whether its requests are refused. Pure, like `relay.health`.

    heard --nothing for `expect_every`--> silent --an event--> heard
    well  --five refusals in a row--> told once, until an event is accepted

Both outlive restarts: a restart neither tells a silence twice nor makes it begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from relay.clock import from_ms, to_ms
from relay.immutable import immutable
from relay.notice import lasted, moment
from relay.notifier import Kind

REFUSALS = 5  # in a row: one alone may be anybody who found the address


@immutable
class Turn:
    """Something about a source that people want to know."""

    kind: Kind
    reason: str
    since: datetime | None = None
    """When that began which it ends, or is about."""


@dataclass(slots=True)
class SourceHealth:
    """What came from a source."""

    configured_at: datetime
    """When it was first in the config: a silence counts from here while nothing was ever heard."""
    last_event_at: datetime | None = None
    silent_since: datetime | None = None
    """While a silence is open: from when it counts."""
    rejections: int = 0
    """In a row."""
    last_rejection: str | None = None
    """Why the last one in this row was refused."""

    def saw_event(self, now: datetime) -> Turn | None:
        """A request proved itself: an event, a duplicate, or one that is left out."""
        since, self.silent_since = self.silent_since, None
        self.last_event_at = now
        self.rejections, self.last_rejection = 0, None
        return Turn(Kind.SOURCE_HEARD, "", since) if since is not None else None

    def adopt(self, theirs: SourceHealth) -> None:
        """What another relay heard counts as heard."""
        if theirs.last_event_at is not None and (
            self.last_event_at is None or theirs.last_event_at > self.last_event_at
        ):
            self.last_event_at, self.silent_since = theirs.last_event_at, theirs.silent_since
            self.rejections, self.last_rejection = 0, None
        elif theirs.last_event_at == self.last_event_at:
            self.silent_since = theirs.silent_since

    def saw_rejection(self, reason: str, now: datetime) -> Turn | None:
        """A request was refused; `reason` is the operator's."""
        self.rejections += 1
        self.last_rejection = reason
        if self.rejections != REFUSALS:
            return None
        return Turn(Kind.SOURCE_REJECTED, f"{REFUSALS} in a row, the last one: {reason}")

    def silent(self, now: datetime, expect_every: timedelta | None) -> Turn | None:
        """Look whether it has been silent for too long; to be asked from time to time, also after a reload."""
        due = self.expected_by(expect_every)
        if due is None or expect_every is None or now < due:
            self.silent_since = None  # without a word: nothing came, but no more is expected
            return None
        if self.silent_since is not None:
            return None
        self.silent_since = since = self.last_event_at or self.configured_at
        last = "no event ever came" if self.last_event_at is None else f"the last event came at {moment(since)}"
        return Turn(Kind.SOURCE_SILENT, f"{last}, and one is expected every {lasted(expect_every)}", since)

    def expected_by(self, expect_every: timedelta | None) -> datetime | None:
        """When the next event must have come; None where none is expected."""
        return None if expect_every is None else (self.last_event_at or self.configured_at) + expect_every

    def saved(self) -> dict[str, Any]:
        """All that outlives a restart, as JSON data."""
        return {
            "configured_at": to_ms(self.configured_at),
            "last_event_at": _ms(self.last_event_at),
            "silent_since": _ms(self.silent_since),
            "rejections": self.rejections,
            "last_rejection": self.last_rejection,
        }


def restored(saved: Mapping[str, Any]) -> SourceHealth:
    """What `saved` made."""
    return SourceHealth(
        configured_at=from_ms(saved["configured_at"]),
        last_event_at=_moment(saved.get("last_event_at")),
        silent_since=_moment(saved.get("silent_since")),
        rejections=saved.get("rejections", 0),
        last_rejection=saved.get("last_rejection"),
    )


def _ms(at: datetime | None) -> int | None:
    return None if at is None else to_ms(at)


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)
