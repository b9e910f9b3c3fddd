"""What a row of the catalogue is, and what can come of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
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
                figures.append(await each(replace(place, folder=folder)))
            except Skipped as reason:
                skipped.append(str(reason))
        if not figures:
            raise Skipped("; ".join(dict.fromkeys(skipped)))
        text = "; ".join(
            [*(figure.text for figure in figures), *(f"skipped: {reason}" for reason in dict.fromkeys(skipped))]
        )
        seen = tuple(one for figure in figures for one in figure.seen)
        return Figure(text, all(figure.passed for figure in figures), seen)

    return trial


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row may write, how often it is to repeat itself (1 is the quick run), where series are kept, and what a
    run of all tests has left."""

    folder: Path
    count: int = 1
    results: Path | None = None
    tested: Path | None = None

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
    timed: bool = False  # its figures are times that other work would spoil: nothing else is tried meanwhile
    minutes: float = 5.0  # after so many, times the count, it is stuck


def needs(*programs: str, root: bool = False, package: str = "") -> None:
    """Raises Skipped where one of these is missing."""
    if root and os.geteuid() != 0:
        raise Skipped("needs root")
    for program in programs:
        if shutil.which(program) is None:
            raise Skipped(f"needs {program}: apt-get install {package or program}")


def by_tests(*nodes: str) -> Trial:
    """A row that tests of the suite prove; the figure is how many there are. What the place has of an earlier run of
    them counts; only nodes that are not in it are run."""

    async def trial(place: Place) -> Figure:
        before = _cases(place.tested) if place.tested is not None else []
        known = [case for case in before if any(_within(case, node) for node in nodes)]
        rest = [node for node in nodes if not any(_within(case, node) for case in known)]
        made, said = await _run(place, rest) if rest else ([], "")
        cases = known + made
        bad = [
            case.get("name", "") for case in cases if case.find("failure") is not None or case.find("error") is not None
        ]
        skipped = [each.get("message", "") for case in cases if (each := case.find("skipped")) is not None]
        passed = len(cases) - len(bad) - len(skipped)
        if bad or said:
            more = [f"{len(bad)} of {len(cases)} tests failed: {', '.join(bad[:5])}"] if bad else []
            return Figure("; ".join([*more, *([said] if said else [])]), False)
        if not passed:
            raise Skipped("; ".join(sorted(set(skipped))))
        text = f"{passed} tests passed{f', {len(skipped)} skipped' if skipped else ''}"
        return Figure(f"{text}, {len(known)} of them before" if known else text, True, _of(cases))

    return trial


async def _run(place: Place, nodes: Sequence[str]) -> tuple[list[ElementTree.Element], str]:
    """Run these tests: what became of each, and what is wrong with the run, if anything is."""
    report, log = place.folder / "report.xml", place.folder / "pytest.out"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "--no-header", "-p", "no:cacheprovider", f"--junitxml={report}", *nodes),
            cwd=TOP,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        status = await process.wait()
    cases = _cases(report) if report.exists() else []
    return cases, f"pytest ended with {status} (all of it: {log})" if status or not cases else ""


def _cases(report: Path) -> list[ElementTree.Element]:
    """The tests of a JUnit file, as pytest writes it."""
    return list(ElementTree.parse(report).iter("testcase"))


def _within(case: ElementTree.Element, node: str) -> bool:
    """Whether a test is one of those that a node of pytest names: a file, a function, or one case of it."""
    file, *inner = node.split("::", 2)
    scope, name = case.get("classname", ""), case.get("name", "")
    module = file.removesuffix(".py").replace("/", ".")
    if not inner:
        return scope == module or scope.startswith(f"{module}.")
    return scope == ".".join([module, *inner[:-1]]) and (name == inner[-1] or name.startswith(f"{inner[-1]}["))


def _of(cases: Sequence[ElementTree.Element]) -> tuple[Seen, ...]:
    """Tests that succeeded, as forms: a test's name is the promise it proves."""
    names = Counter[str]()
    for case in cases:
        if case.find("skipped") is None:
            names[case.get("name", "").partition("[")[0].removeprefix("test_").replace("_", " ")] += 1
    return tuple(Seen(name, f"holds in {count} cases" if count > 1 else "holds") for name, count in names.items())
