"""Try relay with every fault and attack of the catalogue; a line for each.

    python -m tests.torture [--only D1,S4] [--count 40] [--results FOLDER]

`--count` repeats what is random so many times as often as the quick run does: 40 is a thousand crashes of each kind.
Rows that need root, or a program that is missing, say so. Exit status: 1 where a promise was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.torture.catalogue import ROWS
from tests.torture.disk import own_mounts
from tests.torture.row import Figure, Place, Row, Seen, Skipped


@dataclass(frozen=True, slots=True)
class Result:
    """A row, tried."""

    id: str
    promise: str
    fault: str
    injected: str
    must: str
    figure: str
    result: str  # pass, fail, skipped
    seconds: float
    seen: tuple[Seen, ...] = ()


def tried(row: Row, folder: Path, count: int, results: Path | None) -> Result:
    """Try one row. What goes wrong with the trial itself is a failure too."""
    began = time.monotonic()
    place = folder / row.id
    place.mkdir()
    figure = Figure("", False)
    try:
        figure = asyncio.run(row.trial(Place(place, count, results)))
        text, result = figure.text, "pass" if figure.passed else "fail"
    except Skipped as reason:
        text, result = str(reason), "skipped"
    except Exception as error:
        (place / "traceback").write_text(traceback.format_exc())
        text, result = f"{type(error).__name__}: {str(error)[:200]} (all of it: {place / 'traceback'})", "fail"
    seconds = round(time.monotonic() - began, 1)
    return Result(row.id, row.promise, row.fault, row.injected, row.must, text, result, seconds, figure.seen)


def main() -> int:
    """Parse the arguments, try the rows, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="these rows, by id", default="")
    parser.add_argument("--count", help="how many times as often as the quick run", type=int, default=1)
    parser.add_argument("--results", help="also write torture.json, and series of figures, into this folder", type=Path)
    given = parser.parse_args()
    wanted = [name.strip().upper() for name in given.only.split(",") if name.strip()]
    unknown = set(wanted) - {row.id for row in ROWS}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    if given.results:
        given.results.mkdir(parents=True, exist_ok=True)
    own_mounts()
    results = []
    folder = Path(tempfile.mkdtemp(prefix="relay-torture-"))
    for row in ROWS:
        if wanted and row.id not in wanted:
            continue
        result = tried(row, folder, given.count, given.results)
        results.append(result)
        print(f"{result.id:<4}{result.result:<8}{result.seconds:>7.1f} s  {result.fault}: {result.figure}", flush=True)
        if result.result != "fail":  # of a failure everything is kept
            shutil.rmtree(folder / row.id, ignore_errors=True)
    if given.results:
        (given.results / "torture.json").write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    by_result = {word: sum(result.result == word for result in results) for word in ("pass", "fail", "skipped")}
    print(", ".join(f"{count} {word}" for word, count in by_result.items()))
    return 1 if by_result["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
