"""One row of the catalogue, tried by a process of its own: whatever it does to that, the others go on.

    python -m tests.torture.trial CATALOGUE ROW FOLDER [--count 1] [--results FOLDER] [--tested FILE]

CATALOGUE is a module, FOLDER an empty one, into which the row writes what it likes, and we what came of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
import traceback
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.torture.disk import own_mounts
from tests.torture.row import Figure, Place, Row, Seen, Skipped

_RESULT = "result.json"


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

    @property
    def line(self) -> str:
        """It on a terminal."""
        return f"{self.id:<4}{self.result:<8}{self.seconds:>7.1f} s  {self.fault}: {' '.join(self.figure.split())}"


def result(row: Row, text: str, result: str, seconds: float, seen: tuple[Seen, ...] = ()) -> Result:
    """What came of a row."""
    return Result(row.id, row.promise, row.fault, row.injected, row.must, text, result, round(seconds, 1), seen)


def written(folder: Path) -> Result:
    """What a process has written. Raises OSError or ValueError where it did not come to that."""
    found: dict[str, Any] = json.loads((folder / _RESULT).read_text())
    return Result(**{**found, "seen": tuple(Seen(**one) for one in found["seen"])})


def tried(row: Row, place: Place) -> Result:
    """Try a row. What goes wrong with the trial itself is a failure too."""
    began = time.monotonic()
    figure = Figure("", False)
    try:
        figure = asyncio.run(row.trial(place))
        text, word = figure.text, "pass" if figure.passed else "fail"
    except Skipped as reason:
        text, word = str(reason), "skipped"
    except Exception as error:
        (place.folder / "traceback").write_text(traceback.format_exc())
        text, word = f"{type(error).__name__}: {str(error)[:200]} (all of it: {place.folder / 'traceback'})", "fail"
    return result(row, text, word, time.monotonic() - began, figure.seen)


def main() -> None:
    """Parse the arguments, try the row, write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue")
    parser.add_argument("row")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--tested", type=Path)
    given = parser.parse_args()
    # A shell that starts something in the background has it ignore this, by which it is told to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    row = next(row for row in import_module(given.catalogue).ROWS if row.id == given.row)
    own_mounts()
    done = tried(row, Place(given.folder, given.count, given.results, given.tested))
    (given.folder / _RESULT).write_text(json.dumps(asdict(done)))


if __name__ == "__main__":
    main()
