"""A store looked at as a whole, by verbs that need no daemon. Each engine has one, `survey` in its package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from relay.immutable import immutable
from relay.space import Space


class CannotCopy(Exception):
    """No backup was made. The message says why, and what to do."""


@immutable
class Figures:
    """What a store holds, counted."""

    schema: int
    rows: Mapping[str, int]
    """By table."""
    routes: Mapping[str, Mapping[str, int]]
    """Deliveries by route and state."""
    size_bytes: int
    log_bytes: int | None
    """Of the file's log; None, as the next two, for a database, which has none of its own."""
    unused_bytes: int | None
    """Within the file: used again before it grows."""
    free_bytes: int | None
    """On the disk."""
    oldest: datetime | None
    newest: datetime | None
    location: str


@immutable
class Fault:
    """Something that must always hold, and does not."""

    name: str
    broken: str
    """What is wrong, in words that follow a number."""
    count: int
    examples: tuple[str, ...] = ()


@immutable
class Overdue:
    """How many deliveries of a route are due for long, and since when the first one is."""

    count: int
    since: datetime


Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class Surveyor(Protocol):
    """A store looked at as a whole, beside a running relay or without one. It changes nothing, and may take long: it
    belongs to no event loop. Raises Unavailable where the file cannot be read, Unusable where that is because it is
    damaged."""

    def figures(self, progress: Progress) -> Figures:
        """What is in it."""
        ...

    def newest(self) -> datetime | None:
        """When the last thing in it came into being."""
        ...

    def space(self) -> Space | None:
        """What is left on its disk; None where that is another machine's."""
        ...

    def faults(self, thorough: bool, progress: Progress) -> list[Fault]:
        """What must always hold, and does not; `thorough` also reads every index against its table, and every
        body against its checksum."""
        ...

    def laws(self, thorough: bool) -> Sequence[str]:
        """The names of all that `faults` looks at."""
        ...

    def overdue(self, before: datetime) -> Mapping[str, Overdue]:
        """What has been due since before then and is first in its lane, by route."""
        ...

    def states(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """See Store.states."""
        ...

    def copy(self, to: Path, now: datetime, progress: Progress, *, replace: bool = False) -> int:
        """A backup of it as it is at one moment, whole or not at all, on disk (fsynced), which nobody else may read;
        its size. The store that is made of it is `restored`. Raises CannotCopy."""
        ...
