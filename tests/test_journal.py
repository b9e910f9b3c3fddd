"""The log's way out."""

from __future__ import annotations

import io
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from relay.journal import Outlet


class Written(io.BytesIO):
    """What was written, how often, and told when enough has come."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.calls = 0
        self._enough = enough
        self.there = threading.Event()

    def write(self, data: object) -> int:
        self.calls += 1
        size = super().write(data)  # type: ignore[arg-type]
        if self.getvalue().count(b"\n") >= self._enough:
            self.there.set()
        return size


def test_lines_that_come_together_are_written_together_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(1000)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=written))
    outlet = Outlet()
    lines = [b"%d\n" % number for number in range(1000)]
    for line in lines:
        outlet.write(line)
    assert written.there.wait(10)
    assert written.getvalue() == b"".join(lines)
    assert written.calls < 500
    assert outlet.dropped == 0


def test_a_clock_that_fails_does_not_end_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seconds: float) -> None:
        raise OSError(22, "Invalid argument")

    written = Written(2)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=written))
    monkeypatch.setattr(time, "sleep", broken)
    outlet = Outlet()
    for _ in range(2):
        outlet.write(b"line\n")
    assert written.there.wait(10)


def test_what_cannot_be_written_is_counted_and_the_next_line_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    outlet = Outlet()
    outlet.write(b"lost\n")
    outlet.drain(10)
    assert outlet.dropped == 1
    written = Written(1)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=written))
    outlet.write(b"line\n")
    assert written.there.wait(10)
    assert written.getvalue() == b"line\n"
