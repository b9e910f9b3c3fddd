"""A mail server for tests."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.certificates import write_certificate

USER, PASSWORD = "relay-user", "p@ss:wörd/#1"


@dataclass
class PostOffice:
    """What it was sent, and how."""

    refuse: Callable[[str], str | None] = lambda address: None
    """Its answer for a recipient that it does not take."""
    data: str = "250 taken"
    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    users: list[str | None] = field(default_factory=list)
    greetings: list[str] = field(default_factory=list)
    connections: int = 0

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.greetings.append(hostname)
        return responses

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.refuse(address)
        if answer is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.original_content, bytes)
        mail = message_from_bytes(envelope.original_content, _class=EmailMessage, policy=POLICY)
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        assert server.transport is not None
        self.encrypted.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        self.users.append(session.auth_data.login.decode() if session.auth_data is not None else None)
        return self.data


@contextlib.asynccontextmanager
async def post_office(
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    *,
    auth: bool = False,
    auth_in_the_clear: bool = True,
    password: str = PASSWORD,
    **options: Any,
) -> AsyncIterator[PostOffice]:
    """A mail server on a port of its own."""
    office = PostOffice(**options)
    made: list[SMTP] = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = LoginPassword(USER.encode(), password.encode())
        return AuthResult(success=data == right, auth_data=data, handled=data == right)

    def serve() -> SMTP:
        office.connections += 1
        made.append(
            SMTP(
                office,
                hostname="post.test",
                ident="post office",
                tls_context=starttls,
                authenticator=authenticate if auth else None,
                auth_require_tls=not auth_in_the_clear,
            )
        )
        return made[-1]

    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0, ssl=tls)
    office.port = server.sockets[0].getsockname()[1]
    try:
        yield office
    finally:
        server.close()
        for one in made:
            # One that was closed by then cannot be aborted: up to Python 3.11.2, asyncio's raises where TLS has ended.
            if isinstance(one.transport, asyncio.WriteTransport) and not one.transport.is_closing():
                one.transport.abort()


def certified(folder: Path, *hosts: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context, and the file of the certificate that is to be trusted."""
    certificate, key = write_certificate(folder, "post", hosts=hosts or ("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@contextlib.asynccontextmanager
async def speaking_first(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """The port of a server that talks so to whoever connects, as mail servers do: they greet."""
    talking: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in talking:
            if task is not None:
                task.cancel()
