"""How each route is doing. Pure: told of outcomes, asked for the state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relay.delivery import Delivered, Failure, Outcome, Refused

HEALTHY, DISABLED = "healthy", "disabled"


@dataclass(slots=True)
class RouteHealth:
    """What the last attempts of a route came to."""

    consecutive_failures: int = 0
    last_success_at: datetime | None = None
    last_error: Failure | None = None

    def saw(self, outcome: Outcome, at: datetime) -> None:
        """An attempt ended. What a destination refuses says nothing about its health."""
        match outcome:
            case Delivered():
                self.consecutive_failures = 0
                self.last_success_at = at
            case Refused(failure):
                self.last_error = failure
            case _:
                self.last_error = outcome.failure
                self.consecutive_failures += outcome.counts
