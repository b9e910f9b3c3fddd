"""The destination of one webhook of Contentstack as a route's `to`, without the secrets in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from yarl import URL

from relay import preset
from relay.destination import HOP_BY_HOP, OWN_HEADERS, SIGNATURE_HEADER
from relay.effective import is_secret_header
from relay.preset import HookPreset
from relay.variables import Variables
from relay.wireschema import parsed_url
from relay.yamltext import literal, reference

NOT_HELD = "the export does not hold it"

_MASK = re.compile(r"\*{3,}|•{3,}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CREDENTIALS = re.compile(r"(?:basic|bearer|token|digest|hmac|key)\s+\S{4,}", re.IGNORECASE)
_BEARER = re.compile(r"bearer\s+(\S.*)", re.IGNORECASE)
_LONG_WORD = re.compile(r"[A-Za-z0-9+/_=.~-]{16,}")
_RANDOM = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[A-Za-z_-]*[0-9])(?=[0-9_-]*[A-Za-z])[A-Za-z0-9]{16,}",
    re.IGNORECASE,
)
_INSTEAD = {
    "basic": "http_basic_auth is given",
    "bearer": "its authentication is Bearer",
    "oauth2": "its authentication is OAuth2",
}
_HOOKS_BESIDE = ("discordapp.com", "webhook.office.com")  # other hosts of the services that presets know


class NotAnExport(ValueError):
    """A document that is no webhook export; the text says where."""


class WebhookDestination:
    """The destination of one route being written; `variables` and `notes` are those of the whole import."""

    def __init__(self, name: str, variables: Variables, notes: list[str]) -> None:
        self._name = name
        self._variables = variables
        self._notes = notes
        self.comments: list[str] = []
        self.complete = True
        """Whether it would do what the webhook did."""

    def remark(self, text: str) -> None:
        """Say what could not be told in the config, in it and to who imports."""
        self.comments.append(text)
        self._notes.append(f"route {self._name}: {text}")

    def secret(self, part: str, meaning: str, value: object) -> str:
        """A reference in the place of a value that is nobody's business."""
        return self._variable(part, meaning, NOT_HELD if _hidden(plain_text(value)) else None)

    def _variable(self, part: str, meaning: str, lack: str | None) -> str:
        return self._variables.new(f"{self._name}_{part}", f"{meaning} of route {self._name}", lack)

    def to(self, destination: dict[str, Any]) -> dict[str, Any]:
        """Its `to`."""
        given = self._listed(destination.get("custom_header"))
        auth = self._auth(destination, given)
        url, user = self._url(destination["target_url"], "URL")
        if user is not None and auth is not None:
            self.remark(f"left out: the user name and password in the target_url, because {_INSTEAD[auth['type']]}")
        elif user is not None:
            self.remark("the target_url held a user name and a password: they are in auth")
            name, password = map(unquote, user)
            # Without a password it is a token.
            odd = _hidden(name) or ":" in name or not password
            auth = {
                "type": "basic",
                "username": self.secret("USERNAME", "the user name", name) if odd else name,
                "password": self.secret("PASSWORD", "the password", password),
            }
        to: dict[str, Any] = {"url": url}
        headers = dict(self._headers(given, auth is not None))
        if headers:
            to["headers"] = headers
        if auth is not None:
            to["auth"] = auth
        return to

    def _url(self, text: str, part: str) -> tuple[str, tuple[str, str] | None]:
        """A URL as relay takes it, its query's values as references, and the user name and password in it."""
        what = "target_url" if part == "URL" else "access_token_url"
        text = text.strip()
        if not text:
            self.remark(f"the {what} is missing")
            return self.secret(part, f"the {what}", None), None
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is None:
            text = f"https://{text}"
            self.remark(f"the {what} is no http:// or https:// URL: https:// was put before it")
        scheme, _, rest = text.partition("://")
        rest, hashed, _ = rest.partition("#")
        path_start = min((place for mark in "/?" if (place := rest.find(mark)) >= 0), default=len(rest))
        authority, path = rest[:path_start], rest[path_start:]
        user, _, host = authority.rpartition("@")
        if hashed:
            self.remark(f"the {what} had a fragment (#…), which no server sees: it is left out")
        masked = _MASK.search(host) is not None
        odd = not host or any(ord(c) <= 32 or ord(c) == 127 for c in host + path)
        if scheme.lower() not in ("http", "https") or odd or masked or not _parses(f"{scheme}://{host}{path}"):
            unusable = "no URL that relay could send to"
            self.remark(f"the {what} is {unusable}")
            return self._variable(part, f"the {what}", NOT_HELD if masked else f"in the export it is {unusable}"), None
        held = user.strip(":") != ""
        name, _, password = user.partition(":")
        if _is_hook(f"{scheme}://{host}{path}"):
            self.remark(f"whoever knows the {what} can call it: it is a variable")
            meaning = f"the {what} without its user name and password" if held else f"the {what}"
            return self.secret(part, meaning, text), (name, password) if held else None
        path, asked, query = path.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&")] if asked else []
        said = "&".join(
            literal(name) + (f"={self.secret(f'{part}_{name}', f'{name!r} in the {what}', value)}" if equal else "")
            for name, equal, value in pairs
        )
        made = literal(f"{scheme.lower()}://{host}{path}{asked}") + said
        return reference(made) if "${" in said or "${" in made else made, (name, password) if held else None

    def _auth(self, destination: Mapping[str, Any], headers: Iterable[tuple[str, str]]) -> dict[str, Any] | None:
        kind = plain_text(destination.get("authentication_type")).casefold()
        user, password = plain_text(destination.get("http_basic_auth")), destination.get("http_basic_password")
        if kind == "basic" or (not kind and user):
            if not user and not password:
                return None  # what the form leaves behind: nothing was sent
            username = self.secret("USERNAME", "the user name", user) if _hidden(user) or ":" in user else user
            return {
                "type": "basic",
                "username": username,
                "password": self.secret("PASSWORD", "the password", password),
            }
        if kind == "bearer":
            token, meaning = plain_text(destination.get("bearer_token")), "the bearer token"
            if not token and (token := _bearer(headers)):
                meaning = "the bearer token in the header Authorization"
            return {"type": "bearer", "token": self.secret("TOKEN", meaning, token)}
        if kind == "oauth2":
            return self._oauth(destination)
        if kind not in ("", "none"):
            self.complete = False
            self.remark(f"not translated: its authentication '{one_line(kind)}'; it is disabled until auth is right")
        return None

    def _oauth(self, destination: Mapping[str, Any]) -> dict[str, Any]:
        """Client credentials, as Contentstack asks for a token: by the form, its parameters on the URL."""
        url, user = self._url(plain_text(destination.get("access_token_url")), "TOKEN_URL")
        client = plain_text(destination.get("client_id"))
        auth: dict[str, Any] = {"type": "oauth2", "token_url": url}
        auth["client_id"] = self.secret("CLIENT_ID", "the client_id", client) if _hidden(client) else client
        auth["client_secret"] = self.secret("CLIENT_SECRET", "the client_secret", destination.get("client_secret"))
        scope = destination.get("scope")
        scope = " ".join(plain_text(one) for one in scope) if isinstance(scope, list) else plain_text(scope)
        if scope:
            auth["scope"] = scope
        if user is not None:
            self.remark("not translated: the user name in its access_token_url")
        query = {}
        for name, value in self._parameters(destination.get("request_query_parameters")):
            if name == "grant_type" and value == "client_credentials":
                continue  # relay's own
            if name in query:
                self.remark(f"not translated: a second '{one_line(name)}' in its request_query_parameters")
            else:  # like the values of any URL's query, which `export` and every output hide too
                query[name] = self.secret(f"TOKEN_{name}", f"'{one_line(name)}' of the token request", value)
        if query:
            auth["query"] = query
        return auth

    def _parameters(self, value: object) -> list[tuple[str, str]]:
        """`a=b&c=d`, or an object, or a list of names and values; a lone `=` is what the form leaves behind."""
        if isinstance(value, str):
            return [(name, text) for name, text in parse_qsl(value.lstrip("?"), keep_blank_values=True) if name]
        if isinstance(value, dict):
            return [(name, plain_text(text)) for name, text in value.items() if name]
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            pairs = [(plain_text(item.get("key") or item.get("name")), plain_text(item.get("value"))) for item in value]
            return [(name, text) for name, text in pairs if name]
        if value is not None:
            self.remark("not translated: its request_query_parameters")
        return []

    def _listed(self, value: object) -> list[tuple[str, str]]:
        """Its headers, but for what the form leaves behind."""
        if isinstance(value, dict):
            value = [{"header_name": name, "value": text} for name, text in value.items()]
        if value is not None and not isinstance(value, list):
            raise NotAnExport(f"route {self._name}: expected custom_header to be a list")
        if not all(isinstance(item, dict) for item in value or []):
            raise NotAnExport(f"route {self._name}: expected custom_header to be a list of objects")
        said = [(plain_text(item.get("header_name")), plain_text(item.get("value"))) for item in value or []]
        return [(name.strip(), text.strip()) for name, text in said if name.strip() and text.strip()]

    def _headers(self, given: Iterable[tuple[str, str]], authorized: bool) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for name, text in given:
            reason = _unsendable(name, text, authorized) or ("it is given twice" if name.lower() in seen else None)
            if reason is not None:
                self.remark(f"left out: the header {one_line(name)[:40]}, because {reason}")
                continue
            seen.add(name.lower())
            yield name, self.secret(f"HEADER_{name}", f"the header {name}", text) if _telling(name, text) else text


def _unsendable(name: str, value: str, authorized: bool) -> str | None:
    """Why a header cannot be a route's."""
    lower = name.lower()
    if _TOKEN.fullmatch(name) is None:
        return "this is no header's name"
    if _CONTROL.search(value):
        return "its value has control characters"
    if lower in OWN_HEADERS or lower == SIGNATURE_HEADER:
        return "relay writes it"
    if lower in HOP_BY_HOP:
        return "it belongs to one connection"
    if lower == "authorization" and authorized:
        return "auth writes it"
    return None


def _bearer(headers: Iterable[tuple[str, str]]) -> str:
    """The bearer token that a header holds, or nothing."""
    found = (_BEARER.fullmatch(value) for name, value in headers if name.lower() == "authorization")
    return next((match[1] for match in found if match is not None), "")


def _telling(name: str, value: str) -> bool:
    """Whether a header's value looks like a secret."""
    if is_secret_header(name) or _MASK.search(value) or _CREDENTIALS.match(value):
        return True
    return any(any(c.isdigit() for c in word) and any(c.isalpha() for c in word) for word in _LONG_WORD.findall(value))


def _hidden(text: str) -> bool:
    return not text or _MASK.search(text) is not None


def _parses(url: str) -> bool:
    try:
        parsed_url(url)
    except ValueError:
        return False
    return True


def _is_hook(text: str) -> bool:
    """Whether whoever knows a URL can call it: it is one of a service's hooks, or something in its path is random."""
    url = parsed_url(text)
    host = (url.host or "").rstrip(".")
    if any(host == known or host.endswith(f".{known}") for known in (*_hook_hosts(), *_HOOKS_BESIDE)):
        return len(url.path) > 1
    return _RANDOM.search(url.path) is not None


@cache
def _hook_hosts() -> tuple[str, ...]:
    hooks = (kind for kind in map(preset.model, preset.names()) if issubclass(kind, HookPreset))
    return tuple(URL(kind.base).host or "" for kind in hooks if kind.base is not None)


def plain_text(value: object) -> str:
    """A text or a number of an export as text; nothing for all else."""
    if isinstance(value, bool) or value is None:
        return ""
    return str(value) if isinstance(value, (str, int, float)) else ""


def one_line(text: str) -> str:
    """Foreign text on one line of a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
