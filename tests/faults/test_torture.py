"""What runs the catalogue: no row goes missing, however it ends, and nothing outlives it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest

from tests.faults import oddrows
from tests.harness import PATIENCE
from tests.postgres import Database
from tests.several import Attempt
from tests.torture.row import TOP, Figure, Place, Skipped, by_tests
from tests.torture.runner import LEFT_OUT, Runner
from tests.torture.shared import Destination, Moment, Trial
from tests.torture.trial import Result

CATALOGUE = "tests.faults.oddrows"
JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one" />
<testcase classname="tests.test_a" name="test_many[x-1]" />
<testcase classname="tests.test_a" name="test_many[x-2]" />
<testcase classname="tests.test_a.TestClass" name="test_one" />
<testcase classname="tests.test_ab" name="test_one"><failure message="no" /></testcase>
<testcase classname="tests.test_c" name="test_skipped"><skipped message="needs root" /></testcase>
<testcase classname="tests.test_c" name="test_error"><error message="at its end" /></testcase>
</testsuite></testsuites>
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Result], list[Result], Path]:
    """All odd rows: what came of them, what was told as it came, and where they wrote."""
    folder, results = tmp_path_factory.mktemp("rows"), tmp_path_factory.mktemp("results")
    told: list[Result] = []
    found = Runner(folder, told.append, 2, 3, results, catalogue=CATALOGUE).run(oddrows.ROWS)
    return found, told, results


def test_each_row_has_a_result_in_the_catalogues_order(tried: tuple[list[Result], list[Result], Path]) -> None:
    found, told, _ = tried
    assert [each.id for each in found] == [row.id for row in oddrows.ROWS]
    assert sorted(each.id for each in told) == sorted(row.id for row in oddrows.ROWS)


@pytest.mark.parametrize(
    ("row", "result", "figure"),
    [
        ("E1", "pass", "well, 2 times"),
        ("E2", "fail", "not kept"),
        ("E3", "fail", "ValueError: a defect of the trial (all of it: "),
        ("E4", "skipped", "needs a machine that we do not have"),
        ("E5", "fail", "died, status 0 (all it said: "),
        ("E6", "fail", "died, SIGSEGV (all it said: "),
        ("E7", "fail", "not done after 0.1 minutes (all it said: "),
    ],
)
def test_however_a_row_ends_that_is_its_result(
    tried: tuple[list[Result], list[Result], Path], row: str, result: str, figure: str
) -> None:
    [found] = [each for each in tried[0] if each.id == row]
    assert (found.result, found.figure[: len(figure)]) == (result, figure)


def test_what_measures_time_runs_alone(tried: tuple[list[Result], list[Result], Path]) -> None:
    times = {path.stem: tuple(map(float, path.read_text().split())) for path in tried[2].glob("*.times")}
    assert times.keys() == {"E1", "E8", "T1", "T2"}
    ends = [times[name] for name in ("T1", "T2")]
    assert ends[0][1] < ends[1][0]
    assert all(ends[1][1] < times[name][0] for name in ("E1", "E8"))


def test_a_stuck_row_cleans_up_and_what_it_started_is_ended(tried: tuple[list[Result], list[Result], Path]) -> None:
    assert (tried[2] / "cleaned").exists()
    pid = int((tried[2] / "lingering").read_text())
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return b"time.sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_rows_that_measure_time_are_left_out_where_told_and_say_so(tmp_path: Path) -> None:
    rows = [row for row in oddrows.ROWS if row.timed]
    found = Runner(tmp_path, lambda result: None, untimed=True, catalogue=CATALOGUE).run(rows)
    assert [(each.result, each.figure) for each in found] == [("skipped", LEFT_OUT)] * 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_ends_all_that_it_started(tmp_path: Path, signum: signal.Signals) -> None:
    rows, results = tmp_path / "rows", tmp_path / "results"
    rows.mkdir()
    results.mkdir()
    code = (
        "from pathlib import Path; from tests.faults import oddrows; from tests.torture.runner import Runner;"
        f" Runner(Path({str(rows)!r}), print, 100, results=Path({str(results)!r}), catalogue={CATALOGUE!r})"
        ".run([row for row in oddrows.ROWS if row.id == 'E7'])"
    )
    lingering = results / "lingering"
    # As a shell does that starts it in the background: it is to listen all the same.
    process = subprocess.Popen(
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-c", code], cwd=TOP, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + PATIENCE
        while not (lingering.exists() and lingering.read_text()):
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signum)
        assert process.wait(PATIENCE) != 0
    finally:
        process.kill()
        process.wait()
    assert (results / "cleaned").exists()
    assert not _runs(int(lingering.read_text()))


def _place(folder: Path) -> Place:
    tested = folder / "tests.xml"
    tested.write_text(JUNIT)
    return Place(folder, tested=tested)


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (["tests/test_a.py"], "4 tests passed, 4 of them before"),
        (["tests/test_a.py::test_one"], "1 tests passed, 1 of them before"),
        (["tests/test_a.py::test_many", "tests/test_a.py::test_one"], "3 tests passed, 3 of them before"),
        (["tests/test_a.py", "tests/test_a.py::test_many[x-2]"], "4 tests passed, 4 of them before"),
        (["tests/test_a.py::TestClass::test_one"], "1 tests passed, 1 of them before"),
        (["tests/test_a.py::test_one", "tests/test_c.py::test_skipped"], "1 tests passed, 1 skipped, 2 of them before"),
    ],
)
async def test_what_was_tested_before_is_not_run_again(tmp_path: Path, nodes: list[str], text: str) -> None:
    figure = await by_tests(*nodes)(_place(tmp_path))
    assert (figure.text, figure.passed) == (text, True)
    assert not (tmp_path / "pytest.out").exists()


@pytest.mark.parametrize("nodes", [["tests/test_ab.py"], ["tests/test_a.py", "tests/test_c.py"]])
async def test_what_failed_before_has_failed(tmp_path: Path, nodes: list[str]) -> None:
    assert not (await by_tests(*nodes)(_place(tmp_path))).passed


async def test_what_skipped_before_is_skipped_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match=r"^needs root$"):
        await by_tests("tests/test_c.py::test_skipped")(_place(tmp_path))


async def test_what_was_not_tested_before_is_run(tmp_path: Path) -> None:
    real = "tests/faults/test_catalogue.py::test_no_row_is_missing_or_there_twice"
    figure = await by_tests("tests/test_a.py::test_one", real)(_place(tmp_path))
    assert figure.passed
    assert figure.text == "2 tests passed, 1 of them before"


async def test_a_test_that_does_not_exist_fails_its_row(tmp_path: Path) -> None:
    figure: Figure = await by_tests("tests/faults/test_catalogue.py::test_that_nobody_wrote")(_place(tmp_path))
    assert not figure.passed
    assert "pytest ended with" in figure.text


@pytest.mark.parametrize(
    ("moments", "outages", "sent", "late"),
    [
        # The others saw it for a lease and two beats: nothing befell them.
        ([("a", "kill", 100, 101)], [], 115, 1),
        ([("a", "kill", 100, 101)], [], 112, -2),
        # All were stopped in turn: none saw for so long that it was dead, until c was let alone.
        ([("a", "kill", 100, 101), ("b", "stop > lease", 99, 117), ("c", "stop < lease", 105, 111),
          ("a", "kill", 109, 109), ("a", "kill", 122, 150)], [], 126, 1),
        # So they were, but for one that was started when that lease had ended.
        ([("a", "kill", 100, 111), ("b", "stop > lease", 99, 117), ("c", "stop < lease", 105, 111)], [], 115, 2),
        # The database died: all begin anew.
        ([("a", "kill", 100, 101)], [(105, 106)], 121, 1),
    ],
)  # fmt: skip
def test_a_takeover_is_late_from_when_somebody_could_have_seen_to_it(
    tmp_path: Path, moments: list[tuple[str, str, int, int]], outages: list[tuple[float, float]], sent: int, late: int
) -> None:
    seen = [
        Moment(relay, what, began, began if what == "kill" else back, ("dlv_1",) * (began == 100), back)
        for relay, what, began, back in moments
    ]
    on_its_way = Attempt("dlv_1", "/plain", "a", b"{}", 100.005, 200)
    destination = Destination(random.Random(1), [on_its_way, Attempt("dlv_1", "/plain", "c", b"{}", sent, 200)])
    database = cast(Database, None)  # it is not asked
    trial = Trial(tmp_path, database, destination, [], random.Random(1), moments=seen, outages=outages)
    assert trial.takeovers() == [(sent - 100, late)]
