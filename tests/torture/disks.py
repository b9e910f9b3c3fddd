"""The disk fails, fills up, is slow or dies under relay."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp

from tests.harness import LISTEN, RelayProcess, sink, write_config
from tests.torture.crashes import end
from tests.torture.disk import disk, grow, small_disk
from tests.torture.ledger import Ledger, config
from tests.torture.row import Figure, Place, Skipped, needs

_LOAD = 2.0  # seconds
_SYNC_DELAY = 0.2  # seconds, of the slow disk
_BODY = b'{"id":%d,"text":"' + b"x" * 100_000 + b'"}'


def traced(*options: str) -> list[str]:
    """Start a command under strace, which does to its system calls what the options say. Raises Skipped."""
    needs("strace")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        raise Skipped("needs the right to trace (ptrace)")
    return ["strace", "-D", "-f", "-o", "/dev/null", *(part for option in options for part in ("-e", option))]


async def health(relay: RelayProcess) -> dict[str, Any]:
    """`GET /health`, whatever its status."""
    async with aiohttp.ClientSession() as session, session.get(relay.admin + "/health") as response:
        found: dict[str, Any] = json.loads(await response.read())
        return found


async def healthy_when(
    relay: RelayProcess, condition: Callable[[dict[str, Any]], object], patience: float = 20.0
) -> float:
    """Wait until `/health` fulfils a condition; how long that took, in seconds. Raises TimeoutError."""
    began = time.monotonic()
    async with asyncio.timeout(patience):
        while not condition(await health(relay)):
            await asyncio.sleep(0.02)
    return time.monotonic() - began


def warnings(relay: RelayProcess) -> int:
    """Lines in the log of level warning and above."""
    return sum(line.get("level") in ("warning", "error", "critical") for line in relay.lines())


def most_in_a_minute(relay: RelayProcess) -> int:
    """Lines of level warning and above: the most that one cause has had within a minute. A cause whose numbers differ
    is the same cause."""
    times: dict[tuple[object, str], list[float]] = {}
    for line in relay.lines():
        if line.get("level") in ("warning", "error", "critical"):
            cause = line["event"], re.sub(r"\d+", "#", str(line.get("reason")))
            times.setdefault(cause, []).append(datetime.fromisoformat(line["timestamp"]).timestamp())
    return max((sum(0 <= one - first < 60 for one in each) for each in times.values() for first in each), default=0)


def _well(said: dict[str, Any]) -> bool:
    return bool(said["checks"]["store"] == "ok")


def _ill(said: dict[str, Any]) -> bool:
    return not _well(said)


async def io_errors(place: Place) -> Figure:
    """Each call that syncs, then each that writes, fails with EIO for a while."""
    lost, acknowledged, refused, slowest = 0, 0, Counter[int](), 0.0
    for call in ("fdatasync", "pwrite64"):
        prefix = traced(f"trace={call}", f"inject={call}:error=EIO:when=30..120", "signal=none")
        ledger = Ledger()
        folder = place.folder / call
        folder.mkdir()
        async with sink() as destination:
            first = RelayProcess(write_config(folder, config(destination.url)))
            await first.start()  # the file is made on a disk that works
            await first.stop()
            relay = RelayProcess(first.config, prefix=prefix)
            try:
                await relay.start()
                async with ledger.senders(relay.public):
                    slowest = max(slowest, await healthy_when(relay, _ill))  # of which some go well
                    await healthy_when(relay, _well)
                    await asyncio.sleep(_LOAD / 4)  # events go in again
                    relay.kill()
                await first.start()
                lost += len(ledger.lost(folder / "relay.db"))
                await ledger.arrived(destination)
            finally:
                end(relay)
                end(first)
        acknowledged += len(ledger.acknowledged)
        refused += ledger.refused
    told = ", ".join(f"{count} answered {status}" for status, count in sorted(refused.items()))
    return Figure(
        f"{acknowledged:,} acknowledged, {lost} lost, {told}; said within {slowest:.1f} s; healthy again by itself",
        not lost and set(refused) == {503} and slowest < 2,
    )


async def full(place: Place) -> Figure:
    """A small disk fills up under load, and is made larger."""
    ledger = Ledger(body=_BODY)
    async with sink() as destination:
        with small_disk(place.folder, 64 << 20) as mounted:
            store = mounted / "relay.db"
            text = f"store: {{url: 'sqlite:{store}'}}\n{LISTEN}{config(destination.url)}"
            relay = RelayProcess(write_config(place.folder, text))
            try:
                await relay.start()
                async with ledger.senders(relay.public, sink=destination):
                    async with asyncio.timeout(60):
                        while not ledger.refused:
                            await asyncio.sleep(0.001)
                    space = os.statvfs(mounted)
                    left = space.f_bavail * space.f_frsize
                    await asyncio.sleep(_LOAD)  # it goes on being asked while there is no room
                    said = await health(relay)
                    status, after = await _one(relay)
                    lines, often = warnings(relay), most_in_a_minute(relay)
                    grow(mounted, 1 << 30)
                    before = len(ledger.acknowledged)
                    recovered = await healthy_when(
                        relay, lambda now: now["status"] == "ok" and len(ledger.acknowledged) > before
                    )
                    relay.kill()
                await relay.start()
                lost = ledger.lost(store)
                arrived = await ledger.arrived(destination) if not lost else None
            finally:
                end(relay)
    return Figure(
        f"{left >> 20} MiB left at the first 503 (Retry-After: {after}), health '{said['status']}':"
        f" disk {said['checks']['disk']}; {ledger.refused[503]:,} refused, {lines} warnings logged, {often} of one"
        f" cause; {len(ledger.acknowledged):,} acknowledged, {len(lost)} lost;"
        f" well {recovered:.1f} s after there was room",
        status == 503
        and after is not None
        and (said["status"], said["store"]["ok"]) == ("failing", False)
        and left > 0
        and set(ledger.refused) == {503}
        and arrived is not None
        and arrived.kept
        and recovered < 10
        and often == 1,
    )


async def _one(relay: RelayProcess) -> tuple[int, str | None]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(relay.public + "/in/any", data=b'{"id":0}') as response,
    ):
        return response.status, response.headers.get("Retry-After")


async def slow(place: Place) -> Figure:
    """Each sync takes 200 ms."""
    prefix = traced("trace=fdatasync", f"inject=fdatasync:delay_enter={round(_SYNC_DELAY * 1e6)}", "signal=none")
    ledger, senders = Ledger(), 64
    async with sink() as destination:
        relay = RelayProcess(write_config(place.folder, config(destination.url)), prefix=prefix)
        try:
            await relay.start()
            async with ledger.senders(relay.public, senders):
                await asyncio.sleep(3 * _LOAD)
                answered = len(ledger.acknowledged)
                lag = await _lag(relay)
                relay.kill()
        finally:
            end(relay)
    rate, least = answered / (3 * _LOAD), senders / _SYNC_DELAY / 4
    return Figure(
        f"{rate:,.0f} events/s with {senders} senders and syncs of 200 ms, none refused;"
        f" the event loop was late by {lag * 1000:.0f} ms at most in 99 of 100",
        rate > least and not ledger.refused and lag <= 0.05,
    )


async def _lag(relay: RelayProcess) -> float:
    """The bound, in seconds, that 99 of 100 of the loop's wakings kept."""
    async with aiohttp.ClientSession() as session, session.get(relay.admin + "/metrics") as response:
        lines = (await response.text()).splitlines()
    buckets = [
        (float(line.split('le="')[1].split('"')[0]), float(line.split()[-1]))
        for line in lines
        if line.startswith("relay_event_loop_lag_seconds_bucket")
    ]
    return next(bound for bound, count in buckets if count >= 0.99 * buckets[-1][1])


async def dead(place: Place) -> Figure:
    """The disk dies under load and comes back; and once the file may only be read."""
    needs("chattr", root=True, package="e2fsprogs")
    ledger = Ledger()
    async with sink() as destination:
        with disk(place.folder) as mounted:
            store = mounted.path / "relay.db"
            text = f"store: {{url: 'sqlite:{store}'}}\n{LISTEN}{config(destination.url)}"
            relay = RelayProcess(write_config(place.folder, text))
            try:
                await relay.start()
                inode = store.stat().st_ino
                async with ledger.senders(relay.public):
                    await asyncio.sleep(_LOAD / 4)
                    ledger.dark = True  # see `crashes`: of the very millisecond nobody can tell
                    mounted.cut()
                    seen = await healthy_when(relay, _ill)
                    reason = (await health(relay))["checks"]["store"]
                    status, _ = await _one(relay)
                    relay.kill()
                mounted.again()
                subprocess.run(["chattr", "+i", store], check=True)
                refused = await asyncio.to_thread(_refused, relay)
                subprocess.run(["chattr", "-i", store], check=True)
                await relay.start()
                lost = ledger.lost(store)
                same = store.stat().st_ino == inode
                await ledger.arrived(destination)
            finally:
                subprocess.run(["chattr", "-i", store], check=False, capture_output=True)
                end(relay)
    return Figure(
        f"said within {seen:.1f} s: '{reason}'; a file that cannot be written: {refused};"
        f" {len(ledger.acknowledged):,} acknowledged, {len(lost)} lost, the file was not made anew",
        status == 503 and seen < 2 and not lost and same and refused.startswith("exit 78"),
    )


def _refused(relay: RelayProcess) -> str:
    """How a start ends that must not succeed."""
    command = ["timeout", "20", *_serve(relay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=relay.config.parent)
    said = [line for line in done.stderr.splitlines() if line.startswith("relay: ")]
    return f"exit {done.returncode}, '{said[-1] if said else done.stderr.strip()[-200:]}'"


def _serve(relay: RelayProcess) -> list[str]:
    import sys

    return [sys.executable, "-m", "relay", "serve", "--config", str(relay.config)]
