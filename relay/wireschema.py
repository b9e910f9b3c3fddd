"""The keys that say how requests get to a destination: its URL, TLS, a proxy."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import Annotated

from pydantic import BeforeValidator, ModelWrapValidatorHandler, model_validator
from yarl import URL

from relay.fields import Section, Unresolved, missing, quote_hint, shown
from relay.secret import MASK

NOWHERE = URL("https://unresolved.invalid/")
"""In place of a URL that `check --no-secrets` did not look up."""
_USUAL_IPV4 = re.compile(r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}")


def _parsed(value: object, schemes: tuple[str, ...], what: str) -> URL:
    """A URL with a host. The text itself is not shown when it is wrong: it may hold secrets."""
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {shown(value)}{quote_hint(value)}")
    try:
        url = URL(value)
    except ValueError:
        raise ValueError(f"expected {what}") from None
    if url.scheme not in schemes:
        raise ValueError(f"expected {what}")
    if not url.host or any(ord(c) <= 32 or ord(c) == 127 for c in value):
        raise ValueError(f"expected {what} with a host and without white space")
    if "%" in url.host and ":" not in url.host:
        raise ValueError(f"expected {what}, without '%' in its host")
    if url.host.endswith(".") and _USUAL_IPV4.fullmatch(url.host.rstrip(".")) is not None:
        raise ValueError(f"'{url.host}' is an address with a dot at its end, which only a name may have")
    if _odd_address(url.host.rstrip(".")):
        raise ValueError(f"'{url.host}' is an IPv4 address in disguise: write it as four decimal numbers")
    return url


def _odd_address(host: str) -> bool:
    """Whether the C library would take a host for an IPv4 address, as 127.1 or 0x7f000001, that no reader would."""
    with contextlib.suppress(OSError, UnicodeError):
        socket.inet_aton(host)
        return _USUAL_IPV4.fullmatch(host) is None
    return False


def parsed_url(text: object) -> URL:
    """A URL to send to. Raises ValueError."""
    url = _parsed(text, ("http", "https"), "an http:// or https:// URL")
    if url.user is not None or url.password is not None:
        raise ValueError("a user name or password does not go into the URL: use to.auth")
    if "#" in str(text):
        raise ValueError("a URL to send to has no fragment (#…)")
    return url


def _url(value: object) -> object:
    if isinstance(value, URL):
        return value
    return NOWHERE if isinstance(value, Unresolved) else parsed_url(value)


Url = Annotated[URL, BeforeValidator(_url)]


def _proxy(value: object) -> object:
    if value is None or isinstance(value, URL):
        return value
    if value == "none":
        return None
    if isinstance(value, Unresolved):
        return NOWHERE.with_scheme("http")
    url = _parsed(value, ("http",), "a proxy such as http://user:password@proxy:3128, or none")
    if url.raw_path not in ("", "/") or "?" in str(value) or "#" in str(value):
        raise ValueError("a proxy's URL has no path, query or fragment")
    try:
        f"{url.user}{url.password}".encode("latin-1")
    except UnicodeError:
        raise ValueError("user name and password of a proxy cannot hold this character") from None
    return url


Proxy = Annotated[URL | None, BeforeValidator(_proxy)]
"""Through which proxy; None for none, also where `defaults` name one."""


class ClientTls(Section):
    """Whom to trust, and as whom to come."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True

    @model_validator(mode="wrap")
    @classmethod
    def _paired(cls, data: object, handler: ModelWrapValidatorHandler[ClientTls]) -> ClientTls:
        section = handler(data)
        if section.key is not None and section.cert is None and isinstance(data, dict) and "cert" not in data:
            raise missing("cert")
        return section


def shown_url(url: URL) -> str:
    """A URL as anyone may see it: user, password and the values of its query as ***."""
    user = f"{MASK}@" if url.raw_user is not None or url.raw_password is not None else ""
    text = f"{url.scheme}://{user}{url.host_port_subcomponent}{url.raw_path}"
    if url.query_string:
        text += "?" + "&".join(f"{name}={MASK}" for name in url.query)
    return text
