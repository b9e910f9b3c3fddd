"""What packaging tests fetch or make once and keep: wheels, Debian's base system."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).parents[2]


def folder() -> Path:
    """Where it is kept: $RELAY_TEST_CACHE, else where programs keep what they can fetch again."""
    named = os.environ.get("RELAY_TEST_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relay-tests"
    base.mkdir(parents=True, exist_ok=True)
    return base


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name, made if it is not there: whole or not at all, by one process while others wait."""
    place = folder() / name
    with (folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            made = place.with_suffix(".new")
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(made)
            made.mkdir(mode=0o755)
            make(made)
            made.rename(place)
    return place
