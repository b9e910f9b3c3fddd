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
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import write_authority, write_certificate

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BRIEF = "timeout: 400ms, connect_timeout: 200ms"
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Peer:
    """A server that runs a case."""

    url: str
    port: int
    connections: int = 0
    requests: int = 0
    head: bytes = b""
    """That of the last request."""
    heard: bytearray = field(default_factory=bytearray)
    """What came before any request, where there is no TLS behind https."""


@dataclass(frozen=True)
class Case:
    """One way to misbehave."""

    talk: Talk
    code: str | None
    """The code of the attempt's error; None where it is delivered all the same: the status has decided."""
    says: str = ""
    """What the message holds."""
    to: str = ""
    """Further keys of `to`."""
    tls: Callable[[Path], ssl.SSLContext] | None = None
    host: str = "127.0.0.1"
    no_tls: bool = False
    """The URL is https, and there is no TLS at all."""
    deaf: bool = False
    """Nobody accepts connections, and no more of them fit into the queue."""

    @contextlib.asynccontextmanager
    async def serve(self, folder: Path) -> AsyncIterator[Peer]:
        """A server that does this."""
        if self.deaf:
            served = deaf_peer()
        elif self.tls is not None:
            served = tls_peer(self.tls(folder))
        else:
            served = peer(self.talk, bare=self.no_tls)
        async with served as made:
            made.url = made.url.replace("127.0.0.1", self.host)
            if self.no_tls:
                made.url = made.url.replace("http:", "https:")
            yield made

    def keys(self, folder: Path) -> str:
        """Further keys of `to`, for a server of this folder."""
        return self.to.replace("ca.pem", str(folder / "ca.pem"))


@contextlib.asynccontextmanager
async def peer(
    talk: Talk, address: str = "127.0.0.1", port: int = 0, bare: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """A server that talks so to whoever connects. A request's head is read before; where it is `bare`, anything."""
    running: set[asyncio.Task[None] | None] = set()
    made = Peer("", 0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        running.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if bare:
                made.heard += await reader.read(65536)
            else:
                made.head = await reader.readuntil(b"\r\n\r\n")
                made.requests += 1
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, address, port, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    made.url = f"{'http' if tls is None else 'https'}://{address}:{made.port}"
    try:
        yield made
    finally:
        server.close()
        for task in running:
            if task is not None:
                task.cancel()


@contextlib.asynccontextmanager
async def deaf_peer() -> AsyncIterator[Peer]:
    """A port on which nothing is accepted any more: a connection to it is neither made nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
        yield Peer(f"http://127.0.0.1:{port}", port)


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
            with tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as connection:
                try:
                    connection.do_handshake()
                    if connection.recv(65536):
                        made.requests += 1
                        connection.sendall(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
                except OSError:
                    # What is still to be read would make of the end a reset, which may overtake the alert.
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass

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


def keeps(answer: bytes) -> Talk:
    """Gives this answer to each request on a connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(answer)
            await reader.readuntil(b"\r\n\r\n")

    return talk


def drip(text: bytes) -> Talk:
    """A byte a second."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for place in range(len(text)):
            writer.write(text[place : place + 1])
            await asyncio.sleep(1)

    return talk


def late(talk: Talk) -> Talk:
    """The same, when what was sent before has arrived."""

    async def talk_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await talk(reader, writer)

    return talk_later


async def half_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """FIN, while it goes on to read."""
    writer.write_eof()
    await reader.read()
    await asyncio.Event().wait()


def endless(piece: bytes) -> Talk:
    """The same again and again, as fast as it is taken."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    return talk


def again(piece: bytes) -> Talk:
    """The same again and again, each time when the last one has surely been read."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(piece)
            await asyncio.sleep(0.01)

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


def status(line: str, *headers: str) -> Talk:
    """An answer without a body."""
    head = "\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", ""])
    return says(head.encode())


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
METADATA = "http://169.254.169.254/latest/meta-data/"

CASES: dict[str, Case] = {
    # No answer, or half of one.
    "hang": Case(hang, "timeout", "no answer within 0.4 s", BRIEF),
    "reset": Case(reset, "connection_reset", "reset the connection"),
    "FIN at once": Case(says(), "connection_reset", "closed the connection without an answer"),
    "FIN inside the head": Case(says(OK + b"Content-"), "connection_reset", "inside the head of its answer"),
    "FIN, and it still listens": Case(half_closed, "connection_reset", "closed the connection without an answer"),
    "nothing is accepted": Case(hang, "timeout", "no connection within 0.2 s", BRIEF, deaf=True),
    "head, a byte a second": Case(drip(OK), "timeout", "no answer within 0.4 s", BRIEF),
    "100 Continue without end": Case(
        endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "protocol_error", "it sends one answer after another"
    ),
    "100 Continue without end, one by one": Case(
        again(b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout", "no answer within 0.4 s", BRIEF
    ),
    # No HTTP.
    "header line of 1 MiB": Case(
        says(OK + b"X-Long: " + b"x" * (1 << 20) + b"\r\n\r\n"), "protocol_error", "a line of its head is too long"
    ),
    "header line without end": Case(
        says(OK + b"X-Long: ", then=endless(b"x" * 65536)), "protocol_error", "a line of its head is too long"
    ),
    "head without end": Case(says(OK, then=endless(b"X-More: 1\r\n" * 1000)), "protocol_error", "Too many headers"),
    "not HTTP": Case(says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "protocol_error", "the answer is not HTTP"),
    "two lengths": Case(
        says(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), "protocol_error", "the answer is not HTTP"
    ),
    "bad chunk": Case(says(CHUNKED + b"zz\r\nabc"), "protocol_error", "Invalid character in chunk size"),
    # The status is in: what the body does is no matter.
    "bad chunk after a good one": Case(says(CHUNKED + b"3\r\nabc\r\n", then=late(says(b"zz\r\nabc"))), None),
    "chunk size without end": Case(says(CHUNKED, then=endless(b"0" * 65536)), None, to=BRIEF),
    "trailers without end": Case(says(CHUNKED, then=late(endless(b"0\r\n" + b"X-More: 1\r\n" * 1000))), None, to=BRIEF),
    "reset inside the body": Case(says(OK + b"Content-Length: 99\r\n\r\nabc", then=late(reset)), None),
    "FIN inside the body": Case(says(OK + b"Content-Length: 99\r\n\r\nabc"), None),
    "body, a byte a second": Case(says(OK + b"Content-Length: 99\r\n\r\n", then=drip(b"x" * 99)), None, to=BRIEF),
    "body without end": Case(says(CHUNKED, then=endless(b"10000\r\n" + b"x" * 65536 + b"\r\n")), None),
    "body of 10 GB": Case(says(OK + b"Content-Length: 10000000000\r\n\r\n", then=endless(b"x" * 65536)), None),
    "answer after answer": Case(endless(OK + b"Content-Length: 99999\r\n\r\n" + b"x" * 99999), None),
    "gzip bomb": Case(says(bomb()), None),
    # Another answer than asked for.
    **{
        f"{code} to the metadata service": Case(
            status(f"{code} Away", f"Location: {METADATA}"), "http_status", f"HTTP {code}"
        )
        for code in (301, 302, 303, 307, 308)
    },
    "101 Switching Protocols": Case(
        says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
        "http_status", "HTTP 101",
    ),
    "429, come back in 31,000 years": Case(
        status("429 Slow Down", "Retry-After: 1000000000000"), "http_status", "HTTP 429"
    ),
    "503, come back yesterday": Case(status("503 Busy", "Retry-After: -1"), "http_status", "HTTP 503"),
    # TLS.
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
    "handshake that stalls": Case(
        hang, "timeout", "the TLS handshake was not finished within 0.2 s", BRIEF, no_tls=True
    ),
    "plain HTTP on the port for TLS": Case(
        says(OK + b"\r\n"), "tls_error", "does not speak TLS on this port", no_tls=True
    ),
    "FIN inside the handshake": Case(
        says(), "tls_error", "closed the connection during the TLS handshake", no_tls=True
    ),
    # Names: see tests/faults/names.py.
    "NXDOMAIN": Case(FINE, "dns_error", "nxdomain.test does not resolve: Name or service", host="nxdomain.test"),
    "SERVFAIL": Case(FINE, "dns_error", "servfail.test does not resolve: Temporary failure", host="servfail.test"),
    "name server that hangs": Case(
        FINE, "dns_error", "no name server said within 0.2 s where a.hang", BRIEF, host="a.hang"
    ),
    "name with 1000 dead addresses": Case(FINE, "connect_error", "Connection refused", host="many-dead.test"),
    # Addresses that server.egress denies.
    "the metadata service": Case(FINE, "blocked_address", "169.254.169.254 is denied", host="169.254.169.254"),
}  # fmt: skip
