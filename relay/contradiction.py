"""Settings of which one makes the other mean nothing: warned of where the one that has no effect was written."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from relay.effective import duration_text
from relay.fields import Section
from relay.problems import Note, Path
from relay.retryschema import Exponential, RetrySection, Statuses
from relay.routeschema import Defaults, Route, To


def of_defaults(section: Section | None, routes: Collection[Route], warning: Note) -> None:
    """What the defaults say against each other, unless there are routes and each of them says something of it anew."""
    if not isinstance(section, Defaults):
        return
    place: Path = ("defaults",)
    if not routes or any(not route.to.model_fields_set & {"connect_timeout", "timeout"} for route in routes):
        timeout = section.timeout or To.model_fields["timeout"].default
        _connecting((*place, "connect_timeout"), section.connect_timeout, timeout, warning)
    unsaid = [route for route in routes if "retry" not in route.model_fields_set]
    if section.retry is not None and (
        not routes or any("success" not in route.to.model_fields_set for route in unsaid)
    ):
        success = section.success or section.retry.success or To.model_fields["success"].default
        _retry((*place, "retry"), section.retry, success, warning)


def of_route(place: Path, route: Route, defaults: Section | None, warning: Note) -> None:
    """What a route says against itself, or against the defaults that it leaves standing."""
    whole = defaults.applied(route) if isinstance(defaults, Defaults) else Defaults().applied(route)
    if "connect_timeout" in route.to.model_fields_set:
        _connecting((*place, "to", "connect_timeout"), route.to.connect_timeout, whole.to.timeout, warning)
    if "retry" in route.model_fields_set:
        _retry((*place, "retry"), route.retry, whole.to.success, warning)


def _connecting(place: Path, connecting: timedelta | None, timeout: timedelta, warning: Note) -> None:
    if connecting and timeout and connecting > timeout:  # one that was not looked up is 0
        warning(place, f"connecting never takes so long: timeout ({duration_text(timeout)}) ends the attempt before")


def _retry(place: Path, retry: RetrySection, success: Statuses, warning: Note) -> None:
    given = retry.model_fields_set
    if isinstance(retry, Exponential) and "first" in given and retry.max and retry.first > retry.max:
        warning(
            (*place, "first"), f"the delay is never so long: max ({duration_text(retry.max)}) cuts every one to that"
        )
    if "give_up_on" not in given:
        return
    both = sorted(retry.give_up_on.codes & success.codes)
    if both:
        named = ", ".join(map(str, both[:3])) + (", …" if len(both) > 3 else "")
        warning((*place, "give_up_on"), f"what is also in success is delivered, never given up on: {named}")
