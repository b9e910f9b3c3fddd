"""A catalogue of rows that come to all kinds of ends, for the tests of what runs them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.torture.row import Figure, Place, Row, Skipped, Trial

# Ends when the test does, should nobody end it before; its own session, and what started it is gone.
LINGERING = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"


async def _well(place: Place) -> Figure:
    assert place.results is not None
    began = time.monotonic()
    await asyncio.sleep(0.3)  # so that others would run at the same time if they might
    (place.results / f"{place.folder.name}.times").write_text(f"{began} {time.monotonic()}")
    return Figure(f"well, {place.count} times", True)


async def _kept(place: Place) -> Figure:
    return Figure("not kept", False)


async def _raised(place: Place) -> Figure:
    raise ValueError("a defect of the trial")


async def _skipped(place: Place) -> Figure:
    raise Skipped("needs a machine that we do not have")


async def _exited(place: Place) -> Figure:
    os._exit(0)


async def _crashed(place: Place) -> Figure:
    os.kill(os.getpid(), signal.SIGSEGV)
    await asyncio.Event().wait()
    raise AssertionError


async def _stuck(place: Place) -> Figure:
    """With a process that has left us."""
    assert place.results is not None
    with (place.results / "lingering").open("wb") as out:
        subprocess.run([sys.executable, "-c", LINGERING], stdout=out, check=True)
    try:
        await asyncio.Event().wait()
    finally:
        Path(place.results / "cleaned").touch()
    raise AssertionError


def _row(name: str, trial: Trial, *, timed: bool = False, minutes: float = 1.0) -> Row:
    return Row(name, "P1", "a fault", "somehow", "nothing", trial, timed=timed, minutes=minutes)


ROWS = (
    _row("E1", _well),
    _row("E2", _kept),
    _row("T1", _well, timed=True),
    _row("E3", _raised),
    _row("E4", _skipped),
    _row("E5", _exited),
    _row("E6", _crashed),
    _row("E7", _stuck, minutes=0.05),
    _row("T2", _well, timed=True),
    _row("E8", _well),
)
