"""A pooler before a PostgreSQL, as far as relay can tell one: PgBouncer's words, and its two ways to give out sessions.

It answers the beginning of a connection by itself, with a key for cancelling of its own, and refuses `options`.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.postgres import ROLE, Database

_SSL, _GSS = 80877103, 80877104
_OPTIONS = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


@contextlib.contextmanager
def pooler(database: Database, *, shared: bool) -> Iterator[str]:
    """The URL that leads to it. `shared`, as in transaction mode, has one session for all, for a question at a time;
    otherwise each connection has its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    made = _Pooler(database, shared)
    threading.Thread(target=made.serve, args=[listening], daemon=True).start()
    try:
        yield f"postgresql://{ROLE}@127.0.0.1:{listening.getsockname()[1]}/{database.name}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        made.close()


class _Pooler:
    def __init__(self, database: Database, shared: bool) -> None:
        self._database = database
        self._keys = itertools.count(1)
        self._turn = threading.Lock()
        self._open: list[socket.socket] = []
        self._session = self._begin() if shared else None

    def serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                self._open.append(client)
                threading.Thread(target=self._attend, args=[client], daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if self._session is not None:
            self._session.close()

    def _attend(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while (said := _exactly(client, _length(client) - 4))[:4] in (_int(_SSL), _int(_GSS)):
                client.sendall(b"N")
            if b"options\0" in said:
                client.sendall(_message(b"E", _OPTIONS))
                return
            settings = {"server_encoding": "UTF8", "client_encoding": "UTF8", "server_version": "15.1"}
            told = [_message(b"S", f"{name}\0{value}\0".encode()) for name, value in settings.items()]
            key = _message(b"K", _int(next(self._keys)) + _int(7))
            client.sendall(b"".join([_message(b"R", _int(0)), *told, key, _message(b"Z", b"I")]))
            if self._session is None:
                with self._begin() as session:
                    _pass_on(client, session)
            while self._session is not None:
                self._ask(client, self._session)

    def _begin(self) -> socket.socket:
        """A session, as the server gives it."""
        session = socket.create_connection(("127.0.0.1", urlsplit(self._database.url).port))
        self._open.append(session)
        said = _int(196608) + f"user\0{ROLE}\0database\0{self._database.name}\0\0".encode()
        session.sendall(_int(len(said) + 4) + said)
        while _read(session)[:1] != b"Z":
            pass
        return session

    def _ask(self, client: socket.socket, session: socket.socket) -> None:
        asked = _read(client)
        while asked[-5:] != _message(b"S", b"") and asked[:1] != b"Q":
            asked += _read(client)
        with self._turn:
            session.sendall(asked)
            while True:
                answer = _read(session)
                client.sendall(answer)
                if answer[:1] == b"Z":
                    return


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    ways = {one: other, other: one}
    while True:
        for ready in select.select(list(ways), [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            ways[ready].sendall(data)


def _int(number: int) -> bytes:
    return struct.pack(">i", number)


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + _int(len(content) + 4) + content


def _length(one: socket.socket) -> int:
    return int(struct.unpack(">i", _exactly(one, 4))[0])


def _read(one: socket.socket) -> bytes:
    """A message, whole."""
    kind, length = _exactly(one, 1), _length(one)
    return kind + _int(length) + _exactly(one, length - 4)


def _exactly(one: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = one.recv(size - len(found))
        if not data:
            raise ConnectionResetError
        found += data
    return found
