"""Bytes on the wire, as no well-behaved client sends them, and what comes back."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.harness import RelayProcess

_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3})")
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """All that came back on one connection."""

    raw: bytes
    closed: bool

    @property
    def statuses(self) -> tuple[int, ...]:
        """Of each answer."""
        return tuple(int(found) for found in _STATUS.findall(self.raw))

    def __str__(self) -> str:
        said = " ".join(map(str, self.statuses)) or "no answer"
        return f"{said}{', connection closed' if self.closed else ''}"


async def exchange(url: str, data: bytes, *, quiet: float = 0.4, wait: float = 20.0) -> Answer:
    """Send bytes, and read until the other side closes, or has answered and says nothing more for a while."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    out = b""
    try:
        writer.write(data)
        while True:
            async with asyncio.timeout(quiet if _whole(out) else wait):
                piece = await reader.read(1 << 16)
            if not piece:
                return Answer(out, True)
            out += piece
    except TimeoutError:
        return Answer(out, False)
    except ConnectionError:
        return Answer(out, True)
    finally:
        writer.close()


def _whole(out: bytes) -> bool:
    head, mark, body = out.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(mark) and length is not None and len(body) >= int(length[1])


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request as it should be, with these headers besides."""
    head = [f"POST {path} HTTP/1.1", "Host: relay.test", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def memory(relay: RelayProcess) -> float:
    """How many MiB a process has in memory."""
    return _field(relay, "VmRSS")


def peak(relay: RelayProcess) -> float:
    """The most it ever had."""
    return _field(relay, "VmHWM")


def _field(relay: RelayProcess, name: str) -> float:
    assert relay.process is not None
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name + ":"))) / 1024
