"""One relay per file: an advisory lock beside it, which the kernel releases however its holder ends.

The database itself is never opened for this: closing any descriptor of it would drop the locks that SQLite holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from relay.clock import Clock, rfc3339
from relay.store import Locked, Unusable

_AGAIN = 0.1  # seconds between tries: a restart hands over within the time a person would notice


class Lock:
    """A held lock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next one in. Idempotent. The file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


async def lock(database: Path, clock: Clock, wait: float = 10.0, on_wait: Callable[[str], None] | None = None) -> Lock:
    """Lock `<database>.lock`. Raises Locked, naming the holder, after waiting for `wait` seconds.

    `on_wait` is told once, with the holder, when there is something to wait for.
    """
    path = database.with_name(database.name + ".lock")
    try:
        descriptor = _open(path, database)
    except OSError as error:
        raise Unusable(f"cannot lock {database}: {path}: {error.strerror}") from None
    try:
        await _acquire(descriptor, database, clock, wait, on_wait)
        _sign(descriptor, clock.now())
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def _open(path: Path, database: Path) -> int:
    # Root's commands must not be led elsewhere by who may write here.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Who may only read a file can hold a lock on it all the same, and keep every relay from starting.
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        descriptor = os.open(path, flags)
        _close_to_readers(descriptor)
        return descriptor
    if os.geteuid() == 0:
        # As SQLite does with what it puts beside the file: else a command of root's would lock the daemon out.
        with contextlib.suppress(OSError):
            owner = (database if database.exists() else path.parent).stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _close_to_readers(descriptor: int) -> None:
    """Take the file from those who may read it and not write: relay 1.0 made it so that all might. Who may write it was
    let in by somebody."""
    file = os.fstat(descriptor)
    writers = file.st_mode << 1 & 0o044  # as bits of those who read
    mode = stat.S_IMODE(file.st_mode) & ~(0o044 & ~writers)
    if file.st_uid == os.geteuid() and mode != stat.S_IMODE(file.st_mode):
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode)


async def _acquire(
    descriptor: int, database: Path, clock: Clock, wait: float, on_wait: Callable[[str], None] | None
) -> None:
    give_up = clock.monotonic() + wait
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(descriptor)
        except OSError as error:
            raise Unusable(f"cannot lock {database}: {error.strerror}: it must lie on a local file system") from None
        if clock.monotonic() >= give_up:
            raise Locked(f"{database} is in use by another relay ({holder})")
        if not told and on_wait is not None:
            on_wait(holder)
        told = True
        await clock.sleep(min(_AGAIN, wait))


def _sign(descriptor: int, now: datetime) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n{rfc3339(now)}\n".encode(), 0)


def _holder(descriptor: int) -> str:
    words = os.pread(descriptor, 200, 0).decode("ascii", "replace").split()
    match words:
        case [pid, since, *_]:
            return f"pid {pid}, since {since}"
        case _:
            return "pid unknown"
