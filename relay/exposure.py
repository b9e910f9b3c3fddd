"""What a config exposes, for the warnings about it: credentials that travel in the clear, destinations that need not
prove who they are, secrets that can be guessed."""

from __future__ import annotations

from ipaddress import ip_address

from relay.authschema import OAuth2
from relay.effective import is_secret_header, secrets_in
from relay.fields import Section
from relay.notifier import NotifierConfig
from relay.payloadschema import Form
from relay.problems import Note, Path
from relay.proof import raw
from relay.schema import Defaults, Route, Server, is_loopback

_SHORTEST_SECRET = 16  # bytes
_IN_BETWEEN = "whoever sits on the way can read and change what is sent"
_STATIC_PROOFS = ("token", "basic", "headers")


def of_source(place: Path, proofs: tuple[str, ...], server: Section | None, warning: Note) -> None:
    """A proof that is the same in every request, taken over plain HTTP from other machines."""
    static = [key for key in proofs if key in _STATIC_PROOFS]
    if not static or not isinstance(server, Server) or server.listen.local:
        return
    if server.tls is None and not server.trusted_proxies:
        message = f"'{static[0]}' travels unencrypted: set server.tls, or server.trusted_proxies behind a TLS proxy"
        warning((*place, static[0]), message)


def of_defaults(section: Section | None, warning: Note) -> None:
    """Destinations that need not prove who they are."""
    if isinstance(section, Defaults) and section.tls is not None and not section.tls.verify:
        message = f"destinations are not asked to prove who they are: {_IN_BETWEEN}"
        warning(("defaults", "tls", "verify"), message)


def of_route(place: Path, route: Route, warning: Note) -> None:
    """What a destination is sent, or its token, on a way that others can read."""
    url = route.to.url
    if url.scheme == "http" and not _near(url.host or ""):
        secrets = route.to.auth is not None or any(entry.scheme == "prismic" for entry in route.sign)
        # The URL of a hook is a credential itself, and a form carries its token.
        secrets = secrets or bool(route.to.hidden) or isinstance(route.sent, Form)
        if secrets or any(is_secret_header(name) for name in route.to.headers):
            warning((*place, "to", "url"), f"credentials travel to {url.host} unencrypted (use https)")
    if not route.to.tls.verify:
        message = f"the destination is not asked to prove who it is: {_IN_BETWEEN}"
        warning((*place, "to", "tls", "verify"), message)
    auth = route.to.auth
    if isinstance(auth, OAuth2) and auth.token_url.scheme == "http" and not _near(auth.token_url.host or ""):
        message = f"credentials travel to {auth.token_url.host} unencrypted (use https)"
        warning((*place, "to", "auth", "token_url"), message)


def of_notifier(place: Path, notifier: NotifierConfig, warning: Note) -> None:
    """A notifier's credentials in the clear."""
    key, host = notifier.exposed or ("", "")
    if key and not _near(host):
        warning((*place, key), f"credentials travel to {host} unencrypted (use TLS)")


def short_secrets(place: Path, section: Section, warning: Note) -> None:
    """Secrets of a section that are too short."""
    for path, text in secrets_in(section, place):
        if len(raw(text.removeprefix("whsec_"))) < _SHORTEST_SECRET:
            warning(path, f"the secret is shorter than {_SHORTEST_SECRET} bytes")


def _near(host: str) -> bool:
    """Whether what is sent to a host stays in the operator's own network."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return is_loopback(host) or "." not in host or host.endswith((".internal", ".local"))
