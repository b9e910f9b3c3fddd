"""This process, by the metrics that every process has in Prometheus: what /proc says of it."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from relay.exposition import Family


class Process:
    """See https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics. Where there is no /proc there
    are none."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._booted: float | None = None
        if proc.exists():  # macOS has neither it nor the clock
            # Not from /proc/stat, which systemd's ProcSubset=pid hides. Processes are dated by the clock that goes on
            # while the machine is suspended.
            self._booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def families(self) -> Iterator[Family]:
        """See exposition.Metric."""
        if self._booted is None:
            return
        with contextlib.suppress(OSError):
            said = (self._proc / "self" / "stat").read_text().rpartition(")")[2].split()
            yield _one("process_virtual_memory_bytes", "Virtual memory size in bytes.", float(said[20]))
            resident = float(said[21]) * resource.getpagesize()
            yield _one("process_resident_memory_bytes", "Resident memory size in bytes.", resident)
            started = self._booted + float(said[19]) / self._ticks
            about = "Start time of the process since unix epoch in seconds."
            yield _one("process_start_time_seconds", about, started)
            spent = Family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.")
            spent.add((float(said[11]) + float(said[12])) / self._ticks)
            yield spent
        with contextlib.suppress(OSError):
            count = len([*(self._proc / "self" / "fd").iterdir()])
            yield _one("process_open_fds", "Number of open file descriptors.", count)
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit = math.inf if most == resource.RLIM_INFINITY else most
            yield _one("process_max_fds", "Maximum number of open file descriptors.", limit)


def _one(name: str, text: str, value: float) -> Family:
    family = Family(name, "gauge", text)
    family.add(value)
    return family
