"""relay, installed on a machine that systemd has booted, as docs/operating.md says.

Where the variable RELAY_TEST_ROOT names a folder with another system (one that debootstrap made, with systemd, dbus,
curl and what Python's libraries need), the tests run there instead of on this machine's own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.namespace import Machine, booted, missing

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "systemd"
ROOT = os.environ.get("RELAY_TEST_ROOT", "/")
CONFIG = "/etc/relay/config.yaml"
PUBLIC = "http://127.0.0.1:8080"
ADMIN = "http://127.0.0.1:8081"
_PYTHON = "/opt/python"
_LINES = """
store: {url: "sqlite:/var/lib/relay/relay.db"}
sources:
  any: {type: generic, verify: none}
"""
WATCHDOG = 3.0
QUICK = f"[Service]\nWatchdogSec={WATCHDOG:g}s\nRestartSec=100ms\n"
"""A drop-in for tests: the same unit, in less time."""


@dataclass(frozen=True, slots=True)
class Relay:
    """relay on a booted machine."""

    machine: Machine
    since: str = "-1d"
    """When the test began, for the journal. (By its cursors version 252 leaves out a line too many.)"""

    def configure(self, routes: str = "", more: str = "") -> None:
        """Write its config."""
        self.machine.write(CONFIG, f"{_LINES}{more}routes: [{routes}]\n", 0o640)
        self.machine.run("chgrp", "relay", CONFIG)

    def drop_in(self, unit: str, text: str, name: str = "90-test.conf") -> None:
        """Change a unit as an operator does."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/{name}", text)
        self.machine.run("systemctl", "daemon-reload")

    def systemctl(self, *words: str) -> None:
        """What must succeed."""
        done = self.machine.ask("systemctl", *words)
        assert done.returncode == 0, f"{words}: {done.stderr}{self.machine.journal('--lines=40')}"

    def show(self, name: str, unit: str = "relay.service") -> str:
        return self.machine.show(unit, name)

    def python(self, *words: str) -> list[str]:
        """The command that runs relay's Python inside."""
        return self.machine.command("env", f"LD_LIBRARY_PATH={_PYTHON}/lib", "/opt/relay/bin/python3", *words)

    @property
    def pid(self) -> int:
        """Inside."""
        return int(self.show("MainPID"))

    def status(self, url: str) -> int:
        """What a request is answered with; 0 where nobody answers."""
        code = self.machine.ask("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", url)
        return int(code.stdout)

    def get(self, path: str) -> Any:
        return json.loads(self.machine.run("curl", "-s", "--fail", "--max-time", "20", ADMIN + path))

    def send(self, number: int = 1) -> str:
        """Send an event; its id."""
        body = json.dumps({"number": number})
        answer = self.machine.run("curl", "-s", "--fail", "--max-time", "20", "--data", body, f"{PUBLIC}/in/any")
        event: str = json.loads(answer)["id"]
        return event

    def generation(self) -> int:
        number: int = self.get("/health")["config"]["generation"]
        return number

    def log(self, *options: str) -> str:
        """Its lines in the journal since the test began, as they are."""
        self.machine.run("journalctl", "--sync")
        return self.machine.journal("--unit=relay.service", "--output=cat", f"--since={self.since}", *options)


@pytest.fixture(scope="session")
def installed() -> Iterator[Relay]:
    """relay, installed by hand; nothing is started. Its tests share one machine."""
    why_not = missing(ROOT)
    if why_not is not None:
        pytest.skip(f"systemd cannot be booted: {why_not}")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    library = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
    binds = {f"/opt/relay/{library}/site-packages/relay": REPOSITORY / "relay"}
    # The unit hides /home and /root, where this Python may lie.
    moved = not sys.base_prefix.startswith("/usr")
    if moved:
        binds[_PYTHON] = Path(sys.base_prefix)

    def before(new: Path) -> None:
        opt = new / "opt/relay"
        if moved:
            for name in ("python", "python3", library.removeprefix("lib/")):
                (opt / "bin" / name).unlink(missing_ok=True)
                (opt / "bin" / name).symlink_to(f"{_PYTHON}/bin/{library.removeprefix('lib/')}")
            settings = (opt / "pyvenv.cfg").read_text().splitlines()
            kept = [line for line in settings if line.partition(" = ")[0] not in ("home", "executable", "command")]
            (opt / "pyvenv.cfg").write_text("\n".join([f"home = {_PYTHON}/bin", *kept]) + "\n")
        start = "import sys\nfrom relay.__main__ import main\nsys.exit(main())\n"
        (opt / "bin/relay").write_text(f"#!/opt/relay/bin/python3\n{start}")
        (opt / "bin/relay").chmod(0o755)

    with booted(ROOT, binds=binds, copies={"/opt/relay": Path(sys.prefix)}, before=before) as machine:
        for unit in ("relay.service", "relay.socket", "relay-admin.socket"):
            machine.write(f"/etc/systemd/system/{unit}", (UNITS / unit).read_text())
        for kind in ("sysusers.d", "tmpfiles.d"):
            machine.write(f"/etc/{kind}/relay.conf", (UNITS / kind / "relay.conf").read_text())
        machine.run("systemd-sysusers", "relay.conf")
        machine.run("systemd-tmpfiles", "--create", "relay.conf")
        machine.run("systemctl", "daemon-reload")
        if moved:  # where it was built to lie it is hidden, and the system's own may be another
            machine.run("systemctl", "set-environment", f"LD_LIBRARY_PATH={_PYTHON}/lib")
        yield Relay(machine)


@pytest.fixture
def relay(installed: Relay) -> Iterator[Relay]:
    """The same with a config, stopped and with an empty store; what a test does is undone."""
    installed.configure()
    yield Relay(installed.machine, f"@{time.time():.6f}")
    installed.machine.ask("systemctl", "disable", "relay.socket")
    installed.machine.ask("systemctl", "stop", "relay.socket", "relay.service", "sink.service")
    installed.machine.ask("systemctl", "reset-failed")
    installed.machine.run("sh", "-c", "rm -rf /etc/systemd/system/relay*.d /var/lib/relay/* /etc/relay/credentials/*")
    installed.systemctl("daemon-reload")
