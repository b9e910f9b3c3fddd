"""Talking to systemd: readiness, reloads, the watchdog, and how much a line of the log matters.

See sd_notify(3), sd-daemon(3), and systemd.exec(5) on JOURNAL_STREAM. The sockets that it opens: `handover`.
"""

from __future__ import annotations

import os
import socket
import time

from relay.plaintext import printable

_LONGEST_STATUS = 300  # characters; `systemctl status` shows one line
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # of syslog(3)


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
    notify("READY=1", _status(status))


def reloading() -> None:
    """A reload begins. Without MONOTONIC_USEC systemd 253 and later would wait for ever for its end."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def _status(text: str) -> str:
    """One line, whatever is in it: a line more would be an assignment of its own."""
    shown = printable(text)
    return f"STATUS={shown if len(shown) <= _LONGEST_STATUS else shown[: _LONGEST_STATUS - 1] + '…'}"


def extend(seconds: float) -> None:
    """Start-up takes longer: at least so long from now."""
    notify(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def stopping() -> None:
    """Shutdown begins."""
    notify("STOPPING=1", _status("stopping: attempts in flight may finish"))


def watchdog() -> None:
    """Still alive."""
    notify("WATCHDOG=1")


def watchdog_limit() -> float | None:
    """After how many seconds of silence the unit has relay restarted (`WatchdogSec=`); None without a watchdog."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not is_number(usec) or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 1_000_000


def priority(level: str) -> str:
    """What goes before a line of standard error where that is the journal, which takes it off and sorts by it
    (`journalctl -p warning`); nothing elsewhere."""
    return f"<{_PRIORITIES[level]}>" if _stderr_is_journal() else ""


def _stderr_is_journal() -> bool:
    """Whether standard error is still the stream that systemd opened: somebody may have sent it elsewhere since."""
    said = os.environ.get("JOURNAL_STREAM", "")
    if not said:
        return False
    try:
        at = os.fstat(2)
    except OSError:
        return False
    return said == f"{at.st_dev}:{at.st_ino}"


def is_number(text: str) -> bool:
    """Whether an environment variable holds a number, of a size that makes sense."""
    return text.isascii() and text.isdigit() and len(text) <= 18
