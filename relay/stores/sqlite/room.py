"""Whether the disk has room for more, and whether the file there is still ours."""

from __future__ import annotations

from pathlib import Path

from relay.clock import Clock
from relay.space import space
from relay.stores.sqlite.connection import Replaced, explain, identity

_EVERY = 1.0  # seconds between looks
_AFTER = 1 << 20  # bytes of events, which may come faster


class Room:
    """Looks at the disk now and then, and remembers what it saw."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._file = identity(path)
        self._looked = float("-inf")
        self._unseen = 0  # bytes that were added since then
        self.trouble: str | None = None
        """Why nothing can be written any more, or None."""
        self.lacking: str | None = None
        """Why nothing more is taken in, or None: the results of what was taken in can still be written."""

    def look(self, adding: int = 0) -> None:
        """Look, if the last time was long ago, or many bytes: `adding` are about to come."""
        now = self._clock.monotonic()
        self._unseen += adding
        if now - self._looked < _EVERY and self._unseen < _AFTER:
            return
        self._looked, self._unseen = now, 0
        replaced = identity(self._path) != self._file
        self.trouble = explain(Replaced()) if replaced else None
        found = space(self._path)
        self.lacking = (
            f"no space: {found.free >> 20} MiB are left on the disk of {self._path},"
            f" {found.kept >> 20} MiB are kept for results"
            if found.lacking
            else None
        )
