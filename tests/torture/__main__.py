"""Try relay with every fault and attack of the catalogue; a line for each.

    python -m tests.torture [--only D1,S4] [--count 40] [--jobs 3] [--results FOLDER] [--tested FILE] [--untimed]

`--count` repeats what is random so many times as often as the quick run does: 40 is a thousand crashes of each kind.
Rows whose figures are times are tried first, one after the other; of the others `--jobs` at once. Rows that need root,
or a program that is missing, say so. Exit status: 1 where a promise was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.torture.catalogue import ROWS
from tests.torture.runner import Runner
from tests.torture.trial import Result

JOBS = 3


def main() -> int:
    """Parse the arguments, try the rows, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="these rows, by id", default="")
    parser.add_argument("--count", help="how many times as often as the quick run", type=_positive, default=1)
    parser.add_argument(
        "--jobs", help=f"rows at once, but for those that measure time: {JOBS}", type=_positive, default=JOBS
    )
    parser.add_argument("--results", help="also write torture.json, and series of figures, into this folder", type=Path)
    parser.add_argument(
        "--tested", help="what a run of all tests wrote with --junitxml: these are not run again", type=Path
    )
    parser.add_argument("--untimed", help="leave out rows that measure time", action="store_true")
    given = parser.parse_args()
    wanted = [name.strip().upper() for name in given.only.split(",") if name.strip()]
    unknown = set(wanted) - {row.id for row in ROWS}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    if given.tested and not given.tested.is_file():
        parser.error(f"there is no file {given.tested}: make test writes build/tests.xml")
    if given.results:
        given.results.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="relay-torture-"))
    failed = set[str]()  # of these everything is kept

    def tell(result: Result) -> None:
        print(result.line, flush=True)
        if result.result == "fail":
            failed.add(result.id)
        _forget(folder, failed, [result.id])

    runner = Runner(folder, tell, given.count, given.jobs, given.results, given.tested, given.untimed)
    try:
        results = runner.run([row for row in ROWS if not wanted or row.id in wanted])
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("ended before all was tried", file=sys.stderr)
        return 130
    finally:
        _forget(folder, failed, [row.id for row in ROWS])
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)
    if given.results:
        (given.results / "torture.json").write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    print(summary(results, time.monotonic() - began))
    return 1 if any(result.result == "fail" for result in results) else 0


def _forget(folder: Path, failed: set[str], ids: list[str]) -> None:
    for each in set(ids) - failed:
        shutil.rmtree(folder / each, ignore_errors=True)


def summary(results: list[Result], seconds: float) -> str:
    """How many came out how, and which."""
    lines = [f"{len(results)} rows in {seconds // 60:.0f} min {seconds % 60:.0f} s"]
    for word in ("pass", "fail", "skipped"):
        ids = [result.id for result in results if result.result == word]
        lines.append(f"{len(ids)} {word}{': ' if ids else ''}{' '.join(ids)}")
    return "\n".join(lines)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
