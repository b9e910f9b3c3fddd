"""What a row of the catalogue is, and what can come of it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Trial = Callable[["Place"], Coroutine[Any, Any, "Figure"]]
TOP = Path(__file__).parent.parent.parent


class Skipped(Exception):
    """It cannot be tried here; the text says why, and what to install."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was seen, and whether that is what relay promises."""

    text: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row may write, how often it is to repeat itself (1 is the quick run), and where series are kept."""

    folder: Path
    count: int = 1
    results: Path | None = None

    def result(self, name: str, text: str) -> None:
        """Keep a series of figures, where results are kept."""
        if self.results is not None:
            (self.results / name).write_text(text)


@dataclass(frozen=True, slots=True)
class Row:
    """A fault: how it is brought about, what must hold, and the trial."""

    id: str
    promise: str  # of docs/reliability.md: P1 to P8
    fault: str
    injected: str
    must: str
    trial: Trial


def needs(*programs: str, root: bool = False, package: str = "") -> None:
    """Raises Skipped where one of these is missing."""
    if root and os.geteuid() != 0:
        raise Skipped("needs root")
    for program in programs:
        if shutil.which(program) is None:
            raise Skipped(f"needs {program}: apt-get install {package or program}")


def together(*trials: Trial) -> Trial:
    """A row that takes more than one trial: each must pass."""

    async def trial(place: Place) -> Figure:
        figures = [await each(place) for each in trials]
        return Figure("; ".join(figure.text for figure in figures), all(figure.passed for figure in figures))

    return trial


def by_tests(*nodes: str) -> Trial:
    """A row that tests of the suite prove; the figure is how many there are."""

    async def trial(place: Place) -> Figure:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-rs", "--no-header", "-p", "no:cacheprovider", *nodes),
            cwd=TOP,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out = (await process.communicate())[0].decode(errors="replace")
        said = out.strip().splitlines()[-1] if out.strip() else "no output"
        counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
        if process.returncode == 0 and not counts.get("passed") and counts.get("skipped"):
            raise Skipped("; ".join(sorted(set(re.findall(r"SKIPPED \[\d+\] \S+: (.*)", out)))))
        skipped = f", {counts['skipped']} skipped" if counts.get("skipped") else ""
        if process.returncode == 0:
            return Figure(f"{counts['passed']} tests passed{skipped}", True)
        (place.folder / "pytest.out").write_text(out)
        return Figure(f"{said} (all of it: {place.folder / 'pytest.out'})", False)

    return trial
