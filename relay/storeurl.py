"""`store.url` of PostgreSQL: libpq's URI, checked, and shown without what nobody may see.

libpq is not asked: it comes with the driver, which is not there where nobody needs it, and what it says of a mistake
repeats the URL with the password in it. So does none of the messages here: where a password was not escaped, any part
of the URL may be one. https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import unquote

from relay.fields import any_of
from relay.problems import did_you_mean
from relay.secret import MASK

_FORM = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    r"(?P<hosts>[^/?]*)(?P<name>/[^?]*)?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})|%00")
_BLANK = re.compile(r"[\x00-\x20\x7f]")

_SWITCHES = ("disable", "prefer", "require")
_WORDS = {
    "channel_binding": _SWITCHES,
    "gssencmode": _SWITCHES,
    "load_balance_hosts": ("disable", "random"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    # relay writes: a standby is of no use to it.
    "target_session_attrs": ("any", "read-write", "primary"),
}
_NUMBERS = frozenset(
    {
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
        "tcp_user_timeout",
    }
)
_SECRET = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
_PLAIN = frozenset(
    {
        *("application_name", "dbname", "fallback_application_name", "gssdelegation", "gsslib", "host", "hostaddr"),
        *("krbsrvname", "max_protocol_version", "min_protocol_version", "oauth_client_id", "oauth_issuer"),
        *(
            "oauth_scope",
            "passfile",
            "port",
            "require_auth",
            "requirepeer",
            "service",
            "ssl",
            "ssl_max_protocol_version",
        ),
        *("ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl", "sslcrldir", "sslkey"),
        *("sslkeylogfile", "sslrootcert", "sslsni", "user"),
    }
)
# Settings of the server: they may be anything.
_KNOWN = _SECRET | _PLAIN | _NUMBERS | _WORDS.keys() | {"options"}


def is_database(url: str) -> bool:
    """Whether a `store.url` names a database, not a file."""
    return url.startswith("postgresql:")


def checked(text: str) -> str:
    """A URL of PostgreSQL, with one spelling of its scheme. Raises ValueError, which shows nothing of a password."""
    if _BLANK.search(text):
        raise ValueError("expected a URL without white space (a space in it is written %20)")
    if _NO_ESCAPE.search(text):
        raise ValueError("'%' in a URL begins an escape such as %40 (a '%' in a password is written %25)")
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("what is escaped by '%' must be UTF-8") from None
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("expected postgresql://user@host/database")
    if "@" in text[found.start("hosts") :] or "?" in (found["user"] or ""):
        raise ValueError(
            "only the '@' before the host may stand there as it is: in a user's name, a password or a value '@' is"
            " written %40, '/' %2F, '?' %3F"
        )
    hosts, ports = _hosts(found["hosts"])
    said = dict(_query(found["query"] or ""))
    if "host" in said or "hostaddr" in said:
        hosts = (said.get("hostaddr") or said["host"]).split(",")
    if "port" in said:
        ports = said["port"].split(",")
    for port in ports:
        if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError("expected a port from 1 to 65535")
    if len(ports) > 1 and len(ports) != len(hosts):
        raise ValueError(f"there are {len(hosts)} hosts, but {len(ports)} ports: say one port, or one for each host")
    return f"postgresql:{text.partition(':')[2]}"


def _hosts(text: str) -> tuple[list[str], list[str]]:
    hosts, ports = [], []
    for each in text.split(","):
        found = _HOST.fullmatch(each)
        if found is None:
            raise ValueError("expected a host, and a port from 1 to 65535 behind ':'")
        host = found["host"]
        if host.startswith("["):
            try:
                ip_address(unquote(host[1:-1]))
            except ValueError:
                raise ValueError("expected an IPv6 address between '[' and ']'") from None
        hosts.append(host)
        ports.append(found["port"] or "")
    return hosts, ports


def _query(text: str) -> Iterator[tuple[str, str]]:
    for each in text.split("&") if text else ():
        name, sign, raw = each.partition("=")
        if not sign or "=" in raw:
            raise ValueError("expected name=value after '?', joined by '&' (a '=' in a value is written %3D)")
        name, value = unquote(name), unquote(raw)
        if name not in _KNOWN:
            raise ValueError(f"unknown parameter '{name}' after '?'{did_you_mean(name, sorted(_KNOWN))}")
        if name in _WORDS and value not in _WORDS[name]:
            raise ValueError(f"{name}: expected {any_of(_WORDS[name])}{did_you_mean(value, _WORDS[name])}")
        if name in _NUMBERS and not (value.isascii() and value.isdigit()):
            raise ValueError(f"{name}: expected a whole number")
        if name == "ssl" and value != "true":
            raise ValueError("ssl: expected true; sslmode says more")
        yield name, value


def shown(url: str) -> str:
    """A checked URL as anyone may see it: passwords, and what may be one, as ***."""
    found = _FORM.fullmatch(url)
    if found is None:  # was not checked
        return MASK
    user = found["user"]
    if found["password"]:
        user = f"{user}:{MASK}"
    query = [_masked(each) for each in found["query"].split("&")] if found["query"] else []
    text = f"postgresql://{'' if user is None else f'{user}@'}{found['hosts']}{found['name'] or ''}"
    return f"{text}?{'&'.join(query)}" if query else text


def _masked(parameter: str) -> str:
    name = parameter.partition("=")[0]
    return f"{name}={MASK}" if unquote(name) in _SECRET | {"options"} else parameter


def hidden(url: str) -> Iterator[str]:
    """What of a checked URL nobody may see: as it is written there, and as it is meant."""
    found = _FORM.fullmatch(url)
    if found is None:
        return
    passwords = [found["password"]] if found["password"] else []
    for each in (found["query"] or "").split("&"):
        name, _, raw = each.partition("=")
        if unquote(name) in _SECRET and raw:
            passwords.append(raw)
    for raw in passwords:
        yield raw
        yield unquote(raw)
    if found["user"] and found["password"]:
        # Also where the password is so short that it is not sought by itself.
        yield f"{found['user']}:{found['password']}"
        yield unquote(f"{found['user']}:{found['password']}")
