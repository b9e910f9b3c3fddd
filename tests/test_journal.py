"""The log's way out."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import sys
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay import journal, logline
from relay.journal import LEVELS, Log
from relay.outlet import Outlet


@pytest.fixture(autouse=True)
def nothing_is_on_its_way() -> None:
    """What tests before have logged in this process is not to be written where a test looks."""
    journal.outlet.drain(10)


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
    outlet = counting()
    for _ in range(2):
        outlet.write(b"lost\n")
        outlet.drain(10)
    assert outlet.dropped == 2
    written = Written(2)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=written))
    outlet.write(b"line\n")
    assert written.there.wait(10)
    assert written.getvalue() == b"2 missing\nline\n"


def counting() -> Outlet:
    """One that says in its own way how many lines are missing."""
    outlet = Outlet()
    outlet.missing = lambda count: b"%d missing\n" % count
    return outlet


def test_where_a_disk_had_no_room_a_line_says_how_many_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(4)
    outlet = counting()
    outlet.write(b"before\n")
    with Path("/dev/full").open("wb") as full:
        outlet.drain(10)
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=full))
        for number in range(3):
            outlet.write(b"%d\n" % number)
            outlet.drain(10)
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=written))
        for number in range(3, 6):
            outlet.write(b"%d\n" % number)
        assert written.there.wait(10)
    assert written.getvalue() == b"3 missing\n3\n4\n5\n", "of what was lost nothing is kept in a buffer"
    assert outlet.dropped == 3


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_line_of_which_half_was_written_is_completed_before_what_follows(
    monkeypatch: pytest.MonkeyPatch, buffering: int
) -> None:
    reads, writes = os.pipe()
    size = fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writes, False)
    lines = [b"%05d%s\n" % (number, b"x" * 994) for number in range(20)]
    outlet = counting()
    with open(reads, "rb"), open(writes, "wb", buffering) as writer:
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=writer))
        outlet._put(lines)
        assert outlet.dropped == 20 - -(-size // 1000)
        read = os.read(reads, size)
        outlet._put([b"a\n"])
        read += os.read(reads, size)
        outlet._put([b"b\n"])
        read += os.read(reads, size)
        whole = 20 - outlet.dropped
        assert read == b"".join(lines[:whole]) + b"%d missing\na\nb\n" % outlet.dropped


def test_lines_for_which_there_was_no_room_are_missing_where_they_would_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Written):
        def write(self, data: object) -> int:
            writing.set()
            assert goes_on.wait(10)
            return super().write(data)

    writing, goes_on = threading.Event(), threading.Event()
    written = Slow(6)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=written))
    monkeypatch.setattr(Outlet, "_MOST_LINES", 3)
    outlet = counting()
    outlet.write(b"first\n")
    assert writing.wait(10)
    for number in range(8):
        outlet.write(b"%d\n" % number)
    goes_on.set()
    outlet.drain(10)
    outlet.write(b"last\n")
    assert written.there.wait(10)
    assert written.getvalue() == b"first\n0\n1\n2\n5 missing\nlast\n"
    assert outlet.dropped == 5


@pytest.mark.parametrize("form", ["json", "console"])
def test_how_many_lines_are_missing_is_a_line_like_others_at_every_level(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    for name in ("_log", "_before", "_render"):  # as they were, afterwards
        monkeypatch.setattr(journal, name, getattr(journal, name))
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    journal.configure("error", form)
    line = journal.outlet.missing(7)
    assert line.endswith(b"\n")
    if form == "json":
        assert json.loads(line) | {"timestamp": ""} == {
            "count": 7, "event": "log_lines_lost", "level": "error", "timestamp": "",
        }  # fmt: skip
    else:
        assert b"log_lines_lost" in line
        assert b"count=7" in line


def test_a_line_has_its_facts_and_then_what_every_line_has() -> None:
    said: list[dict[str, Any]] = []
    log = Log(LEVELS["warning"], said.append)
    log.info("not", a=1)
    log.warning("first", b=[1], a="x" * 1000)
    try:
        raise ValueError("boom")
    except ValueError as error:
        log.exception("second", where="here")
        log.raised("third", error)
    log.error("fourth")
    assert [(line["event"], line["level"]) for line in said] == [
        ("first", "warning"), ("second", "error"), ("third", "error"), ("fourth", "error"),
    ]  # fmt: skip
    assert list(said[0]) == ["b", "a", "event", "level", "timestamp"]
    assert len(said[0]["a"]) < 600
    for line in said[1:3]:
        assert list(line)[-1] == "exception"
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("\nValueError: boom")
    moment = datetime.fromisoformat(said[3]["timestamp"])
    assert said[3]["timestamp"].endswith("Z")
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


def test_what_libraries_complain_of_comes_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(journal, "_log", Log(0, said.append))
    monkeypatch.setattr(journal.redaction, "redact", lambda text: text.replace("hunter2", "***"))
    library = logging.getLogger("asyncio")
    try:
        raise OSError("hunter2")
    except OSError:
        library.exception("it %s", "failed")
    library.error("no traceback")
    assert [(line["logger"], line["message"]) for line in said] == [
        ("asyncio", "it failed"),
        ("asyncio", "no traceback"),
    ]
    assert said[0]["exception"].endswith("OSError: ***")
    assert "exception" not in said[1]


def test_lines_that_wait_take_up_little_more_than_their_length() -> None:
    """Where nobody reads the log, ten thousand of them wait."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        lines = [logline.at_once({"event_id": f"evt_{n}", "event": "event_accepted"}) for n in range(1000)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < 3 * sum(sys.getsizeof(line) for line in lines)
