"""A disk of its own for a trial, whose power can be cut, and which can be full."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.torture.row import Skipped, needs

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, by which xfstests cuts the power of an ext4
NO_LOG_FLUSH = struct.pack("I", 2)  # what is not on the disk yet is not written either
_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS


def own_mounts() -> None:
    """What this process mounts from now on nobody else sees, and it is gone with it. Nothing where that is not
    allowed: then the rows that mount say so."""
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).unshare(_NEW_NAMESPACE) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], check=False)


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system on a file."""

    image: Path
    path: Path

    def cut(self) -> None:
        """The power goes: what was not synced is gone, and nothing can be written any more."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def again(self) -> None:
        """The machine comes up again. Nobody may have a file of it open."""
        _run("umount", self.path)
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", self.image, self.path)

    def grow(self, size: int) -> None:
        """Make room, as an operator would. `size` in bytes."""
        os.truncate(self.image, size)
        device = _run("findmnt", "--noheadings", "--output", "SOURCE", self.path).strip()
        _run("losetup", "--set-capacity", device)
        _run("resize2fs", device)


@contextmanager
def disk(folder: Path, size: int = 4 << 30) -> Iterator[Disk]:
    """An ext4 in a sparse file of `size` bytes."""
    needs("mkfs.ext4", "mount", "losetup", root=True, package="e2fsprogs mount")
    made = Disk(folder / "disk.img", folder / "disk")
    made.path.mkdir()
    made.image.touch()
    os.truncate(made.image, size)
    _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", made.image)
    try:
        made.mount()
    except subprocess.CalledProcessError as error:
        raise Skipped(f"a file cannot be mounted here: {error.stderr.strip()}") from error
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", made.path], check=False, capture_output=True)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
