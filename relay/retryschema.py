"""How a route judges an answer and tries again: sets of statuses, and the retry policies' keys."""

from __future__ import annotations

import re
from abc import abstractmethod
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from relay import fields, retry
from relay.fields import Duration, PositiveDuration, Section, Unresolved, got
from relay.immutable import immutable
from relay.problems import did_you_mean


@immutable
class Statuses:
    """A set of HTTP statuses, as it was written and as codes."""

    texts: tuple[str, ...]
    codes: frozenset[int]

    def __contains__(self, status: object) -> bool:
        return status in self.codes


_STATUS = re.compile(r"([1-5])(?:([0-9]{2})(?:-([1-5][0-9]{2}))?|xx)")


def statuses(value: object) -> Statuses:
    """The set that one entry or a list of them means: 204, 200-299 or 2xx. Raises ValueError."""
    if isinstance(value, Statuses):
        return value
    codes: set[int] = set()
    mistakes: list[tuple[tuple[int], str]] = []
    entries = value if isinstance(value, (list, tuple)) else (value,)
    for place, entry in enumerate(entries):
        if isinstance(entry, Unresolved):
            continue
        match = _STATUS.fullmatch(str(entry)) if isinstance(entry, (int, str)) and not isinstance(entry, bool) else None
        if match is None:
            mistakes.append(((place,), f"expected a status such as 204, 200-299 or 2xx, got {got(entry)}"))
        elif match[2] is None:
            first = int(match[1]) * 100
            codes.update(range(first, first + 100))
        else:
            first = int(match[1] + match[2])
            last = int(match[3] or first)
            if last < first:
                mistakes.append(((place,), f"the range {entry} is empty"))
            codes.update(range(first, last + 1))
    if mistakes:
        raise fields.all_misplaced(mistakes)
    return Statuses(tuple(str(entry) for entry in entries), frozenset(codes))


def _some(value: object) -> Statuses:
    found = statuses(value)
    if not found.texts:
        raise ValueError("expected at least one status, got an empty list")
    return found


Success = Annotated[Statuses, BeforeValidator(_some)]
GiveUpOn = Annotated[Statuses, BeforeValidator(statuses)]

_REFUSALS = statuses([400, 405, 411, 413, 414, 415, 422, 431])
_Attempts = Annotated[int, Field(ge=1, le=10_000)]
_Jitter = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class RetrySection(Section):
    """How a route tries again."""

    success: ClassVar[Statuses | None] = None
    """What counts as delivered where neither the route nor the defaults say."""
    disable_after: ClassVar[int | None] = None
    """How many failures in a row pause the route, likewise."""
    any_answer: ClassVar[bool] = False
    """Whether every answer that is no success is one of them."""

    policy: str
    give_up_on: GiveUpOn = _REFUSALS
    jitter: _Jitter = 0.2

    @abstractmethod
    def build(self) -> retry.RetryPolicy:
        """The policy itself."""


class Exponential(RetrySection):
    """`first`, then `factor` times as long each time, up to `max`."""

    policy: Literal["exponential"] = "exponential"
    first: PositiveDuration = timedelta(seconds=5)
    factor: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 4.0
    max: PositiveDuration = timedelta(hours=12)
    attempts: _Attempts = 10

    def build(self) -> retry.RetryPolicy:
        return retry.exponential(self.first, self.factor, self.max, self.attempts, self.jitter)


class Fixed(RetrySection):
    """The same delay each time."""

    policy: Literal["fixed"]
    every: PositiveDuration
    attempts: _Attempts

    def build(self) -> retry.RetryPolicy:
        return retry.fixed(self.every, self.attempts, self.jitter)


class Schedule(RetrySection):
    """These delays: n of them make n + 1 attempts."""

    policy: Literal["schedule"]
    delays: Annotated[tuple[Duration, ...], BeforeValidator(fields.filled)]

    def build(self) -> retry.RetryPolicy:
        return retry.schedule(self.delays, self.jitter)


class NoRetry(RetrySection):
    """One attempt."""

    policy: Literal["none"]

    def build(self) -> retry.RetryPolicy:
        return retry.none()


_POLICIES: dict[str, type[RetrySection]] = {
    "exponential": Exponential,
    "fixed": Fixed,
    "schedule": Schedule,
    "none": NoRetry,
}


class Prismic(Fixed):
    """As Prismic does it, which counts anything but 200 as a failure, and turns a webhook off after five."""

    success: ClassVar[Statuses | None] = statuses([200])
    disable_after: ClassVar[int | None] = 5
    any_answer: ClassVar[bool] = True


def _schedule(*delays: timedelta, jitter: float) -> Schedule:
    return Schedule(policy="schedule", delays=delays, jitter=jitter)


RETRY_PRESETS: dict[str, RetrySection] = {
    # https://www.storyblok.com/docs/concepts/webhooks: sent once.
    "storyblok": NoRetry(policy="none"),
    # https://prismic.io/docs/webhooks
    "prismic": Prismic(policy="fixed", every=timedelta(minutes=10), attempts=5, jitter=0, give_up_on=statuses([])),
    # https://www.contentstack.com/docs/developers/set-up-webhooks/webhook-retry-policy
    "contentstack": _schedule(*(timedelta(seconds=seconds) for seconds in (5, 25, 125, 625)), jitter=0),
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, which also asks for
    # jitter.
    "standard-webhooks": _schedule(
        timedelta(seconds=5),
        timedelta(minutes=5),
        timedelta(minutes=30),
        *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
        jitter=0.2,
    ),
}
"""What other senders do, by name."""


def _retry(value: object) -> object:
    if isinstance(value, RetrySection):
        return value
    if isinstance(value, Unresolved):
        return Exponential()
    if isinstance(value, str):
        if value in RETRY_PRESETS:
            return RETRY_PRESETS[value]
        if value not in _POLICIES:
            near = did_you_mean(value, [*_POLICIES, *RETRY_PRESETS])
            raise ValueError(f"expected a mapping such as {{policy: exponential}}, or none, got {got(value)}{near}")
        return _POLICIES[value].model_validate({"policy": value})
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping such as {{policy: exponential}}, or none, got {got(value)}")
    return fields.chosen({"policy": "exponential", **value}, "policy", _POLICIES)


Retry = Annotated[RetrySection, BeforeValidator(_retry)]
