"""A log that nobody reads."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import aiohttp

from tests.cli.running import free_ports
from tests.harness import PATIENCE, Received, sink, write_config
from tests.torture.ledger import config
from tests.torture.row import TOP, Figure, Place
from tests.torture.steady import Steady

BURST = 8_000


async def logs(place: Place) -> Figure:
    """Nobody reads relay's log, then it is closed; beside that a relay whose log is read."""
    figures: dict[str, Steady] = {}
    for name in ("read", "not read", "closed"):
        folder = place.folder / name.replace(" ", "-")
        folder.mkdir()
        async with sink() as destination:
            path = write_config(folder, config(destination.url))
            relay = _Unread(path, name)
            await relay.begin()
            try:
                await _burst(relay.public)
                sender = figures[name] = Steady(relay.public, 300)
                async with asyncio.TaskGroup() as group:
                    group.create_task(sender.run())
                    await asyncio.sleep(4)
                    sender.ended = True
                await destination.wait_for(partial(_all, BURST + sender.sent))
                lost = await relay.lost_lines()
            finally:
                relay.end()
        if name == "not read":
            dropped = lost
    usual = figures["read"].p99
    worst = max(figures["not read"].p99, figures["closed"].p99)
    answered = all(set(sender.statuses) == {200} for sender in figures.values())
    return Figure(
        f"{figures['not read'].sent:,} events each, all answered 200 and delivered; p99 of an answer"
        f" {usual * 1000:.1f} ms read, {figures['not read'].p99 * 1000:.1f} not read ({dropped:,.0f} lines lost),"
        f" {figures['closed'].p99 * 1000:.1f} closed",
        answered and dropped > 0 and worst < max(2 * usual, usual + 0.01),
    )


def _all(count: int, seen: list[Received]) -> bool:
    return len({request.id for request in seen}) >= count


async def _burst(url: str) -> None:
    """More lines than the pipe and relay's queue hold."""

    async def send(session: aiohttp.ClientSession, numbers: range) -> None:
        for number in numbers:
            async with session.post(f"{url}/in/any", data=b'{"id":%d}' % number) as response:
                assert response.status == 200

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for first in range(16):
            group.create_task(send(session, range(1_000_000 + first, 1_000_000 + BURST, 16)))


class _Unread:
    """A relay whose standard error is a pipe that is read, that nobody reads, or that is closed."""

    def __init__(self, path: Path, how: str) -> None:
        self._path = path
        self._how = how
        self.public = self.admin = ""

    async def begin(self) -> None:
        public, admin = free_ports(2)
        text = self._path.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{public}"', 1)
        self._path.write_text(text.replace('"127.0.0.1:0"', f'"127.0.0.1:{admin}"', 1))
        self.public, self.admin = f"http://127.0.0.1:{public}", f"http://127.0.0.1:{admin}"
        command = [sys.executable, "-m", "relay", "serve", "--config", str(self._path)]
        if self._how == "closed":
            command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
        environ = {**os.environ, "PYTHONPATH": str(TOP)}
        with self._path.with_name("log").open("wb") as log:
            stderr = log if self._how == "read" else subprocess.PIPE
            self._process = subprocess.Popen(command, stderr=stderr, cwd=self._path.parent, env=environ)
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with session.get(self.admin + "/health/ready") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                assert self._process.poll() is None
                await asyncio.sleep(0.02)

    async def lost_lines(self) -> float:
        async with aiohttp.ClientSession() as session, session.get(self.admin + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("relay_journal_dropped_total"))

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
