"""Where log lines leave relay: standard error, written beside all else."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence


class Outlet:
    """Standard error, written by a thread: a reader that is slow or gone neither stops relay nor ends it.

    Lines wait in a bounded queue, some milliseconds for each other: to wake a thread for each of them would cost more
    than all else about it. What does not fit, or cannot be written, is dropped and counted, and where it would stand a
    line says how many are missing, once one can be written again.
    """

    _MOST_LINES = 10_000
    _GATHERING = 0.02  # seconds

    def __init__(self) -> None:
        self.dropped = 0
        self.missing: Callable[[int], bytes] = lambda count: b""
        """The line that says how many are; called on the thread that writes."""
        self._lines: deque[bytes | int] = deque()  # a number: so many are missing here
        self._unfit = 0  # lines for which there was no room since the last one that had some
        self._lost = 0  # lines that could not be written since the last one that could
        self._rest = b""  # of a line of which the beginning was written
        self._wake = threading.Event()
        self._asleep = True  # the thread waits to be woken
        self._writing = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> int:
        """Have some bytes written; never raises, never waits."""
        if len(self._lines) >= self._MOST_LINES:
            self.dropped += 1
            self._unfit += 1
            return len(data)
        if self._unfit:
            self._lines.append(self._unfit)
            self._unfit = 0
        self._lines.append(data)
        if self._asleep:
            self._asleep = False
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="relay-journal", daemon=True)
                    self._thread.start()
            self._wake.set()
        return len(data)

    def drain(self, seconds: float) -> None:
        """Give what waits some time to be written, at the end."""
        deadline = time.monotonic() + seconds
        while (self._lines or self._writing) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _gather(self) -> None:
        with contextlib.suppress(OSError):  # a clock that somebody meddles with must not end the log
            time.sleep(self._GATHERING)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._gather()
            while self._lines:
                self._writing = True
                self._put([self._lines.popleft() for _ in range(len(self._lines))])
                self._writing = False
                self._gather()
            self._asleep = True
            if self._lines and self._asleep:  # one that came before it was said
                self._asleep = False
                self._wake.set()

    def _put(self, lines: Sequence[bytes | int]) -> None:
        """Write what can be written of these, each line wholly or not at all, and keep account of the others."""
        if self._lost:
            lines, self._lost = [self._lost, *lines], 0
        shown = [self.missing(line) if isinstance(line, int) else line for line in lines]
        data = b"".join((self._rest, *shown))
        end, left = len(data), len(data) - _write(data)
        for line, text in zip(reversed(lines), reversed(shown), strict=True):
            if not left or left < len(text):
                break
            end, left = end - len(text), left - len(text)
            if isinstance(line, int):
                self._lost += line
            else:
                self._lost += 1
                self.dropped += 1
        self._rest = data[end - left : end]  # comes first when there is room again


def _write(data: bytes) -> int:
    """How many of these bytes standard error took. Past its buffer, which would keep some of what it did not take."""
    written = 0
    try:
        out = getattr(sys.stderr.buffer, "raw", sys.stderr.buffer)
        view = memoryview(data)
        while written < len(data):
            taken = out.write(view[written:])
            if not taken:  # it is full, and does not wait
                break
            written += taken
    except (OSError, ValueError, AttributeError):  # nobody reads, it is closed or full, or there is none
        pass
    return written


outlet = Outlet()
atexit.register(outlet.drain, 2.0)
