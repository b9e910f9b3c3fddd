"""The bench runs, with tiny amounts: its figures are nobody's business here, that all of them are there is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bench.place import Goal, Table, in_turns
from bench.steps import step_of

ROOT = Path(__file__).parent.parent
needs_tools = pytest.mark.skipif(
    shutil.which("wrk") is None or shutil.which("nginx") is None, reason="needs wrk and nginx"
)


@needs_tools
def test_a_run_prints_a_table_and_writes_the_same_figures_as_json(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--rounds", "1", "--seconds", "1", "--scale", "0.0001", "--only", "routes,pending"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options, "--json", str(file), "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert {"routes", "pending"} == set(figures["benches"])
    one, many, matching = figures["benches"]["routes"]
    assert min(row["deliveries/s"] for row in (one, many, matching)) > 0
    assert {"date", "commit", "cpu", "fdatasync us"} <= set(figures)
    assert f"| {many['what']}" in done.stdout
    assert len(figures["goals"]) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"], "it leaves nothing behind"


def test_a_goal_that_is_missed_says_so() -> None:
    assert str(Goal("d/b", 0.5, 0.75)) == "MISSED d/b: 0.5, wanted at least 0.75"
    assert str(Goal("ready", 0.5, 2, at_least=False)).startswith("met ")


def test_a_table_is_one_of_markdown_too() -> None:
    text = Table("T", [{"what": "a", "figure": 12345.6}, {"what": "bb", "figure": None}]).text()
    assert text.splitlines()[2:] == ["| what | figure |", "|------|-------:|", "| a    | 12,346 |", "| bb   |        |"]


async def test_parts_are_measured_by_turns_each_second_round_the_other_way_about() -> None:
    order: list[str] = []

    def part(name: str) -> Callable[[], Awaitable[int]]:
        async def measure() -> int:
            order.append(name)
            return len(order)

        return measure

    found = await in_turns(2, {name: part(name) for name in "ab"})
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": [1, 4], "b": [2, 3]}


def test_a_sample_counts_for_the_innermost_step() -> None:
    handle = "Ingest.handle (/x/relay/web/ingest.py:71)"
    accept = "Pipeline.accept (/x/relay/pipeline.py:91)"
    assert step_of([handle]) == "read"
    assert step_of([handle, accept, "SignedBody.verify (/x/relay/proof.py:9)", "digest (hmac.py:198)"]) == "verify"
    assert step_of(["Runner.run (asyncio/runners.py:118)"]) == "other"
