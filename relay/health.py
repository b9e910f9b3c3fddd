"""How each route is doing. Pure: told of outcomes, asked for the state.

    healthy --failures in a row--> unhealthy --a probe succeeds--> healthy, with concurrency growing from 1
    either  --410, disable_after, by hand--> paused --resume--> healthy, with concurrency growing from 1

While a route is unhealthy its deliveries wait without using up attempts, and one probe at a time goes out: 30 s after
it became so, then after twice as long each time, up to 10 min. A probe that ends its delivery (a poison event that the
destination refuses) says nothing of the destination, so the next one follows at once. All of it outlives restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from relay.clock import from_ms, to_ms
from relay.delivery import Code, Delivered, Failure, Outcome, Refused, Retryable, Trigger
from relay.ids import DeliveryId
from relay.immutable import immutable
from relay.retry import LONGEST_RETRY_AFTER

UNTIL_RESUMED = ": 'relay resume --all' when what waits may be sent"
"""How the reason ends for which a start with everything held paused a route."""
FIRST_PROBE = timedelta(seconds=30)
LONGEST_PROBE = timedelta(minutes=10)

# What says that the destination cannot be used at present, and not that it dislikes one event.
_UNWELL = frozenset(
    {
        Code.TIMEOUT,
        Code.CONNECT_ERROR,
        Code.DNS_ERROR,
        Code.TLS_ERROR,
        Code.CONNECTION_RESET,
        Code.PROTOCOL_ERROR,
        Code.BLOCKED_ADDRESS,
        Code.AUTH_ERROR,
    }
)
_UNWELL_STATUSES = frozenset({401, 403, 404, 408, 429})


class RouteState(StrEnum):
    """What a person would say about a route."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    PAUSED = "paused"
    DISABLED = "disabled"


# For the hot path: a name of a module is found at once, one of an enum takes some 400 instructions.
_HEALTHY, _PROBE = RouteState.HEALTHY, Trigger.PROBE


class PausedBy(StrEnum):
    """Who paused a route: a changed destination lifts what relay did for the sake of the one before, nothing else."""

    HAND = "hand"
    RESTORED = "restored"
    """The store is a backup's: a person is to look first."""
    GONE = "gone"
    FAILURES = "failures"


class Turn(StrEnum):
    """What an outcome made of a route, where it changed its state."""

    UNHEALTHY = "unhealthy"
    RECOVERED = "recovered"
    PAUSED = "paused"


@immutable
class Tolerance:
    """How many failures in a row make a route unhealthy, and pause it (None: never)."""

    unhealthy_after: int = 5
    disable_after: int | None = None
    any_answer: bool = False
    """Whether every answer that is no success counts for `disable_after`, also one that makes no route unhealthy."""


@dataclass(slots=True)
class RouteHealth:
    """What the attempts of a route came to, and whether it may send."""

    state: RouteState = RouteState.HEALTHY
    reason: str | None = None
    """Why it is not healthy, for people."""
    since: datetime | None = None
    """Since when it is in this state; None where it never was in another."""
    paused_by: PausedBy | None = None
    consecutive_failures: int = 0
    last_success_at: datetime | None = None
    last_error: Failure | None = None
    probe_at: datetime | None = None
    """When the next probe may go out; None while it is not unhealthy."""
    probe_wait: timedelta = FIRST_PROBE
    probe_delay: timedelta = FIRST_PROBE
    """How far ahead `probe_at` was when it was set: further it cannot be, unless the clock was set back."""
    last_probe: DeliveryId | None = None
    ramp: int | None = None
    """How many attempts may be under way at once while it starts slowly; None when all may."""
    fingerprint: str = ""
    """Of the destination that all this is known of."""

    def slots(self, concurrency: int) -> int:
        """How many ordinary attempts may be under way at once."""
        if self.state is not _HEALTHY:
            return 0
        return concurrency if self.ramp is None else min(self.ramp, concurrency)

    def saw(
        self,
        outcome: Outcome,
        status: int | None,
        trigger: Trigger,
        delivery: DeliveryId,
        now: datetime,
        tolerance: Tolerance,
    ) -> Turn | None:
        """An attempt ended; `status` is that of its answer. What it changes about the route, if anything."""
        # What a person has sent while it waits for a probe is as good as one.
        by_hand = trigger is Trigger.MANUAL and self.state is RouteState.UNHEALTHY
        probed = by_hand or trigger is Trigger.PROBE
        if probed:
            self.last_probe = delivery
        match outcome:
            case Delivered():
                return self._well(now)
            case Refused(failure):
                self.last_error = failure
                if failure.code is Code.GONE:
                    return self._pause(PausedBy.GONE, failure.message, now)
                return None
            case Retryable(failure, asked, counts=counts):
                self.last_error = failure
                if not counts:  # it says nothing of the destination
                    if probed and self.state is RouteState.UNHEALTHY:
                        self._probe_in(self.probe_wait, now)
                    return None
                turn = None
                unwell = _unwell(failure.code, status)
                if unwell or (tolerance.any_answer and failure.code is Code.HTTP_STATUS):
                    turn = self._failed(failure, now, tolerance, unwell)
                if probed:
                    self._probe_failed(asked, now)
                return turn

    def was_well(self, trigger: Trigger, now: datetime) -> bool:
        """The quick way of `saw` for what happens nearly always: a healthy destination took what was not a probe.
        False, and nothing done, where it was otherwise."""
        if self.state is not _HEALTHY or trigger is _PROBE:
            return False
        self._succeeded(now)
        return True

    def _succeeded(self, now: datetime) -> None:
        self.consecutive_failures = 0
        self.last_success_at = now
        if self.ramp is not None:
            self.ramp += 1

    def _well(self, now: datetime) -> Turn | None:
        recovered = self.state is RouteState.UNHEALTHY
        self._succeeded(now)
        if recovered:
            self._healthy(now)
            return Turn.RECOVERED
        return None

    def _failed(self, failure: Failure, now: datetime, tolerance: Tolerance, unwell: bool) -> Turn | None:
        self.consecutive_failures += 1
        if self.ramp is not None:
            self.ramp = max(1, self.ramp // 2)
        if self.state is RouteState.PAUSED:
            return None
        most = tolerance.disable_after
        if most is not None and self.consecutive_failures >= most:
            reason = f"{self.consecutive_failures} failures in a row (disable_after), the last one: {failure.message}"
            return self._pause(PausedBy.FAILURES, reason, now)
        if unwell and self.state is RouteState.HEALTHY and self.consecutive_failures >= tolerance.unhealthy_after:
            self.state, self.since = RouteState.UNHEALTHY, now
            self.reason = f"{self.consecutive_failures} failures in a row, the last one: {failure.message}"
            self.probe_wait = FIRST_PROBE
            self._probe_in(FIRST_PROBE, now)
            self.last_probe = None
            self.ramp = None
            return Turn.UNHEALTHY
        return None

    def _probe_failed(self, asked: datetime | None, now: datetime) -> None:
        """The next one waits twice as long, or until the destination wants to be asked again."""
        if self.state is RouteState.UNHEALTHY:
            self.probe_wait = min(self.probe_wait * 2, LONGEST_PROBE)
            wanted = min(asked - now, LONGEST_RETRY_AFTER) if asked is not None else timedelta()
            self._probe_in(max(self.probe_wait, wanted), now)

    def _probe_in(self, wait: timedelta, now: datetime) -> None:
        self.probe_at, self.probe_delay = now + wait, wait

    @property
    def held_at_start(self) -> bool:
        """Whether a start with everything held paused it."""
        return self.state is RouteState.PAUSED and (self.reason or "").endswith(UNTIL_RESUMED)

    @property
    def kept_by_people(self) -> str | None:
        """How it is paused, in words, where a person is to say when that ends; None where nobody is."""
        if self.state is not RouteState.PAUSED or self.paused_by not in (PausedBy.HAND, PausedBy.RESTORED):
            return None
        reason = self.reason or ""
        if reason.startswith("by hand"):
            return f"paused {reason}"
        return f"paused by hand ({reason})" if self.paused_by is PausedBy.HAND else f"paused ({reason})"

    def probe_due(self, now: datetime) -> datetime | None:
        """When the next probe may go out. A clock that was set back does not put it off."""
        if self.probe_at is not None and self.probe_at - now > self.probe_delay:
            self.probe_at = now + self.probe_delay
        return self.probe_at

    def _pause(self, by: PausedBy, reason: str, now: datetime) -> Turn | None:
        """By itself; what a person paused stays paused by that person."""
        if self.state is RouteState.PAUSED:
            return None
        self.state, self.since = RouteState.PAUSED, now
        self.paused_by, self.reason = by, reason
        self.probe_at = self.last_probe = self.ramp = None
        return Turn.PAUSED

    def pause(self, reason: str, now: datetime, by: PausedBy = PausedBy.HAND) -> bool:
        """By hand, or because a person is to look first. False where it was paused by hand already."""
        if self.state is RouteState.PAUSED and self.paused_by is PausedBy.HAND:
            return False
        self.state, self.since = RouteState.PAUSED, now
        self.paused_by, self.reason = by, reason
        self.probe_at = self.last_probe = self.ramp = None
        return True

    def resume(self, now: datetime) -> bool:
        """By hand; also ends an unhealthy state. False where it was healthy."""
        if self.state is RouteState.HEALTHY:
            return False
        self.consecutive_failures = 0
        self._healthy(now)
        return True

    def aimed(self, fingerprint: str, now: datetime) -> bool:
        """The route has a destination; another one than before deserves another try. True where that changed it."""
        if fingerprint == self.fingerprint:
            return False
        known, self.fingerprint = self.fingerprint, fingerprint
        if not known or self.paused_by in (PausedBy.HAND, PausedBy.RESTORED):
            return False
        self.consecutive_failures = 0
        if self.state is RouteState.HEALTHY:
            return False
        self._healthy(now)
        return True

    def _healthy(self, now: datetime) -> None:
        self.state, self.since = RouteState.HEALTHY, now
        self.reason = self.paused_by = self.probe_at = self.last_probe = None
        self.probe_wait = FIRST_PROBE
        self.ramp = 1

    def adopt(self, theirs: RouteHealth) -> None:
        """What another relay knows takes the place of what is known here; what was learned here alone stays."""
        fingerprint, ramp = self.fingerprint, self.ramp
        well = [moment for moment in (self.last_success_at, theirs.last_success_at) if moment is not None]
        same = theirs.state is self.state
        for field in fields(self):
            setattr(self, field.name, getattr(theirs, field.name))
        self.fingerprint = fingerprint or theirs.fingerprint
        self.last_success_at = max(well, default=None)
        if same:
            self.ramp = ramp

    @property
    def by_itself(self) -> bool:
        """Whether relay, not a person, keeps the route from sending."""
        return self.state is RouteState.UNHEALTHY or (
            self.state is RouteState.PAUSED and self.paused_by is not PausedBy.HAND
        )

    def saved(self) -> dict[str, Any]:
        """All that outlives a restart, as JSON data. A slow start begins anew."""
        error = self.last_error
        return {
            "state": self.state.value,
            "reason": self.reason,
            "since": _ms(self.since),
            "paused_by": self.paused_by.value if self.paused_by is not None else None,
            "consecutive_failures": self.consecutive_failures,
            "last_success_at": _ms(self.last_success_at),
            "last_error": [error.code.value, error.message] if error is not None else None,
            "probe_at": _ms(self.probe_at),
            "probe_wait_ms": round(self.probe_wait.total_seconds() * 1000),
            "probe_delay_ms": round(self.probe_delay.total_seconds() * 1000),
            "last_probe": self.last_probe,
            "slow_start": self.ramp is not None,
            "fingerprint": self.fingerprint,
        }


def _unwell(code: Code, status: int | None) -> bool:
    if code is Code.HTTP_STATUS:
        return status is not None and (status in _UNWELL_STATUSES or status >= 500)
    return code in _UNWELL


def restored(saved: Mapping[str, Any]) -> RouteHealth:
    """What `saved` made."""
    error = saved.get("last_error")
    paused_by, last_probe = saved.get("paused_by"), saved.get("last_probe")
    return RouteHealth(
        state=RouteState(saved["state"]),
        reason=saved.get("reason"),
        since=_moment(saved.get("since")),
        paused_by=PausedBy(paused_by) if paused_by is not None else None,
        consecutive_failures=saved.get("consecutive_failures", 0),
        last_success_at=_moment(saved.get("last_success_at")),
        last_error=Failure(Code(error[0]), error[1]) if error is not None else None,
        probe_at=_moment(saved.get("probe_at")),
        probe_wait=timedelta(milliseconds=saved.get("probe_wait_ms", 30_000)),
        probe_delay=timedelta(milliseconds=saved.get("probe_delay_ms", 30_000)),
        last_probe=DeliveryId(last_probe) if last_probe is not None else None,
        ramp=1 if saved.get("slow_start") else None,
        fingerprint=saved.get("fingerprint", ""),
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else to_ms(moment)


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)
