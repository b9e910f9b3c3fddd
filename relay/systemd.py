"""Talking to systemd: readiness, reloads, the watchdog, and sockets handed over (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
import time


def notify(*lines: str) -> None:
    """Tell the service manager; nothing happens without one. All lines go in one datagram."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto("\n".join(lines).encode(), address)
    except OSError:
        return  # a manager that is gone is no reason to stop


def ready(status: str) -> None:
    """Start-up or reload is done."""
    notify("READY=1", f"STATUS={status}")


def reloading() -> None:
    """A reload begins. Without MONOTONIC_USEC systemd 253 and later would wait for ever for its end."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def extend(seconds: float) -> None:
    """Start-up takes longer: at least so long from now."""
    notify(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def stopping() -> None:
    """Shutdown begins."""
    notify("STOPPING=1")


def watchdog() -> None:
    """Still alive."""
    notify("WATCHDOG=1")


def watchdog_period() -> float | None:
    """How often to say so, in seconds: half of what the unit allows; None without a watchdog."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdigit() or pid != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


def sockets() -> dict[str, socket.socket]:
    """The listening sockets handed over, by name (`FileDescriptorName=` of the socket unit)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for index in range(count):
        os.set_inheritable(3 + index, False)
        name = names[index] if index < len(names) and names[index] else f"fd{index}"
        found[name] = socket.socket(fileno=3 + index)
    return found
