"""Why no answer came, as a code and in words for the person who must act."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum

import aiohttp
from aiohttp import http_exceptions

from relay.delivery import Code, Failure
from relay.immutable import immutable
from relay.tlsfault import tls_message

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})


class OwnLimit(OSError):
    """Relay has come to a limit of its own."""


class Unreachable(Exception):
    """No answer came. Holds why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code, message)

    @property
    def ours(self) -> bool:
        """Whether it is this machine that lacks something, and no fault of the destination's."""
        cause: BaseException | None = self
        while cause is not None:
            if isinstance(cause, OwnLimit) or out_of_files(cause):
                return True
            cause = cause.__cause__
        return False


def out_of_files(error: BaseException) -> bool:
    """Whether no file or socket could be opened, whatever it was for."""
    return isinstance(error, OSError) and error.errno in _OUT_OF_FILES


class Stage(Enum):
    """How far an exchange has come."""

    LOOKUP = "lookup"
    CONNECT = "connect"
    HANDSHAKE = "handshake"
    ANSWER = "answer"


@dataclass(slots=True)
class Progress:
    """Told by the parts that a connection is made of; what runs for an exchange finds it in its context."""

    stage: Stage = Stage.ANSWER


progress: ContextVar[Progress | None] = ContextVar("progress", default=None)


def reached(stage: Stage) -> None:
    """An exchange has come this far."""
    current = progress.get()
    if current is not None:
        current.stage = stage


class Blocked(OSError):
    """An address that `server.egress` denies. aiohttp joins several errors into one text: this is how we know ours."""

    sign = "denied by server.egress"

    def __init__(self, address: str, rule: str) -> None:
        super().__init__(f"{address} is {self.sign} ({rule})")

    @classmethod
    def first(cls, joined: OSError) -> str:
        """Of several that were joined, what the first one says."""
        found = re.search(rf"[^\s,]+ is {re.escape(cls.sign)} \([^)]*\)", str(joined))
        return found[0] if found is not None else str(joined)


@immutable
class Exchange:
    """What was being tried when it failed."""

    host: str
    proxy: str | None
    """The proxy's host and port."""
    total: float
    connect: float


def explain(error: BaseException, tried: Exchange, stage: Stage) -> Unreachable:
    """Why an exchange has failed."""
    match error:
        case TimeoutError():
            seconds = tried.connect if isinstance(error, aiohttp.ServerTimeoutError) else tried.total
            return _timeout(stage, seconds, tried)
        case aiohttp.ClientHttpProxyError():
            return Unreachable(Code.CONNECT_ERROR, proxy_refusal(error.status, error.message, tried.proxy))
        case OSError() if out_of_files(error):
            who, key = (
                ("this machine", "fs.file-max") if error.errno == errno.ENFILE else ("relay itself", "LimitNOFILE=")
            )
            message = f"no connection: {who} has run out of file descriptors (raise {key})"
            return Unreachable(Code.CONNECT_ERROR, message)
        case aiohttp.ClientConnectorDNSError():
            return Unreachable(
                Code.DNS_ERROR, f"the name {error.host} does not resolve: {_dns_message(error.os_error)}"
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
            return Unreachable(Code.TLS_ERROR, tls_message(error, tried.host))
        case aiohttp.ClientConnectorError() if Blocked.sign in str(error.os_error):
            return Unreachable(Code.BLOCKED_ADDRESS, Blocked.first(error.os_error))
        case aiohttp.ClientConnectorError() if stage is Stage.HANDSHAKE:
            return Unreachable(Code.TLS_ERROR, "the destination closed the connection during the TLS handshake")
        case aiohttp.ClientConnectorError():
            to = f" to the proxy {tried.proxy}" if tried.proxy is not None else ""
            return Unreachable(Code.CONNECT_ERROR, f"no connection{to}: {os_message(error.os_error)}")
        case aiohttp.ServerDisconnectedError():
            inside = "" if isinstance(error.message, str) else ", inside the head of its answer"
            return Unreachable(
                Code.CONNECTION_RESET, f"the destination closed the connection without an answer{inside}"
            )
        case aiohttp.ClientOSError() | ConnectionError():
            return _broken(error)
        case aiohttp.ClientResponseError():
            return Unreachable(Code.PROTOCOL_ERROR, _protocol_message(error))
        case socket.gaierror():
            return Unreachable(Code.DNS_ERROR, f"the name {tried.host} does not resolve: {error.strerror}")
        case OSError():
            return Unreachable(Code.CONNECT_ERROR, f"no connection: {os_message(error)}")
        case _:
            return Unreachable(Code.PROTOCOL_ERROR, f"the exchange failed: {type(error).__name__}")


def _timeout(stage: Stage, seconds: float, tried: Exchange) -> Unreachable:
    within = f"within {seconds:g} s"
    match stage:
        case Stage.LOOKUP:
            return Unreachable(Code.DNS_ERROR, f"no name server said {within} where {tried.host} is")
        case Stage.CONNECT:
            through = f" through the proxy {tried.proxy}" if tried.proxy is not None else ""
            return Unreachable(Code.TIMEOUT, f"no connection{through} {within}")
        case Stage.HANDSHAKE:
            return Unreachable(Code.TIMEOUT, f"connected, but the TLS handshake was not finished {within}")
        case Stage.ANSWER:
            return Unreachable(Code.TIMEOUT, f"no answer {within}")


def proxy_refusal(status: int, reason: str | None, proxy: str | None) -> str:
    """A proxy that does not do what it is asked."""
    said = f"HTTP {status} {reason or ''}".strip()
    cure = ": it wants a user name and password, or others (to.proxy)" if status == 407 else ""
    return f"the proxy {proxy} refuses: {said}{cure}"


def _broken(error: OSError) -> Unreachable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):  # TLS 1.3: the server judges a client after the handshake has ended
            return Unreachable(Code.TLS_ERROR, tls_message(cause, ""))
        cause = cause.__cause__
    if isinstance(error, ConnectionResetError) or error.errno == 104:
        return Unreachable(Code.CONNECTION_RESET, "the destination reset the connection before its answer")
    return Unreachable(Code.CONNECTION_RESET, f"the connection broke before the answer: {os_message(error)}")


def _protocol_message(error: aiohttp.ClientResponseError) -> str:
    cause = error.__cause__
    if isinstance(cause, http_exceptions.LineTooLong) or "bytes when reading" in error.message:
        return "the answer cannot be read: a line of its head is too long (more than 8190 bytes)"
    lines = error.message.strip().splitlines()
    return f"the answer is not HTTP: {lines[0].rstrip(':') if lines else 'malformed'}"


def _dns_message(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return error.strerror or "there is no such name"
    return os_message(error)


def os_message(error: OSError) -> str:
    """The system's own words, without the addresses that aiohttp adds."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
