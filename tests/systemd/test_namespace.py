"""The harness itself: what is done inside stays inside, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.systemd.namespace import PATIENCE, booted, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"systemd cannot be booted: {missing()}")

_REPORTS = """
import time
from tests.systemd.namespace import booted
with booted() as machine:
    print(machine.pid, flush=True)
    time.sleep(600)
"""


def test_two_machines_at_once_share_nothing() -> None:
    listens = "[Socket]\nListenStream=127.0.0.1:8080\nAccept=yes\n"
    with booted() as one, booted() as other:
        for machine in (one, other):
            machine.write("/etc/systemd/system/probe.socket", listens)
            machine.write("/etc/systemd/system/probe@.service", "[Service]\nExecStart=/bin/true\n")
            machine.run("systemctl", "daemon-reload")
            machine.run("systemctl", "start", "probe.socket")
        assert one.read("/etc/machine-id") != other.read("/etc/machine-id")
        one.run("hostname", "one")
        assert other.run("hostname") != "one\n"
        assert one.run("cat", "/proc/1/comm") == "systemd\n"
    assert not Path("/etc/systemd/system/probe.socket").exists()


def test_its_own_loopback_is_up_and_journald_listens() -> None:
    with booted() as machine:
        assert machine.read("/sys/class/net/lo/operstate") == "unknown\n"  # which is how an lo that is up looks
        assert os.listdir(machine.path("/sys/class/net")) == ["lo"]
        machine.run("logger", "--tag=probe", "heard")
        machine.until(lambda: "heard" in machine.journal("--identifier=probe"), "the line in the journal")


def test_it_is_gone_when_the_process_that_booted_it_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", _REPORTS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        pid = int(process.stdout.readline())
        inside = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert inside
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while any(Path("/proc", each).exists() for each in (str(pid), *inside)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
