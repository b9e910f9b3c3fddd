"""What an event costs in instructions of the processor, and in CPU time, of relay alone (`bench.inside`).

valgrind counts the instructions of two runs, one of few events and one of more: what starting costs falls out of the
difference. They are the same from one run to the next to half a percent, whatever else the machine does, so that the
gain of a change can be seen that is lost in the noise of every clock. What the kernel does is not in them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from bench.place import Place, Table
from bench.process import ROOT, needs
from bench.sink import nginx
from bench.throughput import SOURCES, route
from tests.harness import write_config

_FEW, _MORE = 100, 500
_ROUNDS = 4
_COUNT = 3000
_PATIENCE = 600


async def instructions(place: Place) -> Table:
    """An event that goes by one route, and one that no route wants."""
    needs("valgrind")
    table = Table("Instructions of an event")
    async with nginx(place.folder) as sink:
        for what, match in (("sent on by one route", "publish"), ("no route matches", "another")):
            text = SOURCES + "routes:\n" + route("r", sink.url, f"{{action: {match}}}")
            few, more = [await asyncio.to_thread(_counted, place, text, events) for events in (_FEW, _MORE)]
            took = await asyncio.to_thread(_timed, place, text, place.amount(_COUNT))
            table.rows.append(
                {
                    "what": what,
                    "thousand instructions": (more - few) / (2 * (_MORE - _FEW)) / 1000,
                    "CPU us, the loop": took["loop"],
                    "CPU us, all threads": took["all"],
                }
            )
    table.notes.append("Without the system calls that bring an event; least CPU time of some rounds.")
    return table


def _counted(place: Place, text: str, events: int) -> int:
    """Instructions of a run of two rounds."""
    valgrind = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
    _, said = _run(place, text, events, 1, valgrind)
    found = re.search(r"I\s+refs:\s+([\d,]+)", said)
    if found is None:
        raise RuntimeError(f"valgrind did not count: {said[-2000:]}")
    return int(found[1].replace(",", ""))


def _timed(place: Place, text: str, events: int) -> dict[str, float]:
    out, _ = _run(place, text, events, _ROUNDS)
    times: dict[str, float] = json.loads(out)
    return times


def _run(place: Place, text: str, events: int, rounds: int, before: tuple[str, ...] = ()) -> tuple[str, str]:
    folder = place.folder / f"{len(list(place.folder.iterdir()))}"
    folder.mkdir()
    config: Path = write_config(folder, text)
    command = [*before, sys.executable, "-m", "bench.inside", str(config), str(events), str(rounds)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout, done.stderr
