"""Why what is due is not sent yet: what else it has to wait for. Looked up when somebody asks, never on the way out."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from relay.clock import rfc3339
from relay.courier import Courier
from relay.health import RouteState
from relay.immutable import immutable


class Cause(StrEnum):
    """What keeps a delivery that is due."""

    LANE = "lane"
    HEALTH = "health"
    RATE = "rate"
    CONCURRENCY = "concurrency"


@immutable
class Waits:
    """What something waits for."""

    code: Cause
    message: str
    """For people."""


def behind(before: str) -> Waits:
    """For another one of its lane."""
    return Waits(Cause.LANE, f"{before} goes before it in its lane (order)")


def at(courier: Courier, now: datetime) -> Waits | None:
    """For what everything of a route waits for, as far as this process knows."""
    route, health = courier.route, courier.health
    if route is None:
        return None
    slots = health.slots(route.concurrency)
    if not slots:
        probe = health.probe_at
        if health.state is not RouteState.UNHEALTHY or probe is None or probe <= now:
            return None  # what is paused is about to be held; a probe is about to be made
        return Waits(Cause.HEALTH, f"its route is unhealthy: the next probe of it goes out at {rfc3339(probe)}")
    wait = courier.bucket.wait() if courier.bucket is not None else 0.0
    if wait:
        moment = rfc3339(now + timedelta(seconds=wait))
        return Waits(Cause.RATE, f"the rate of its route lets the next one out at {moment}, the oldest first")
    if len(courier.sending) >= slots:
        return Waits(Cause.CONCURRENCY, f"{slots} of its route are being sent, and no more may be at once")
    return None
