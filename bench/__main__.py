"""What relay costs: measured beside others, in one run, by turns.

    python -m bench [--rounds 5] [--seconds 5] [--only throughput,latency] [--scale 1] [--json FILE]
    python -m bench --store postgresql

Each bench prints a table and whether its goals are met; a line of JSON for each run is kept in bench/history.jsonl when
the whole of it was measured, in FILE always. docs/performance.md says what each column means.
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

from bench.breadth import breadth
from bench.finished import finished
from bench.footprint import footprint
from bench.instructions import instructions
from bench.latency import latency
from bench.logs import logs
from bench.machine import about
from bench.pending import pending
from bench.place import Bench, Place, Skipped, Table
from bench.postgresql import shared
from bench.process import ROOT
from bench.routes import routes
from bench.steps import steps
from bench.store import store
from bench.throughput import throughput
from bench.traced import traced

HISTORY = ROOT / "bench" / "history.jsonl"
BENCHES: dict[str, Bench] = {
    "throughput": throughput,
    "latency": latency,
    "traced": traced,
    "steps": steps,
    "routes": routes,
    "breadth": breadth,
    "footprint": footprint,
    "pending": pending,
    "finished": finished,
}
OTHER: dict[str, Bench] = {"postgresql": shared}
"""The whole of what is measured of another store than SQLite."""
MORE: dict[str, Bench] = {"instructions": instructions, "store": store, "logs": logs, **OTHER}
"""Parts on their own; only where they are asked for."""


def measured(name: str, bench: Bench, place: Place) -> Table | None:
    """One bench; None where it cannot be run here."""
    began = time.monotonic()
    try:
        table = asyncio.run(bench(place))
    except Skipped as reason:
        print(f"## {name}: skipped: {reason}\n", flush=True)
        return None
    table.notes.append(f"({time.monotonic() - began:.0f} s)")
    print(table.text(), flush=True)
    return table


def main() -> int:
    """Parse the arguments, measure, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--only", default="", help=f"some of {','.join({**BENCHES, **MORE})}")
    parser.add_argument("--store", choices=["sqlite", *OTHER], default="sqlite", help="of which all is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="of the millions of pending and finished deliveries")
    parser.add_argument("--json", type=Path, help="write all figures into this file")
    parser.add_argument("--directory", type=Path, default=ROOT / "build", help="a folder on the disk to measure on")
    parser.add_argument("--history", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    whole = [given.store] if given.store in OTHER else list(BENCHES)
    names = [name for name in given.only.split(",") if name] or whole
    if unknown := set(names) - {*BENCHES, *MORE}:
        parser.error(f"there is no bench {', '.join(sorted(unknown))}")
    given.directory.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=given.directory.resolve()))
    where = about(folder)
    if where["file system"] == "tmpfs":
        print(f"{folder} is in memory, where syncs cost nothing: say --directory\n")
    print(", ".join(f"{key} {value}" for key, value in where.items()) + "\n", flush=True)
    tables: dict[str, Table] = {}
    try:
        for name in names:
            (folder / name).mkdir()
            place = Place(folder / name, given.rounds, given.seconds, given.scale)
            table = measured(name, {**BENCHES, **MORE}[name], place)
            if table is not None:
                tables[name] = table
            shutil.rmtree(folder / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    run = {
        **where,
        "rounds": given.rounds,
        "seconds": given.seconds,
        "scale": given.scale,
        "benches": {name: table.rows for name, table in tables.items()},
        "goals": [{**asdict(goal), "met": goal.met} for table in tables.values() for goal in table.goals],
    }
    if given.json is not None:
        given.json.write_text(json.dumps(run, indent=1) + "\n")
    if set(tables) >= set(whole) and given.scale >= 1:
        with HISTORY.open("a") as history:
            history.write(json.dumps(run) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
