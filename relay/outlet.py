"""Where log lines leave relay: standard error, written beside all else."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from collections import deque


class Outlet:
    """Standard error, written by a thread: a reader that is slow or gone neither stops relay nor ends it.

    Lines wait in a bounded queue, some milliseconds for each other: to wake a thread for each of them would cost more
    than all else about it. What does not fit, or cannot be written, is dropped and counted.
    """

    _MOST_LINES = 10_000
    _GATHERING = 0.02  # seconds

    def __init__(self) -> None:
        self.dropped = 0
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._asleep = True  # the thread waits to be woken
        self._writing = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> int:
        """Have some bytes written; never raises, never waits."""
        if len(self._lines) >= self._MOST_LINES:
            self.dropped += 1
            return len(data)
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
                lines = [self._lines.popleft() for _ in range(len(self._lines))]
                try:
                    sys.stderr.buffer.write(b"".join(lines))
                    sys.stderr.buffer.flush()
                except (OSError, ValueError, AttributeError):  # nobody reads, it is closed, or there is none
                    self.dropped += len(lines)
                self._writing = False
                self._gather()
            self._asleep = True
            if self._lines and self._asleep:  # one that came before it was said
                self._asleep = False
                self._wake.set()


outlet = Outlet()
atexit.register(outlet.drain, 2.0)
