"""By which secrets a source's requests proved themselves since relay was started, and why others were refused."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

OTHER = "other"
"""What refusals are counted under when there are too many different reasons: senders word some of them."""
MOST_REASONS = 50
_LONGEST = 200


class Tally:
    """Kept in memory, and over reloads. Nothing of it needs to be right to the last request."""

    __slots__ = ("rejected", "used")

    def __init__(self) -> None:
        self.used: dict[str, datetime] = {}
        """When each proof last held, by its name in the config: `secret[1]`."""
        self.rejected: dict[str, int] = {}
        """How many requests were refused, by reason."""

    def proved(self, held: Iterable[str], now: datetime) -> None:
        """A request has proved itself by these."""
        for name in held:
            self.used[name] = now

    def refused(self, reason: str) -> None:
        """A request was refused."""
        reason = reason[:_LONGEST]
        if reason not in self.rejected and len(self.rejected) >= MOST_REASONS:
            reason = OTHER
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
