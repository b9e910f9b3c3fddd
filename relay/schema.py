"""The config's sections and what may stand in them. Sources bring their own models; `relay.config` joins them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr

from relay import fields, problems, storeurl
from relay.egress import CLASSES, Egress
from relay.fields import (
    PositiveDuration,
    SecretText,
    Section,
    Size,
    Unresolved,
    got,
    quote_hint,
    shown,
    word,
)
from relay.immutable import immutable
from relay.notifier import NotifierConfig
from relay.problems import Path as Place
from relay.retryschema import Statuses
from relay.routeschema import Defaults, Match, Route, To
from relay.secret import Secret
from relay.source import SourceConfig
from relay.wireschema import shown_url

__all__ = ["Config", "Defaults", "Match", "Route", "Statuses", "To", "shown_url"]

# --- addresses --------------------------------------------------------------------------------------------------------


@immutable
class TcpAddress:
    """Where to listen; `host` is None for all interfaces."""

    host: str | None
    port: int

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host is not None and is_loopback(self.host)

    def __str__(self) -> str:
        host = "" if self.host is None else f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _mode(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    if isinstance(value, Unresolved):
        return 0o660
    raise ValueError(f'expected a file mode such as "0660", got {got(value)}')


class UnixAddress(Section):
    """A unix socket and who may connect to it."""

    unix: str
    mode: Annotated[int, BeforeValidator(_mode)] = 0o660

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.unix}"


Address = TcpAddress | UnixAddress


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.casefold() == "localhost" or host.casefold().endswith(".localhost")


_ANYWHERE = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound to


def local_url(address: TcpAddress | UnixAddress, scheme: str = "http") -> str:
    """How this machine reaches what listens there: `http://host:port` or `unix:/path`."""
    if isinstance(address, UnixAddress):
        return f"unix:{address.unix}"
    host = _ANYWHERE.get(address.host) or address.host
    return f"{scheme}://{TcpAddress(host, address.port)}"


def same_address(one: object, other: object) -> bool:
    """Whether both are certainly one socket. Port 0 is another one each time."""
    if isinstance(one, TcpAddress) and isinstance(other, TcpAddress):
        return one == other and one.port != 0
    return isinstance(one, UnixAddress) and isinstance(other, UnixAddress) and one.unix == other.unix


_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]*)):([0-9]{1,5})")


def _address(value: object) -> object:
    if isinstance(value, (TcpAddress, UnixAddress)):
        return value
    if isinstance(value, Unresolved):
        return TcpAddress("127.0.0.1", 0)
    if isinstance(value, dict):
        return UnixAddress.model_validate(value)
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[3]) > 65535:
        raise ValueError(
            f"expected an address such as 127.0.0.1:8080 or {{unix: /run/relay/in.sock}}, got {got(value)}"
        )
    host = match[1] or match[2] or None
    if match[1]:
        try:
            ip_address(match[1])
        except ValueError:
            raise ValueError(f"'{match[1]}' is not an IPv6 address") from None
    return TcpAddress(host, int(match[3]))


Listen = Annotated[TcpAddress | UnixAddress, BeforeValidator(_address)]


def _proxy(value: object) -> object:
    if value == "unix":
        return value
    try:
        return fields._network(value)
    except ValueError:
        raise ValueError(f"expected a network such as 10.0.0.0/8, or unix, got {got(value)}") from None


Proxy = Annotated[IPv4Network | IPv6Network | Literal["unix"], BeforeValidator(_proxy)]


# --- server, admin, store, log ----------------------------------------------------------------------------------------


class Tls(Section):
    """The certificate chain and key that the public side serves; read again at reload."""

    cert: str
    key: str


def _denied(value: object) -> object:
    if value in CLASSES or isinstance(value, Unresolved):
        return value
    try:
        return fields._network(value)
    except ValueError:
        expected = f"expected {fields.any_of(CLASSES)}, or a network such as 10.0.0.0/8"
        raise ValueError(f"{expected}, got {got(value)}{problems.did_you_mean(value, CLASSES)}") from None


Denied = Annotated[str | IPv4Network | IPv6Network, BeforeValidator(_denied)]


class EgressRules(Section):
    """Where attempts may never connect."""

    deny: tuple[Denied, ...] = ("metadata", "link-local")

    def policy(self) -> Egress:
        """The compiled policy."""
        return Egress.of(rule for rule in self.deny if not isinstance(rule, Unresolved))


class Server(Section):
    """The public side."""

    listen: Listen = TcpAddress("127.0.0.1", 8080)
    max_body: Annotated[Size, Field(gt=0)] = 1 << 20
    read_timeout: PositiveDuration = timedelta(seconds=10)
    tls: Tls | None = None
    trusted_proxies: tuple[Proxy, ...] = ()
    egress: EgressRules = EgressRules()


_ASCII_HOST = re.compile(r"[A-Za-z0-9._-]+")


def _host_name(value: object) -> object:
    """A `Host` without its port, as browsers send it."""
    if isinstance(value, str) and (isinstance(value, Unresolved) or _ASCII_HOST.fullmatch(value) or _is_ipv6(value)):
        return value
    raise ValueError(f"expected a host name in ASCII, without a port, got {got(value)}")


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


HostName = Annotated[str, BeforeValidator(_host_name)]


class AdminToken(Section):
    """A named token of the admin side."""

    token: SecretText
    scope: Annotated[Literal["read", "operate"], word("read", "operate")] = "read"


def _token(value: object) -> object:
    return None if value == "" or value is None else fields._secret(value)


class Admin(Section):
    """The operators' side: health, logs, metrics."""

    nullable: ClassVar[frozenset[str]] = frozenset({"token"})

    listen: Listen = TcpAddress("127.0.0.1", 8081)
    token: Annotated[Secret | None, BeforeValidator(_token)] = None
    tokens: Mapping[str, AdminToken] = Field(default_factory=dict)
    hosts: tuple[HostName, ...] = ()

    @property
    def guarded(self) -> bool:
        """Whether a token is needed."""
        return self.token is not None or bool(self.tokens)


def admin_url(admin: Admin, server: Server) -> str:
    """How this machine reaches the admin side. At the public side's address it is served as that is: by TLS, if at
    all."""
    with_tls = server.tls is not None and same_address(admin.listen, server.listen)
    return local_url(admin.listen, "https" if with_tls else "http")


def _store_url(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {shown(value)}{quote_hint(value)}")
    scheme, _, rest = value.partition(":")
    if scheme in ("postgresql", "postgres"):
        return storeurl.checked(value)
    if scheme != "sqlite" or not rest:
        raise ValueError("expected sqlite:/var/lib/relay/relay.db or postgresql://user@host/database")
    if rest.startswith("//"):
        raise ValueError("expected sqlite: and a path, such as sqlite:/var/lib/relay/relay.db, without '//'")
    if rest == ":memory:":
        raise ValueError("expected a file: what is only in memory is lost when relay stops")
    return value


class Store(Section):
    """Where events and deliveries are kept."""

    url: Annotated[str, BeforeValidator(_store_url), fields.UNJUDGED] = "sqlite:relay.db"
    retention: PositiveDuration = timedelta(days=30)
    bodies: PositiveDuration = timedelta(days=30)
    response_body: Size = 16 << 10

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a database."""
        return None if storeurl.is_database(self.url) else Path(self.url.removeprefix("sqlite:"))

    @property
    def shown_url(self) -> str:
        """The URL as anyone may see it."""
        return storeurl.shown(self.url) if storeurl.is_database(self.url) else self.url

    @property
    def hidden(self) -> tuple[str, ...]:
        """What of it nobody may see."""
        return tuple(storeurl.hidden(self.url)) if storeurl.is_database(self.url) else ()


class Log(Section):
    """What relay writes to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], word("info", "debug", "warning", "error")] = "info"
    format: Annotated[Literal["auto", "json", "console"], word("auto", "json", "console")] = "auto"


class Config(Section):
    """A whole config. Every route has the defaults applied, but for headers: those stay in `defaults.headers`."""

    server: Server = Server()
    admin: Admin = Admin()
    store: Store = Store()
    log: Log = Log()
    defaults: Defaults = Defaults()
    sources: Mapping[str, SourceConfig] = Field(default_factory=dict)
    notifiers: Mapping[str, NotifierConfig] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    _secret_paths: frozenset[Place] = PrivateAttr(default=frozenset())
    _secrets: frozenset[str] = PrivateAttr(default=frozenset())


SECTIONS: dict[str, type[Section]] = {
    "server": Server,
    "admin": Admin,
    "store": Store,
    "log": Log,
    "defaults": Defaults,
}
