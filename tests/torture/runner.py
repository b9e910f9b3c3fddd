"""Rows of the catalogue, each in a process of its own: those that measure time one after the other while nothing else
is done, then all others, some at once.

Nothing that a row does can make it go missing: one that dies, or is not done in time, has failed. And nothing that a
row started outlives it: its processes bear a mark in their environment, which all that they start inherits, in whatever
session or namespace that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.row import TOP, Row
from tests.torture.trial import Result, result, written

CATALOGUE = "tests.torture.catalogue"
LEFT_OUT = "measures time: run make torture on a quiet machine"
_MARK = "RELAY_TORTURE"
_CLEANUP = 10.0  # seconds in which a row that is to end unmounts what it mounted, and the like
_GONE = 5.0  # seconds until what was killed is gone
# Ports that rows take by number lie in a range for each that runs at once, beyond those of `make test`.
_FIRST_RANGE = 5


@dataclass(frozen=True, slots=True)
class Runner:
    """How rows are tried."""

    folder: Path
    tell: Callable[[Result], None]  # as each is done
    count: int = 1
    jobs: int = 2
    results: Path | None = None
    tested: Path | None = None
    untimed: bool = False  # leave out what measures time
    catalogue: str = CATALOGUE
    _run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def run(self, rows: Sequence[Row]) -> list[Result]:
        """Try them. In the end, also by Ctrl-C, nothing that was started is left."""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # see trial.py
        try:
            return asyncio.run(self._all(rows))
        finally:
            _end_all(f"{self._run}.")

    async def _all(self, rows: Sequence[Row]) -> list[Result]:
        task = asyncio.current_task()
        assert task is not None
        for signum in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
        results: dict[str, Result] = {}

        async def one(row: Row, slot: int) -> None:
            left_out = row.timed and self.untimed
            results[row.id] = result(row, LEFT_OUT, "skipped", 0.0) if left_out else await self._tried(row, slot)
            self.tell(results[row.id])

        for row in rows:
            if row.timed:
                await one(row, 0)
        waiting = iter([row for row in rows if not row.timed])

        async def work(slot: int) -> None:
            for row in waiting:  # all take from the same
                await one(row, slot)

        async with asyncio.TaskGroup() as group:
            for slot in range(self.jobs):
                group.create_task(work(slot))
        return [results[row.id] for row in rows]

    async def _tried(self, row: Row, slot: int) -> Result:
        began, patience = time.monotonic(), row.minutes * self.count * 60
        place, mark = self.folder / row.id, f"{self._run}.{row.id}."
        place.mkdir()
        said = place / "said"
        with said.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.torture.trial", self.catalogue, row.id, str(place)),
                *(f"--count={self.count}", *self._options()),
                cwd=TOP,
                env={**os.environ, _MARK: mark, "PYTEST_XDIST_WORKER": f"gw{_FIRST_RANGE + slot}"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we see to it that it ends
            )
        try:
            async with asyncio.timeout(patience):
                status = await process.wait()
        except TimeoutError:
            text = f"not done after {patience / 60:g} minutes (all it said: {said})"
            return result(row, text, "fail", time.monotonic() - began)
        finally:
            await _ended(process)
            _end_all(mark)
        with contextlib.suppress(OSError, ValueError):
            if status == 0:
                return written(place)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return result(row, f"died, {how} (all it said: {said})", "fail", time.monotonic() - began)

    def _options(self) -> list[str]:
        paths = {"results": self.results, "tested": self.tested}
        return [f"--{name}={path.absolute()}" for name, path in paths.items() if path is not None]


async def _ended(process: asyncio.subprocess.Process) -> None:
    """It is told to end, and does so before long; or it is killed later."""
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEANUP):
                await process.wait()


def _end_all(mark: str) -> None:
    """kill -9 for all that bears a mark that begins so, and for what that starts meanwhile."""
    until = time.monotonic() + _GONE
    while (found := _marked(f"{_MARK}={mark}".encode())) and time.monotonic() < until:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _marked(begin: bytes) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it is gone, or another user's
            environ = Path(f"/proc/{name}/environ").read_bytes()
            if any(one.startswith(begin) for one in environ.split(b"\0")):
                found.append(int(name))
    return found
