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


class Failed(Exception):
    """What a program said that did not do what it was told."""


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
        run("umount", self.path)
        self.mount()

    def mount(self) -> None:
        run("mount", "-o", "loop", self.image, self.path)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes that `grow` can make larger: tmpfs, for an ext4 only grows by a right that root
    in a container lacks."""
    needs("mount", root=True)
    path = folder / "disk"
    path.mkdir()
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    except Failed as error:
        raise Skipped(f"nothing can be mounted here: {error}") from error
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)


def grow(path: Path, size: int) -> None:
    """Make room, as an operator would."""
    run("mount", "-o", f"remount,size={size}", path)


@contextmanager
def disk(folder: Path, size: int = 4 << 30) -> Iterator[Disk]:
    """An ext4 in a sparse file of `size` bytes."""
    needs("mkfs.ext4", "mount", "losetup", root=True, package="e2fsprogs mount")
    made = Disk(folder / "disk.img", folder / "disk")
    made.path.mkdir()
    made.image.touch()
    os.truncate(made.image, size)
    run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", made.image)
    try:
        made.mount()
    except Failed as error:
        raise Skipped(f"a file cannot be mounted here: {error}") from error
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", made.path], check=False, capture_output=True)


def run(*command: str | Path) -> str:
    """What a program says. Raises Failed where it did not do what it was told."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout
