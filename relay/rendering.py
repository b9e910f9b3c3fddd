"""Where what operators write is rendered: in processes of its own, which the kernel ends when they take too long.

The sandbox of `relay.sandbox` counts work, and most of what is too much is told in advance. But there are texts for
which a single innocent call takes minutes inside the interpreter, where nothing can stop it but the end of the process,
and while it lasts no other thread runs. So templates and expressions that a config holds are rendered by helpers:
`relay.renderworker`, one job at a time, each within so much processor time and memory. What takes longer fails, and
everything else goes on.

Processor time, not time: on a busy machine a rendering may wait, and what works once works always.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

PROCESSOR_SECONDS = 0.6
"""What one rendering may take."""
MEMORY = 256 << 20
"""What it may need beyond what a helper needs anyway."""
IDLE_SECONDS = 60.0
"""After which a helper with nothing to do ends by itself."""
HELPERS = 2
USUAL_MEMORY = HELPERS * (30 << 20)
"""What all of them take up beside relay, as payloads usually are."""
_PATIENCE = 20.0  # seconds for an answer, on a machine that has little time for us
HEAD = struct.Struct("!II")
"""What goes before a job (the sizes of its two parts) and before an answer (whether it is one, and its size)."""
_PASSED_ON = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
"""Of the environment: it may hold secrets, which a helper has no use for."""


class CannotRender(Exception):
    """Nothing was rendered, and never will be: what was to be rendered is at fault. The text says why, for the
    operator."""


class NoHelper(Exception):
    """Nothing was rendered, and that may be different a moment later."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun
        """Whether a helper had the job: then the job may be what ended it, as far as anyone can tell."""


class _Ended(Exception):
    """The helper had ended before it could have begun."""


class _Helper:
    """One process, asked one thing at a time."""

    def __init__(self) -> None:
        place = str(Path(__file__).parent.parent)
        environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"PYTHONPATH": place}
        command = [sys.executable, "-m", "relay.renderworker"]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, cwd="/"
        )

    def ask(self, head: bytes, body: bytes) -> tuple[bool, bytes]:
        """Whether it was rendered, and what: the payload, or why not. Raises CannotRender, NoHelper, or _Ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(HEAD.pack(len(head), len(body)) + head + body)
            self._process.stdin.flush()
        except BrokenPipeError:  # it is not begun before all of it is there
            raise _Ended from None
        try:
            done, size = HEAD.unpack(self._read(HEAD.size))
            return bool(done), self._read(size)
        except EOFError:
            raise self._why() from None

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), monotonic() + _PATIENCE
        readable = select.poll()  # not select.select, which knows the first 1,024 descriptors only
        readable.register(descriptor, select.POLLIN)
        got = bytearray()
        while len(got) < size:
            left = deadline - monotonic()
            if left <= 0 or not readable.poll(left * 1000):
                raise NoHelper(f"no answer within {_PATIENCE:g} s", begun=True)
            some = os.read(descriptor, min(size - len(got), 1 << 20))
            if not some:
                raise EOFError
            got += some
        return bytes(got)

    def _why(self) -> Exception:
        code = self._process.wait()
        if code == 0:
            return _Ended()
        if code == -signal.SIGPROF:
            return CannotRender(f"it takes longer than {PROCESSOR_SECONDS:g} s")
        if code < 0:
            return NoHelper(f"its helper was ended by signal {-code}", begun=True)
        return NoHelper(f"its helper failed (exit code {code})", begun=True)

    def end(self) -> None:
        """At once."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._process.wait()


class _Helpers:
    """Those that have nothing to do, and how many there may be."""

    def __init__(self) -> None:
        self._idle: list[_Helper] = []
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(HELPERS)

    def ask(self, head: bytes, body: bytes) -> tuple[bool, bytes]:
        with self._free:
            while True:
                with self._lock:
                    helper = self._idle.pop() if self._idle else None
                fresh = helper is None
                try:
                    helper = helper or _Helper()
                except OSError as error:
                    raise NoHelper(f"no helper can be started: {error.strerror or error}", begun=False) from error
                try:
                    answer = helper.ask(head, body)
                except _Ended:
                    helper.end()
                    if fresh:
                        raise NoHelper("its helper ends at once", begun=False) from None
                    continue
                except BaseException:
                    helper.end()
                    raise
                with self._lock:
                    self._idle.append(helper)
                return answer

    def end(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().end()


_helpers = _Helpers()
atexit.register(_helpers.end)


def render(kind: str, text: str, names: Mapping[str, Any], body: bytes) -> bytes:
    """What a template or an expression makes of an event: the payload. Blocks; call it beside the event loop.

    `names` are what it sees beside `body`, which is parsed where it is needed. Raises CannotRender or NoHelper.
    """
    # The standard library's: header values may hold halves of surrogate pairs.
    head = json.dumps({"kind": kind, "text": text, "names": names}).encode()
    if len(head) + len(body) > MEMORY // 2:  # a helper would be ended by it before it could say so
        raise CannotRender("it needs more memory than it may")
    done, answer = _helpers.ask(head, body)
    if not done:
        raise CannotRender(answer.decode())
    return answer
