"""Verbs as a user runs them, and a daemon and a sink as processes for them to talk to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from relay.cli import relay
from tests.harness import PATIENCE, RelayProcess, answered

TOP = Path(__file__).parent.parent.parent
FIXTURES = TOP / "tests" / "samples"


@dataclass(frozen=True)
class Ended:
    """How a verb ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def checked(ended: Ended) -> Ended:
    """What holds for every run of every verb."""
    for text in (ended.out, ended.err):
        assert "Traceback" not in text, text
        assert all(c.isprintable() or c == "\n" for c in text), "control characters reach the terminal"
    return ended


def run(*args: str | Path, stdin: bytes | None = None, environ: dict[str, str] | None = None) -> Ended:
    """A verb in this process. Exceptions that a user would see as a traceback fail the test."""
    env = {"RELAY_CONFIG": None, "RELAY_URL": None, "RELAY_TOKEN": None, **(environ or {})}
    result = CliRunner().invoke(relay, [str(arg) for arg in args], input=stdin, env=env, prog_name="relay")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return checked(Ended(result.exit_code, result.stdout, result.stderr))


def complaint(ended: Ended, code: int) -> str:
    """The one line on standard error of a verb that failed and printed nothing else."""
    assert ended.code == code, ended
    assert ended.out == ""
    [line] = ended.err.splitlines()
    assert line.startswith("relay: ")
    return line


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "relay", *map(str, args)]


def run_process(*args: str | Path, cwd: Path | None = None, environ: dict[str, str] | None = None) -> Ended:
    """A verb as a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    env |= {"PYTHONPATH": str(TOP)} | (environ or {})
    done = subprocess.run(
        command(*args), capture_output=True, text=True, timeout=PATIENCE, cwd=cwd, env=env, check=False
    )
    return checked(Ended(done.returncode, done.stdout, done.stderr))


class Talking:
    """A verb that keeps running: `demo` or `sink`. What it prints can be waited for."""

    def __init__(self, folder: Path, *args: str | Path) -> None:
        self._err = folder / f"{args[0]}.err"
        self._lines: list[str] = []
        self._ended = False
        self._more = threading.Condition()
        env = {**os.environ, "PYTHONPATH": str(TOP), "PYTHONUNBUFFERED": "1"}
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command(*args), stdout=subprocess.PIPE, stderr=err, cwd=folder, env=env, text=True
            )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            for line in out:
                with self._more:
                    self._lines.append(line.rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    @property
    def lines(self) -> list[str]:
        """What it has printed so far; all of it where it has ended."""
        if self.process.poll() is not None:
            self._reading.join(PATIENCE)
        with self._more:
            return self._lines[:]

    @property
    def complaints(self) -> str:
        return self._err.read_text()

    def wait_for(self, text: str) -> str:
        """The first line with `text` in it, once there is one."""

        def found() -> str | None:
            return next((line for line in self._lines if text in line), None)

        with self._more:
            assert self._more.wait_for(lambda: found() is not None or self._ended, PATIENCE), self._lines
            line = found()
        assert line is not None, self.complaints
        return line

    def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def talking(folder: Path, *args: str | Path) -> Iterator[Talking]:
    made = Talking(folder, *args)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


@contextlib.contextmanager
def serving(config: Path, environ: dict[str, str] | None = None) -> Iterator[RelayProcess]:
    """`relay serve`, for tests without a loop."""
    made = RelayProcess(config, environ=environ)
    asyncio.run(made.start())
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.count(10_000 + 2_000 * (_WORKER % 10))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. Each is given once, to one of the tests that run at the same time, and they lie
    below those that the kernel gives by itself: nobody takes one before who asked for it does."""
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found


def items_when(url: str, ready: Any, *options: str) -> list[dict[str, Any]]:
    """What `relay logs --json` lists, once that is as it should be."""
    return listed(lambda: run("logs", "--url", url, "--json", *options), ready)


def listed(verb: Callable[[], Ended], ready: Any) -> list[dict[str, Any]]:
    """What a verb lists with `--json`, once that is as it should be."""

    async def look() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = verb().json["items"]
        return items

    return asyncio.run(answered(look, ready))
