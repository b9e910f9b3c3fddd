"""How much room there is where a store lies: judged alike by the store, `/health` and `relay doctor`."""

from __future__ import annotations

import os
from pathlib import Path

from relay.immutable import immutable

_LITTLE = 256 << 20
_KEPT = 32 << 20
_LEAST_KEPT = 3 << 19  # one and a half of the largest body that is usual


@immutable
class Space:
    """Of a disk, in bytes."""

    free: int
    """What is left for somebody without privileges."""
    kept: int
    """What must stay free so that the results of what was taken in can still be written."""
    size: int
    """Of all of it."""

    @property
    def lacking(self) -> bool:
        """Whether nothing more is taken in."""
        return self.free < self.kept

    @property
    def little(self) -> bool:
        """Whether somebody should make room. On a small disk that is less: it would be so from the start."""
        return self.free < max(2 * _LEAST_KEPT, min(_LITTLE, self.size // 4))

    @property
    def said(self) -> str:
        """How much is left, and what comes of it where that is too little."""
        return f"{self.free >> 20} MiB left" + (": events are refused" if self.lacking else "")


def space(path: Path) -> Space:
    """What is left on the disk of a file. On a small disk an eighth of it is kept, so that it can be used at all."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return Space(0, 0, 0)  # the writer will say what is wrong
    size = disk.f_blocks * disk.f_frsize
    return Space(disk.f_bavail * disk.f_frsize, max(_LEAST_KEPT, min(_KEPT, size // 8)), size)
