"""Terminals for the pages' commands: bash with a network, processes and a view of the file system of its own.

What the commands write, also to /etc and /var, nobody else sees, and the fixed ports of the examples are free. There is
no way out: what a command would fetch or ask of the machine's services is answered by stand-ins (`standins/`), which
refuse what they do not know. `relay` itself is real, forked by a process that has imported it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT
from tests.harness import PATIENCE

STANDINS = Path(__file__).parent / "standins"

# The layers lie on a file system of their own: an overlay cannot write into another one. Each line that it reads is the
# folder of a page, whose terminal then has standard input until it is closed.
_MACHINE = r"""
set -eu
mount -t tmpfs tmpfs "$LAYERS"
for top in etc var opt usr/local; do
  mkdir -p "$LAYERS/$top" "$LAYERS/$top.work"
  mount -t overlay overlay -o "lowerdir=/$top,upperdir=$LAYERS/$top,workdir=$LAYERS/$top.work" "/$top"
done
mkdir -p /etc/bash_completion.d
mount --rbind "$FOLDERS" "$FOLDERS"
mount -o remount,bind,ro /
ip link set lo up
"$PYTHON" -m tests.docs.forkserver "$SOCKET" &
set +eu
echo ready
while IFS= read -r page; do . "$page/environ"; bash -c "$TERMINAL"; done
"""
_TERMINAL = r"""
set -o pipefail
cd "$SCRATCH"
while IFS= read -r file; do
  [ "$file" != close ] || exit
  . "$file" > "$file.out" 2>&1 < /dev/null
  echo $?
done
"""


@dataclass
class Running:
    """A command that runs until it is ended."""

    kind: str
    number: str
    output: Path


class Machine:
    """Namespaces, with the process that relay is forked from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors = folder / "errors"
        layers = folder / "layers"
        layers.mkdir()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PYTEST_"))}
        environ |= {
            "PATH": f"{STANDINS}:{environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CHECKOUT": str(ROOT),
            "FOLDERS": str(folder),
            "LAYERS": str(layers),
            "SOCKET": str(folder / "relay.sock"),
            "TERMINAL": _TERMINAL,
        }
        with self.errors.open("wb") as errors:
            self._bash = subprocess.Popen(
                [*_unshare(), "bash", "-c", _MACHINE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environ,
            )
        assert self.answer() == "ready", self.errors.read_text()
        _until((folder / "relay.sock").exists, self.errors.read_text)

    def type(self, line: str) -> None:
        assert self._bash.stdin is not None
        print(line, file=self._bash.stdin, flush=True)

    def answer(self) -> str:
        assert self._bash.stdout is not None
        return self._bash.stdout.readline().strip()

    def close(self) -> None:
        self._bash.kill()
        self._bash.communicate()


class Terminal:
    """In a folder that looks like a checkout: `copied` is one that may be changed, whose relay is what runs."""

    def __init__(self, machine: Machine, *, copied: bool) -> None:
        self._machine = machine
        self._state = machine.folder / f"page-{len(list(machine.folder.iterdir()))}"
        self.scratch = self._state / "checkout"
        self.scratch.mkdir(parents=True)
        (self._state / "home").mkdir()
        self._count = 0
        self.running: list[Running] = []
        for path in ROOT.iterdir():
            if path.name in (".git", ".venv", "dist", "build", "config.yaml", "relay.db"):
                continue
            if copied and path.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "node_modules", "images")
                shutil.copytree(path, self.scratch / path.name, ignore=ignored)
            else:
                (self.scratch / path.name).symlink_to(path)
        environ = {
            "SCRATCH": self.scratch,
            "HOME": self._state / "home",
            "TMPDIR": self._state / "home",
            "COPIED": self.scratch if copied else "",
            "PYTHONPATH": self.scratch if copied else ROOT,
        }
        (self._state / "environ").write_text("".join(f"export {name}='{value}'\n" for name, value in environ.items()))
        machine.type(str(self._state))

    def run(self, command: str) -> tuple[int, str]:
        """Type a command; gives its exit code and all that it printed."""
        self._count += 1
        file = self._state / f"{self._count}.sh"
        file.write_text(command + "\n")
        self._machine.type(str(file))
        code = self._machine.answer()
        assert code.isdigit(), self._machine.errors.read_text()
        return int(code), (self._state / f"{self._count}.sh.out").read_text(errors="replace")

    def start(self, command: str, kind: str, ready: str) -> None:
        """Type a command into another terminal, and wait until it says that it is ready. Its like is ended before,
        and a demo, which has all ports."""
        self.end(None if kind == "demo" else kind)
        self.end("demo")
        output = self._state / f"{self._count + 1}.txt"
        output.touch()
        code, number = self.run(f"( {command}\n) > {output} 2>&1 < /dev/null &\necho $!")
        assert code == 0, number
        self.running.append(Running(kind, number.strip(), output))
        _until(lambda: ready in output.read_text(errors="replace"), output.read_text)

    def printed(self) -> str:
        """What all that runs has printed."""
        return "".join(one.output.read_text(errors="replace") for one in self.running)

    def end(self, kind: str | None = None) -> None:
        """Ctrl-C to all that runs, or to all of a kind."""
        for one in [one for one in self.running if kind in (None, one.kind)]:
            self.run(f"pkill -TERM -P {one.number}; kill -TERM {one.number}; wait {one.number}")
            self.running.remove(one)

    def close(self) -> None:
        self.end()
        self._machine.type("close")


def _until(condition: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.01)


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@cache
def missing() -> str:
    """Why this machine has no such terminals; empty where it has."""
    tools = {"unshare": "util-linux", "ip": "iproute2", "pkill": "procps", "curl": "curl", "jq": "jq"}
    for tool, package in tools.items():
        if shutil.which(tool) is None:
            return f"{tool} is missing: apt-get install {package}"
    overlay = "mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/up,workdir=/mnt/work /etc"
    tried = subprocess.run(
        [*_unshare(), "bash", "-ec", f"mount -t tmpfs tmpfs /mnt; mkdir /mnt/up /mnt/work; {overlay}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"needs namespaces with overlays (run it as root): {tried.stderr.strip()}" if tried.returncode else ""


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    made = Machine(folder)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def terminal(on: Machine, *, copied: bool = False) -> Iterator[Terminal]:
    made = Terminal(on, copied=copied)
    try:
        yield made
    finally:
        made.close()
