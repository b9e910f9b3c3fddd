"""What a row of the catalogue is, and what can come of it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Trial = Callable[["Place"], Coroutine[Any, Any, "Figure"]]
TOP = Path(__file__).parent.parent.parent


class Skipped(Exception):
    """It cannot be tried here; the text says why, and what to install."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One form of an attack, what relay answered to it, and whether that is what it promises."""

    form: str
    answer: str
    held: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """What was seen, and whether that is what relay promises."""

    text: str
    passed: bool
    seen: tuple[Seen, ...] = ()


def of_forms(seen: Sequence[Seen], more: str = "", *, passed: bool = True) -> Figure:
    """The figure of an attack that has many forms: all must hold."""
    wrong = [f"{one.form} -> {one.answer}" for one in seen if not one.held]
    text = f"{len(seen)} forms, {f'{len(wrong)} not held off' if wrong else 'all held off'}"
    text += f" ({'; '.join(wrong[:5])})" if wrong else ""
    return Figure(f"{text}{more and f'; {more}'}", passed and not wrong, tuple(seen))


def together(*trials: Trial) -> Trial:
    """A row with several trials. What cannot be tried here is said; it is skipped only where nothing can."""

    async def trial(place: Place) -> Figure:
        figures, skipped = [], []
        for number, each in enumerate(trials):
            folder = place.folder / str(number)
            folder.mkdir()
            try:
                figures.append(await each(Place(folder, place.count, place.results)))
            except Skipped as reason:
                skipped.append(str(reason))
        if not figures:
            raise Skipped("; ".join(skipped))
        text = "; ".join([*(figure.text for figure in figures), *(f"skipped: {reason}" for reason in skipped)])
        seen = tuple(one for figure in figures for one in figure.seen)
        return Figure(text, all(figure.passed for figure in figures), seen)

    return trial


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


def by_tests(*nodes: str) -> Trial:
    """A row that tests of the suite prove; the figure is how many there are."""

    async def trial(place: Place) -> Figure:
        report = place.folder / "report.xml"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-rs", "--no-header", "-p", "no:cacheprovider"),
            *(f"--junitxml={report}", *nodes),
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
            return Figure(f"{counts['passed']} tests passed{skipped}", True, _of(report))
        (place.folder / "pytest.out").write_text(out)
        return Figure(f"{said} (all of it: {place.folder / 'pytest.out'})", False)

    return trial


def _of(report: Path) -> tuple[Seen, ...]:
    """The tests of a run that succeeded, as forms: a test's name is the promise it proves."""
    names = Counter[str]()
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            names[case.get("name", "").partition("[")[0].removeprefix("test_").replace("_", " ")] += 1
    return tuple(Seen(name, f"holds in {count} cases" if count > 1 else "holds") for name, count in names.items())
