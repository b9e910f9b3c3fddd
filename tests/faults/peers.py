"""Destinations that misbehave: each a row of a table, with what relay must make of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import write_authority, write_certificate

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BRIEF = "timeout: 400ms, connect_timeout: 200ms"
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Case:
    """One way to misbehave."""

    talk: Talk
    code: str | None
    """The code of the attempt's error; None where it is delivered all the same: the status has decided."""
    says: str
    """What the message holds."""
    to: str = ""
    """Further keys of `to`."""
    tls: Callable[[Path], ssl.SSLContext] | None = None
    host: str = "127.0.0.1"


@dataclass
class Peer:
    """A server that runs a case."""

    url: str
    port: int
    connections: int = 0
    requests: int = 0


@contextlib.asynccontextmanager
async def peer(
    talk: Talk, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", bare: bool = False
) -> AsyncIterator[Peer]:
    """A server that talks so to whoever connects. Unless `bare`, a request's head is read before."""
    running: set[asyncio.Task[None] | None] = set()
    made = Peer("", 0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        running.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if not bare:
                await reader.readuntil(b"\r\n\r\n")
                made.requests += 1
            await talk(reader, writer)
        writer.close()

    loop = asyncio.get_running_loop()
    quiet = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: None)  # failed handshakes are what some are for
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    made.url = f"{'http' if tls is None else 'https'}://{host}:{made.port}"
    try:
        yield made
    finally:
        server.close()
        for task in running:
            if task is not None:
                task.cancel()
        loop.set_exception_handler(quiet)


@contextlib.asynccontextmanager
async def tls_peer(tls: ssl.SSLContext) -> AsyncIterator[Peer]:
    """A server on plain sockets in a thread: unlike asyncio's it says by an alert why it ends a handshake."""
    listener = socket.create_server(("127.0.0.1", 0))
    made = Peer("", listener.getsockname()[1])
    made.url = f"https://127.0.0.1:{made.port}"

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            made.connections += 1
            raw.settimeout(10)
            with contextlib.suppress(OSError), tls.wrap_socket(raw, server_side=True) as connection:
                if connection.recv(65536):
                    made.requests += 1
                    connection.sendall(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
            raw.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        await asyncio.to_thread(thread.join)


def says(*parts: bytes, then: Talk | None = None) -> Talk:
    """Sends this, then closes, or goes on."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then is not None:
            await then(reader, writer)

    return talk


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Nothing, for ever."""
    await asyncio.Event().wait()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """RST."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def drip(text: bytes) -> Talk:
    """A byte a second."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for place in range(len(text)):
            writer.write(text[place : place + 1])
            await asyncio.sleep(1)

    return talk


def after(seconds: float, text: bytes) -> Talk:
    """A peer that takes its time."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(text)

    return talk


def endless(piece: bytes) -> Talk:
    """The same again and again, as fast as it is taken."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(piece)
            await writer.drain()

    return talk


def bomb() -> bytes:
    """64 MiB of zeros in 64 KiB."""
    packed = gzip.compress(bytes(64 << 20), 9)
    return OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed


# --- TLS --------------------------------------------------------------------------------------------------------------


def server(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def trusted(folder: Path, **given: object) -> ssl.SSLContext:
    """A server whose certificate is signed by `ca.pem` in the folder."""
    by = write_authority(folder, "ca")
    return server(*write_certificate(folder, "server", by=by, **given))  # type: ignore[arg-type]


def old(folder: Path) -> ssl.SSLContext:
    context = trusted(folder)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def asking(version: ssl.TLSVersion) -> Callable[[Path], ssl.SSLContext]:
    def make(folder: Path) -> ssl.SSLContext:
        context = trusted(folder)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.pem")
        context.maximum_version = version
        return context

    return make


TRUST = "tls: {ca: ca.pem}"
FINE = says(OK + b"Content-Length: 2\r\n\r\nok")

CASES: dict[str, Case] = {
    "hang": Case(hang, "timeout", "no answer within 0.4 s", BRIEF),
    "reset": Case(reset, "connection_reset", "reset the connection"),
    "FIN at once": Case(says(), "connection_reset", "closed the connection without an answer"),
    "FIN inside the head": Case(says(OK + b"Content-"), "connection_reset", "inside the head of its answer"),
    "head, a byte a second": Case(drip(OK), "timeout", "no answer within 0.4 s", BRIEF),
    "body, a byte a second": Case(says(OK + b"Content-Length: 99\r\n\r\n", then=drip(b"x" * 99)), None, "", BRIEF),
    "body without end": Case(
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n", then=endless(b"10000\r\n" + b"x" * 65536 + b"\r\n")), None, ""
    ),
    "body of 10 GB": Case(says(OK + b"Content-Length: 10000000000\r\n\r\n", then=endless(b"x" * 65536)), None, ""),
    "gzip bomb": Case(says(bomb()), None, ""),
    "bad chunk": Case(
        says(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"), "protocol_error", "Invalid character in chunk size"
    ),
    "bad chunk after a good one": Case(
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", then=after(0.05, b"zz\r\nabc")), None, ""
    ),
    "header line of 1 MiB": Case(
        says(OK + b"X-Long: " + b"x" * (1 << 20) + b"\r\n\r\n"), "protocol_error", "a line of its head is too long"
    ),
    "head without end": Case(says(OK, then=endless(b"X-More: 1\r\n" * 1000)), "protocol_error", "Too many headers"),
    "not HTTP": Case(says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "protocol_error", "the answer is not HTTP"),
    "two lengths": Case(
        says(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), "protocol_error", "the answer is not HTTP"
    ),
    "expired certificate": Case(
        FINE, "tls_error", r"the certificate has expired on 20\d\d-\d\d-\d\d", TRUST, lambda f: trusted(f, days=-2)
    ),
    "certificate of the future": Case(
        FINE, "tls_error", r"not valid yet, but from 20\d\d-\d\d-\d\d on", TRUST, lambda f: trusted(f, begins=5)
    ),
    "self-signed certificate": Case(
        FINE, "tls_error", "the certificate is self-signed", "", lambda f: server(*write_certificate(f, "own"))
    ),
    "certificate of an unknown authority": Case(FINE, "tls_error", "from an unknown authority, ca ", "", trusted),
    "certificate for another name": Case(
        FINE, "tls_error", "is for other names: a.example, b.example; not for 127.0.0.1", TRUST,
        lambda f: trusted(f, hosts=["a.example", "b.example"]),
    ),
    "TLS 1.0 and 1.1 only": Case(FINE, "tls_error", "the server offers only TLS 1.1 or older", TRUST, old),
    "client certificate wanted, TLS 1.2": Case(
        FINE, "tls_error", "asks for a client certificate", TRUST, asking(ssl.TLSVersion.TLSv1_2)
    ),
    "client certificate wanted, TLS 1.3": Case(
        FINE, "tls_error", "asks for a client certificate", TRUST, asking(ssl.TLSVersion.TLSv1_3)
    ),
}  # fmt: skip

# Behind https:// there is no TLS at all; the peer is told nothing.
NO_TLS: dict[str, Case] = {
    "handshake that stalls": Case(hang, "timeout", "the TLS handshake was not finished within 0.2 s", BRIEF),
    "plain HTTP on the port for TLS": Case(says(OK + b"\r\n"), "tls_error", "does not speak TLS on this port"),
    "FIN inside the handshake": Case(says(), "tls_error", "closed the connection during the TLS handshake"),
}
