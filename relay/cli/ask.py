"""Asking the running daemon, by its admin side."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import urlencode, urlsplit

from relay.cli import term

if TYPE_CHECKING:
    from relay.config import ConfigError, Loaded
    from relay.fields import Section
    from relay.schema import Admin, Server, Store
    from relay.secret import Redactor

_TIMEOUT = 30.0
_LOGIN = re.compile("//.*@")
_LONGEST_LINE = 1 << 20


class Unreachable(Exception):
    """No daemon answers there. The message says what to do."""


class Daemon:
    """The admin side of one relay. `url` is `http://host:port` or `unix:/path`. Raises ConfigError where nobody answers
    and the file that said where to ask has mistakes."""

    def __init__(self, url: str, token: str | None, mistakes: ConfigError | None = None) -> None:
        self._url = url
        self.shown = _LOGIN.sub("//***@", url)
        """The URL as it may be shown."""
        self._token = token
        self._mistakes = mistakes
        """What is wrong with the file that named it: the more likely cause where nobody answers."""
        try:
            self._parts = urlsplit(url)
            usable = self._parts.port != 0 and self._parts.hostname is not None and self._parts.scheme[:4] == "http"
        except ValueError:
            usable = False
        if not usable and not url.startswith("unix:/"):
            term.fail(f"--url takes http://host:port or unix:/path, not '{self.shown}'", term.USAGE)
        if token is not None and not token.isprintable():
            term.fail("the token holds what no header can carry: look at --token or $RELAY_TOKEN", term.USAGE)

    @property
    def anonymous(self) -> bool:
        """Whether it is asked without a token."""
        return not self._token

    def get(self, path: str, query: Mapping[str, str] | None = None, patience: float = _TIMEOUT) -> tuple[int, Any]:
        """The status and the JSON of a GET, which may take so many seconds. Raises Unreachable, and Complaint where
        another program answers."""
        return self._ask("GET", self._target(path, query), patience)

    def post(self, path: str, query: Mapping[str, str] | None = None, patience: float = _TIMEOUT) -> tuple[int, Any]:
        """The same of a POST."""
        return self._ask("POST", self._target(path, query), patience)

    @contextlib.contextmanager
    def stream(self, path: str, query: Mapping[str, str], patience: float) -> Iterator[Iterator[bytes]]:
        """The lines of an answer that does not end, as they come. Raises Unreachable where nobody answers, where it
        breaks off, and where nothing came for so many seconds."""
        with self._connected(patience) as connection:
            with self._in_words(patience):
                connection.request("GET", self._target(path, query), headers=self._headers("text/event-stream"))
                answer = connection.getresponse()
            if answer.status != http.client.OK:
                self._refused(answer, patience)
            yield self._lines(answer, patience)

    def _lines(self, answer: http.client.HTTPResponse, patience: float) -> Iterator[bytes]:
        while True:
            with self._in_words(patience):
                line = answer.readline(_LONGEST_LINE)
            if not line:
                return
            yield line

    def _refused(self, answer: http.client.HTTPResponse, patience: float) -> NoReturn:
        """What was to be a stream is an answer."""
        if answer.status == http.client.NOT_FOUND:
            term.fail(f"the relay at {self.shown} knows nothing of this: it is older than this command, so upgrade it")
        with self._in_words(patience):
            body = answer.read()
        if answer.status >= http.client.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"the relay at {self.shown} is not ready (HTTP {answer.status})")
        with contextlib.suppress(ValueError):
            self.require("", answer.status, json.loads(body))
        self._not_relay()

    def _ask(self, method: str, target: str, patience: float = _TIMEOUT) -> tuple[int, Any]:
        with self._connected(patience) as connection, self._in_words(patience):
            connection.request(method, target, headers=self._headers("application/json"))
            answer = connection.getresponse()
            body = answer.read()
        try:
            return answer.status, json.loads(body)
        except ValueError:
            self._not_relay()

    def _target(self, path: str, query: Mapping[str, str] | None) -> str:
        base = "" if self._url.startswith("unix:") else self._parts.path.rstrip("/")
        return base + path + ("?" + urlencode(query) if query else "")

    def _headers(self, accept: str) -> dict[str, str | bytes]:
        headers: dict[str, str | bytes] = {"Accept": accept}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}".encode()
        return headers

    @contextlib.contextmanager
    def _connected(self, patience: float) -> Iterator[http.client.HTTPConnection]:
        """A connection on which answers may take so many seconds. Who may take long over one is connected to at once
        all the same."""
        connection = self._connection(min(patience, _TIMEOUT))
        try:
            with self._in_words():
                connection.connect()
            connection.sock.settimeout(patience)
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def _in_words(self, patience: float | None = None) -> Iterator[None]:
        """What goes wrong with a connection, as a person wants to hear it; with one that is there, on which so many
        seconds were to be enough."""
        try:
            yield
        except (http.client.IncompleteRead, http.client.RemoteDisconnected):
            raise Unreachable(f"the relay at {self.shown} went away") from None
        except http.client.HTTPException:
            self._not_relay()
        except ssl.SSLCertVerificationError as error:
            cure = "--url (with --token) takes a name that is in it, $SSL_CERT_FILE who has signed it"
            raise Unreachable(
                f"the certificate of {self.shown} does not hold ({error.verify_message}): {cure}"
            ) from None
        except OSError as error:
            if isinstance(error, TimeoutError) and patience is not None:
                late = f"has not answered for {patience:g} s: it may still be at work"
                raise Unreachable(f"the relay at {self.shown} {late}") from None
            if self._mistakes is not None:
                raise self._mistakes from None
            why = error.strerror or str(error)
            start = "start it with 'relay serve', or say with --url where it is"
            raise Unreachable(f"no relay answers at {self.shown} ({why}): {start}") from None

    def _connection(self, patience: float) -> http.client.HTTPConnection:
        if self._url.startswith("unix:"):
            return _UnixConnection(self._url.removeprefix("unix:"), patience)
        assert self._parts.hostname is not None
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname, self._parts.port, timeout=patience)

    def _not_relay(self) -> NoReturn:
        what = f"what answers at {self.shown} is not relay's admin side: --url takes the address of admin.listen"
        raise term.Complaint(what) from None

    def require(self, key: str, status: int, answer: Any) -> Any:
        """The answer, if it is one, which has this key. Raises Complaint, which says what to do."""
        if status == 401:
            what = "refuses this token" if self._token else "wants a token"
            cure = "give one of its admin tokens with --token or $RELAY_TOKEN"
            raise term.Complaint(f"the relay at {self.shown} {what}: {cure}")
        if not isinstance(answer, dict) or (key if status == 200 else "detail") not in answer:
            self._not_relay()
        if status != 200:
            raise term.Complaint(str(answer["detail"]), term.USAGE if status == 400 else term.FAILED)
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, patience: float) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def daemon(config: Path | None, url: str | None, token: str | None) -> Daemon:
    """The daemon that the options name; what they leave open comes from the config. Raises ConfigError."""
    if url is not None:
        return Daemon(url, token)
    from relay.fields import Unresolved
    from relay.schema import admin_url

    found, server, mistakes = _sides(config)
    if token is None and found.token is not None and not isinstance(found.token.reveal(), Unresolved):
        token = found.token.reveal()
    where = admin_url(found, server)
    if where.endswith(":0"):
        term.fail("admin.listen has port 0, so only the running relay knows its port: say --url", term.USAGE)
    return Daemon(where, token, mistakes)


def _sides(config: Path | None) -> tuple[Admin, Server, ConfigError | None]:
    """The sections of both sides, also of a file with mistakes elsewhere: the daemon runs on with what it read before
    them."""
    from relay import config as config_file
    from relay.schema import Server

    try:
        loaded = load(config).config
        return loaded.admin, loaded.server, None
    except config_file.ConfigError as error:
        path = config_file.find_config(config)
        found = _alone(path, "admin")
        if found is None:
            raise
        return cast("Admin", found), cast("Server", _alone(path, "server") or Server()), error


def _alone(path: Path, key: str) -> Section | None:
    """What a file says in one section, whatever else it says; None where even that cannot be read."""
    from pydantic import ValidationError

    from relay import yamlfile
    from relay.schema import SECTIONS

    try:
        document = yamlfile.read(path.read_bytes(), os.environ)
        top = document.value if isinstance(document.value, dict) else {}
        return SECTIONS[key].model_validate(top.get(key) or {})
    except (OSError, yamlfile.NotYaml, ValidationError):
        return None


def store(config: Path | None) -> tuple[Store, Redactor]:
    """Where the store is, for who reads it without a daemon, and what nobody may see of that. Raises ConfigError."""
    from relay import config as config_file
    from relay.effective import hidden_texts
    from relay.fields import Unresolved
    from relay.secret import Redactor

    loaded = load(config)
    section, secrets = loaded.config.store, set(loaded.secrets)
    if isinstance(section.url, Unresolved):
        # Something is missing from this shell. It may be of no concern here.
        path = config_file.find_config(config)
        section = cast("Store", _alone(path, "store") or section)
        if isinstance(section.url, Unresolved):
            config_file.load(path)  # says what
        secrets.update(text for text, _ in hidden_texts(section))
    return section, Redactor(secrets)


def load(config: Path | None) -> Loaded:
    """The config, for who only wants to know where the daemon and its store are. Raises ConfigError.

    A service has secrets that its operator's shell has not. Where they are all that is missing, they are not needed.
    """
    from relay import config as config_file

    path = config_file.find_config(config)
    try:
        return config_file.load(path)
    except config_file.ConfigError:
        with contextlib.suppress(config_file.ConfigError):
            found = config_file.load(path, no_secrets=True)
            if not str(found.config.admin.listen).endswith(":0"):
                return found
        raise
