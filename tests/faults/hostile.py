"""What destinations that misbehave cost: for each fault what `/logs` says of it, how long it took, and what memory.

    python -m tests.faults.hostile [--json] [WORD ...]

One relay, as a process of its own, and the destinations of tests/faults/peers.py, all on loopback: one event for each
that holds one of the words, one after another. Seconds are those of the attempt; memory is how far relay's RSS rose at
its highest above what it was before. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults.peers import CASES, FINE, Case
from tests.harness import PATIENCE, RelayProcess, relay_process

ROOT = Path(__file__).parent.parent.parent
STARTUP = """\
import socket
from tests.faults.names import Names
socket.getaddrinfo = Names().getaddrinfo
"""


@dataclass(frozen=True)
class Row:
    """What came of one fault."""

    fault: str
    code: str
    message: str
    seconds: float
    mib: float


async def measure(cases: Mapping[str, Case]) -> AsyncIterator[Row]:
    """Run each case against one relay."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        warm = {"": Case(FINE, None), **cases}
        config, routes = ["sources:"], ["routes:"]
        for number, case in enumerate(warm.values()):
            place = folder / str(number)
            place.mkdir()
            url = (await stack.enter_async_context(case.serve(place))).url
            config.append(f"  s{number}: {{type: generic, verify: none}}")
            to = f"{{url: '{url}', {case.keys(place)}}}"
            routes.append(f"  - {{name: r{number}, sources: [s{number}], to: {to}, retry: none}}")
        # The first module of this name on the path is what Python runs before all else.
        (folder / "sitecustomize.py").write_text(STARTUP)
        text = "\n".join([*config, *routes, ""])
        environ = {"PYTHONPATH": f"{folder}:{ROOT}"}
        relay = await stack.enter_async_context(relay_process(folder, text, environ=environ))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for number, fault in enumerate(warm):
            row = await attempt(relay, session, number, fault)
            if fault:
                yield row


async def attempt(relay: RelayProcess, session: aiohttp.ClientSession, number: int, fault: str) -> Row:
    """Send one event to the destination of this number, and wait for its end."""
    assert relay.process is not None
    pid = relay.process.pid
    before = memory(pid, "VmRSS")
    forget_highest(pid)
    async with session.post(f"{relay.public}/in/s{number}", data=b"{}") as answer:
        assert answer.status == 200, await answer.text()
    item = await ended(relay, session, number)
    error: dict[str, str] = item["error"] or {"code": "delivered", "message": f"HTTP {item['code']}"}
    mib = max(0, memory(pid, "VmHWM") - before) / 1024
    return Row(fault, error["code"], error["message"], item["duration_ms"] / 1000, mib)


async def ended(relay: RelayProcess, session: aiohttp.ClientSession, number: int) -> dict[str, Any]:
    """The one delivery of a route, once it has an end."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with session.get(f"{relay.admin}/logs?route=r{number}&status=delivered,failed") as answer:
                items: list[dict[str, Any]] = (await answer.json())["items"]
            if items:
                return items[0]
            await asyncio.sleep(0.02)


def forget_highest(pid: int) -> None:
    """VmHWM, the highest RSS of a process, counts from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def memory(pid: int, what: str) -> int:
    """A figure of a process in KiB."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1])


def line(row: Row) -> str:
    """A line of the table."""
    return f"{row.fault:<36} {row.code:<16} {row.seconds:>5.2f} {row.mib:>5.1f}  {row.message}"


async def show(cases: Mapping[str, Case], as_json: bool) -> None:
    """Print a line for each fault."""
    if not as_json:
        print(f"{'fault':<36} {'code':<16} {'s':>5} {'MiB':>5}  message")
    async for row in measure(cases):
        print(json.dumps(asdict(row)) if as_json else line(row), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("words", nargs="*", metavar="WORD", help="only faults that hold one of these")
    options.add_argument("--json", action="store_true", help="a line of JSON for each")
    given = options.parse_args()
    chosen = {fault: case for fault, case in CASES.items() if not given.words or any(w in fault for w in given.words)}
    if not chosen:
        sys.exit("no fault holds one of these words")
    asyncio.run(show(chosen, given.json))


if __name__ == "__main__":
    main()
