"""A name server that misbehaves: what `socket.getaddrinfo` says of names under `.test`; all others are looked up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

_real = socket.getaddrinfo

MANY = 1000


class Names:
    """What a name resolves to: one set of addresses after another, the last one from then on; or an error."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Sequence[str]]] = {
            "good.test": [["127.0.0.1"]],
            "many.test": [["127.0.0.1", *_many("127.1")]],
            "many-dead.test": [_many("127.2")],
        }
        self.errors: dict[str, socket.gaierror] = {
            "nxdomain.test": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "servfail.test": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        }
        self.asked: list[str] = []
        self.hanging = threading.Event()
        """Set it, and what hangs fails."""

    def getaddrinfo(self, host: str, port: Any, *rest: Any, **options: Any) -> list[Any]:
        """In place of `socket.getaddrinfo`."""
        if not str(host).endswith((".test", ".hang")):
            return _real(host, port, *rest, **options)
        self.asked.append(host)
        if host.endswith(".hang"):
            self.hanging.wait()
            raise self.errors["servfail.test"]
        if host in self.errors:
            raise self.errors[host]
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [_info(address, port) for address in found]


def _many(net: str) -> list[str]:
    return [f"{net}.{number // 250}.{number % 250 + 1}" for number in range(MANY)]


def _info(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
