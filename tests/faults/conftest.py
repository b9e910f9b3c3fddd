"""What the tests of faults share."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.faults.names import Names


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """What names under .test and .hang resolve to."""
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.hanging.set()


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Whom any socket of this process is told to connect to. It comes to nothing unless it is this machine."""
    seen: list[tuple[str, int]] = []
    real = socket.socket.connect

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        seen.append(address[:2])
        if not ip_address(address[0]).is_loopback:
            raise OSError(errno.ENETUNREACH, "no test connects to other machines")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    return seen
