"""A terminal for a page's commands: bash with a network, a process tree and a view of the file system of its own.

What the commands write, also to /etc and /var, nobody else sees, and the fixed ports of the examples are free. There is
no way out: what a command would fetch or ask of the machine's services is answered by stand-ins (`standins/`), which
check that the command line is one that exists.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT
from tests.harness import PATIENCE

STANDINS = Path(__file__).parent / "standins"
RUNS_ON = {"demo": "demo: running", "sink": "sink: listening", "sink of refusals": "sink: listening", "follow": ""}
"""What runs until Ctrl-C, and what it says when it is ready."""

# The layers lie on a file system of their own: an overlay cannot write into another one.
_INSIDE = r"""
set -eu
mount -t tmpfs tmpfs "$LAYERS"
for top in etc var opt usr/local; do
  mkdir -p "$LAYERS/$top" "$LAYERS/$top.work"
  mount -t overlay overlay -o "lowerdir=/$top,upperdir=$LAYERS/$top,workdir=$LAYERS/$top.work" "/$top"
done
mkdir -p /etc/bash_completion.d
mount --rbind "$FOLDER" "$FOLDER"
mount -o remount,bind,ro /
ip link set lo up
cd "$SCRATCH"
"$PYTHON" -m tests.docs.forkserver "$SOCKET" &
set +eu
echo ready
while IFS= read -r file; do . "$file" > "$file.out" 2>&1 < /dev/null; echo $?; done
"""


@dataclass
class Running:
    """A command that runs until it is ended."""

    kind: str
    number: str
    output: Path


class Terminal:
    def __init__(self, folder: Path, *, copied: bool = False) -> None:
        """In a folder that looks like a checkout: `copied` is one that may be changed, whose relay is what runs."""
        self.scratch = folder / "checkout"
        self._state = folder / "state"
        self._count = 0
        self.running: list[Running] = []
        self.scratch.mkdir()
        self._state.mkdir()
        (folder / "layers").mkdir()
        (folder / "home").mkdir()
        for path in ROOT.iterdir():
            if path.name not in (".git", ".venv", "dist", "config.yaml", "relay.db"):
                if copied and path.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "images")
                    shutil.copytree(path, self.scratch / path.name, ignore=ignored)
                else:
                    (self.scratch / path.name).symlink_to(path)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PYTEST_"))}
        environ |= {
            "PATH": f"{STANDINS}:{environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(self.scratch if copied else ROOT),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(folder / "home"),
            "FOLDER": str(folder),
            "TMPDIR": str(folder / "home"),
            "SCRATCH": str(self.scratch),
            "LAYERS": str(folder / "layers"),
            "SOCKET": str(self._state / "relay.sock"),
            "JOURNAL": str(self._state / "journal"),
            "CHECKOUT": str(ROOT),
            "COPIED": "1" if copied else "",
        }
        with (self._state / "errors").open("wb") as errors:
            self._bash = subprocess.Popen(
                [*_unshare(), "bash", "-c", _INSIDE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environ,
            )
        assert self._line() == "ready", (self._state / "errors").read_text()
        deadline = time.monotonic() + PATIENCE
        while not (self._state / "relay.sock").exists():
            assert time.monotonic() < deadline, (self._state / "errors").read_text()
            time.sleep(0.01)

    def _line(self) -> str:
        assert self._bash.stdout is not None
        return self._bash.stdout.readline().strip()

    def run(self, command: str) -> tuple[int, str]:
        """Type a command; gives its exit code and all that it printed."""
        self._count += 1
        file = self._state / f"{self._count}.sh"
        file.write_text(command + "\n")
        assert self._bash.stdin is not None
        print(file, file=self._bash.stdin, flush=True)
        code = self._line()
        assert code.isdigit(), (self._state / "errors").read_text()
        return int(code), (self._state / f"{self._count}.sh.out").read_text(errors="replace")

    def start(self, command: str, kind: str) -> None:
        """Type a command into another terminal, and wait until it is ready. What has its addresses is ended before."""
        self.end(None if kind == "demo" else kind)
        output = self._state / f"{self._count + 1}.txt"
        output.touch()
        said = f"> {output} 2>&1" if kind != "serve" else f"> {output} 2>> {self._state}/journal"
        code, number = self.run(f"( {command}\n) {said} < /dev/null &\necho $!")
        assert code == 0, number
        self.running.append(Running(kind, number.strip(), output))
        said_so = RUNS_ON.get(kind, "")
        deadline = time.monotonic() + PATIENCE
        while not (
            said_so in output.read_text(errors="replace")
            if kind in RUNS_ON
            else self.run("/usr/bin/curl -sf localhost:8081/health/ready")[0] == 0
        ):
            journal = self._state / "journal"
            assert time.monotonic() < deadline, output.read_text() + (journal.read_text() if journal.exists() else "")
            time.sleep(0.01)

    def printed(self) -> str:
        """What all that runs has printed."""
        return "".join(one.output.read_text(errors="replace") for one in self.running)

    def end(self, kind: str | None = None) -> None:
        """Ctrl-C to all that runs, or to all of a kind."""
        for one in [one for one in self.running if kind in (None, one.kind)]:
            self.run(f"pkill -TERM -P {one.number} || kill -TERM {one.number}; wait {one.number}")
            self.running.remove(one)

    def close(self) -> None:
        self._bash.kill()
        self._bash.communicate()


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@cache
def missing() -> str:
    """Why this machine has no such terminals; empty where it has."""
    for tool, package in {"unshare": "util-linux", "ip": "iproute2", "curl": "curl", "jq": "jq"}.items():
        if shutil.which(tool) is None:
            return f"{tool} is missing: apt-get install {package}"
    tried = subprocess.run(
        [*_unshare(), "bash", "-ec", "mount -t tmpfs tmpfs /mnt; mkdir /mnt/up /mnt/work; "
         "mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/up,workdir=/mnt/work /etc"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return tried.stderr.strip() and f"namespaces with overlays are not allowed here (run it as root): {tried.stderr}"


@contextmanager
def terminal(folder: Path, *, copied: bool = False) -> Iterator[Terminal]:
    made = Terminal(folder, copied=copied)
    try:
        yield made
    finally:
        made.close()
