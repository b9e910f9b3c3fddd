"""Mail, by an SMTP server: RFC 5321, STARTTLS (RFC 3207) or TLS from the start (RFC 8314), AUTH.

The egress rule holds as for attempts: names are looked up here, and a socket is connected to an address that is
allowed. Servers prove themselves by their certificates; the one exception is a server on this machine, between which
and relay nobody sits: to it `starttls: auto` goes in the clear, as its certificate is usually one that nobody signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import parseaddr
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal

import aiosmtplib
from pydantic import BeforeValidator, ModelWrapValidatorHandler, create_model, model_validator
from yarl import URL

from relay import fields, wireschema
from relay.fields import Unresolved, got, misplaced, quote_hint, shown, word
from relay.notifier import Means, Message, Notifier, NotifierConfig, NotSent, of_notifiers
from relay.resolver import Resolver
from relay.secret import Redactor
from relay.tls import system_context
from relay.tlsfault import printable, tls_message
from relay.unreachable import Blocked, os_message

_PORTS = {"smtp": 25, "smtps": 465}
_CONNECT = 5.0  # seconds for each address
_FAREWELL = 2.0
_FOR_GOOD = 500  # replies from here on mean never, RFC 5321
_WHOLE = 30.0  # for all of it; servers that make strangers wait before they greet mean seconds

_EXPECTED = "expected an address such as ops@example.com or Relay <relay@example.com>"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@({_LABEL}(?:\.{_LABEL})*)")


def _mailbox(value: object) -> object:
    if isinstance(value, Unresolved):
        return "unresolved@unresolved.invalid"
    if not isinstance(value, str):
        raise ValueError(f"{_EXPECTED}, got {shown(value)}{quote_hint(value)}")
    try:
        _parsed(value)
    except ValueError:
        raise ValueError(f"{_EXPECTED}, got {got(value)}") from None
    return value


def _parsed(text: str) -> Address:
    """Raises ValueError."""
    name, address = parseaddr(text)
    match = _ADDRESS.fullmatch(address)
    if match is None or text.count("@") != 1 or not text.isprintable():
        raise ValueError
    return Address(name, match[1], match[2])


Mailbox = Annotated[str, BeforeValidator(_mailbox)]


def _server(value: object) -> object:
    if isinstance(value, URL):
        return value
    if isinstance(value, Unresolved):
        return wireschema.NOWHERE.with_scheme("smtps")
    what = "an SMTP server such as smtp://localhost:25 or smtps://user:password@mail.example.com"
    url = wireschema._parsed(value, ("smtp", "smtps"), what)
    if url.raw_path not in ("", "/") or "?" in str(value) or "#" in str(value):
        raise ValueError("an SMTP server's URL has no path, query or fragment")
    if bool(url.user) != bool(url.password):
        raise ValueError("expected a user name and a password, or neither")
    if url.port == 0:
        raise ValueError("port 0 is none")
    return url


class Keys(NotifierConfig):
    """From whom, to whom, and by which server."""

    type: Literal["email"]
    smtp: Annotated[URL, BeforeValidator(_server)]
    to: Annotated[tuple[Mailbox, ...], BeforeValidator(fields._listed)]
    starttls: Annotated[Literal["auto", "always", "never"], word("auto", "always", "never")] = "auto"

    @model_validator(mode="wrap")
    @classmethod
    def _fitting(cls, data: object, handler: ModelWrapValidatorHandler[Keys]) -> Keys:
        section = handler(data)
        if section.smtp.scheme == "smtps" and "starttls" in section.model_fields_set:
            raise misplaced(("starttls",), "smtps:// is TLS from the start (use smtp:// for STARTTLS)")
        return section

    @property
    def sender(self) -> Address:
        """The mailbox in `from`."""
        return _parsed(getattr(self, "from"))

    @property
    def host(self) -> str | None:
        return self.smtp.host if self.smtp.host != wireschema.NOWHERE.host else None

    @property
    def exposed(self) -> tuple[str, str] | None:
        if self.smtp.scheme == "smtps" or self.starttls != "never" or self.smtp.user is None:
            return None
        return "starttls", self.smtp.host or ""

    def build(self, means: Means) -> Notifier:
        return Email(self, means)


# `from` is a word of Python's: only so can it be a field.
Config: type[Keys] = create_model("Config", __base__=Keys, __module__=__name__, **{"from": (Mailbox, ...)})  # type: ignore[call-overload]


class Email:
    """Sends messages as mail."""

    def __init__(self, config: Keys, means: Means, connect: float = _CONNECT, whole: float = _WHOLE) -> None:
        url = config.smtp
        self._host = url.host or ""
        self._port = url.port or _PORTS[url.scheme]
        self._implicit = url.scheme == "smtps"
        self._user, self._password = url.user, url.password
        self._starttls = config.starttls
        self._from = config.sender
        self._to = tuple(map(_parsed, config.to))
        self._addresses = tuple(dict.fromkeys(each.addr_spec for each in self._to))
        self._means = means
        self._connect, self._whole = connect, whole
        self._resolver = Resolver()
        self._context: ssl.SSLContext | None = None
        self._own = Redactor(_secrets(url))

    async def send(self, message: Message) -> None:
        """See Notifier."""
        # Another config may have others to tell than the one that has told some already.
        to = [address for address in self._addresses if address not in message.done]
        try:
            refused = await self._sent(self._mail(message), to) if to else {}
        except NotSent as failure:
            if not message.done:
                raise
            raise NotSent(_partly(message, failure.reason), again=failure.again) from None
        if not refused and not message.never:
            return
        later = {address: said for address, (said, again) in refused.items() if again}
        never = (*message.never, *(said for said, again in refused.values() if not again))
        done = (*message.done, *(address for address in to if address not in later))
        rest = replace(message, done=done, never=never)
        raise NotSent(_partly(rest, *later.values()), again=bool(later), rest=rest)

    async def _sent(self, mail: EmailMessage, to: Sequence[str]) -> dict[str, tuple[str, bool]]:
        """Send it to these; who is refused while others are not: what the server says, and whether it may be
        asked again. Raises NotSent."""
        refused: dict[str, aiosmtplib.SMTPResponse] | None = None
        try:
            async with asyncio.timeout(self._whole), self._connected() as server:
                refused, _ = await server.send_message(mail, recipients=to)
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            if refused is None:  # else the server has it, and only the farewell went wrong
                raise self._told(error) from None
        return {
            address: (self._masked(f"the server refuses {address} ({_said(code, text)})"), code < _FOR_GOOD)
            for address, (code, text) in (refused or {}).items()
        }

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage(policy=POLICY.clone(cte_type="7bit"))
        mail["From"] = self._from
        mail["To"] = self._to
        mail["Subject"] = _line(f"[relay] {message.title}")
        mail["Date"] = self._means.clock.now()
        # The same in each try, so that whoever got it twice sees it once.
        told = "\0".join((message.kind, message.subject, message.title, message.text, message.at.isoformat()))
        mail["Message-ID"] = f"<{sha256(told.encode()).hexdigest()[:32]}@{self._from.domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office notes, please
        mail.set_content("".join(f"{_line(line)}\n" for line in message.text.splitlines()))
        return mail

    # -- the connection ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """A server that takes mail from us. Raises SMTPException or OSError."""
        context = await self._trusting()
        connection = await self._socket()
        own, peer = (ip_address(str(name[0]).partition("%")[0]) for name in _ends(connection))
        server = aiosmtplib.SMTP(
            hostname=self._host,
            sock=connection,
            timeout=self._whole,
            use_tls=self._implicit,
            start_tls=False,
            tls_context=context,
            # Looking up our own name, as is usual, may take as long as a name server likes.
            local_hostname=f"[{own}]" if own.version == 4 else f"[IPv6:{own}]",
        )
        try:
            await server.connect()
            await self._secure(server, here=_here(peer))
            if self._user is not None and self._password is not None:
                await server.login(self._user, self._password)
            yield server
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await server.quit(timeout=_FAREWELL)
        except BaseException:
            if isinstance(server.transport, asyncio.WriteTransport):
                # Up to Python 3.11.2 asyncio's raises this where TLS has ended.
                with contextlib.suppress(AttributeError):
                    server.transport.abort()  # a server that hangs does not take part in a farewell either
            raise
        finally:
            server.close()

    async def _trusting(self) -> ssl.SSLContext | None:
        """Whom to trust, where TLS may be asked for. Reading whom a machine trusts takes a moment."""
        if self._context is None and (self._implicit or self._starttls != "never"):
            self._context = await asyncio.to_thread(system_context)
        return self._context

    async def _secure(self, server: aiosmtplib.SMTP, *, here: bool) -> None:
        if self._implicit or self._starttls == "never":
            return
        await server.ehlo()
        if here and self._starttls == "auto" and (self._user is None or server.supports_extension("auth")):
            return
        if server.supports_extension("starttls"):
            await server.starttls()
        elif self._starttls == "always":
            raise NotSent("the server offers no STARTTLS, and starttls is 'always'")
        elif self._user is not None:
            # Somebody in between could have taken the offer out.
            raise NotSent("the server offers no STARTTLS: user name and password do not go to it in the clear")

    async def _socket(self) -> socket.socket:
        """A connection to the first address that takes one."""
        try:
            found = await self._resolver.resolve(self._host, self._port)
        except OSError as error:
            raise NotSent(f"the name {self._host} does not resolve: {error.strerror or error}") from None
        failure: OSError = OSError(None, "the name has no address")
        for entry in found:
            rule = self._means.egress.refuses(entry["host"])
            if rule is not None:
                failure = Blocked(entry["host"], rule)
                continue
            connection = socket.socket(entry["family"], socket.SOCK_STREAM)
            try:
                connection.setblocking(False)
                async with asyncio.timeout(self._connect):
                    address = entry["host"], entry["port"]
                    await asyncio.get_running_loop().sock_connect(connection, address)
                return connection
            except BaseException as error:
                connection.close()
                if isinstance(error, TimeoutError):
                    failure = TimeoutError(None, f"nobody answered within {self._connect:g} s")
                elif isinstance(error, OSError):
                    failure = error
                else:
                    raise
        if isinstance(failure, Blocked):
            raise NotSent(str(failure), again=False)
        raise NotSent(f"no connection to {self._host}:{self._port}: {os_message(failure)}")

    # -- what went wrong ---------------------------------------------------------------------------------------------

    def _told(self, error: Exception) -> NotSent:
        """Why, in words for the person who must act."""
        if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
            return NotSent(self._masked(of_notifiers(tls_message(error, self._host))))
        match error:
            case aiosmtplib.SMTPRecipientsRefused(recipients=refused):
                who = ", ".join(f"{one.recipient} ({_said(one.code, one.message)})" for one in refused)
                again = any(one.code < _FOR_GOOD for one in refused)
                return NotSent(self._masked(f"the server refuses {who}"), again=again)
            case aiosmtplib.SMTPAuthenticationError(code=code, message=text):
                reason = f"the server refuses user name or password: {_said(code, text)}"
                return NotSent(self._masked(reason), again=code < _FOR_GOOD)
            case aiosmtplib.SMTPResponseException(code=code, message=text):
                # 421: it closes, and means later; what is not SMTP has the code -1
                return NotSent(self._masked(f"the server refuses: {_said(code, text)}"), again=code < _FOR_GOOD)
            case aiosmtplib.SMTPTimeoutError() | TimeoutError():
                return NotSent(f"the mail was not taken within {self._whole:g} s")
            case aiosmtplib.SMTPServerDisconnected() | ConnectionError():
                return NotSent("the server closed the connection")
            case aiosmtplib.SMTPException():
                return NotSent(self._masked(_line(str(error.message))), again=False)
            case _:
                return NotSent(self._masked(_line(str(error) or type(error).__name__)))

    def _masked(self, text: str) -> str:
        return self._means.redact(self._own(text))


def _partly(message: Message, *more: str) -> str:
    """What went wrong where some have got it."""
    return f"sent, but {'; '.join((*message.never, *more))}"


def _ends(connection: socket.socket) -> tuple[Any, Any]:
    return connection.getsockname(), connection.getpeername()


def _here(address: IPv4Address | IPv6Address) -> bool:
    return address.is_loopback


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _said(code: int, text: str) -> str:
    """A server's reply in one line."""
    words = " ".join(text.split())
    return printable(f"{code} {words}" if code > 0 else words)


def _line(text: str) -> str:
    """One line that nothing can break."""
    return "".join(c if c.isprintable() else " " for c in text)


def _secrets(url: URL) -> Iterator[str]:
    if url.user and url.password:
        yield from (url.password, url.raw_password or "", f"{url.user}:{url.password}", f"\0{url.user}\0{url.password}")
