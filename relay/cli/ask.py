"""Asking the running daemon, by its admin side."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from relay.cli import term

_TIMEOUT = 30.0


class Unreachable(Exception):
    """No daemon answers there."""


class Daemon:
    """The admin side of one relay. `url` is `http://host:port` or `unix:/path`."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self._token = token

    def get(self, path: str, query: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """The status and the JSON of a GET. Raises Unreachable."""
        return self._ask("GET", path + ("?" + urlencode(query) if query else ""))

    def post(self, path: str) -> tuple[int, Any]:
        """The status and the JSON of a POST. Raises Unreachable."""
        return self._ask("POST", path)

    def _ask(self, method: str, target: str) -> tuple[int, Any]:
        connection = self._connection()
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"no relay answers at {self.url}: {error}") from None
        finally:
            connection.close()
        try:
            return answer.status, json.loads(body)
        except ValueError:
            raise Unreachable(f"what answers at {self.url} is not relay") from None

    def _connection(self) -> http.client.HTTPConnection:
        if self.url.startswith("unix:"):
            return _UnixConnection(self.url.removeprefix("unix:"))
        parts = urlsplit(self.url)
        if parts.hostname is None or parts.scheme not in ("http", "https"):
            term.fail(f"--url takes http://host:port or unix:/path, not {self.url!r}", 2)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=_TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._path)


def daemon(config: Path | None, url: str | None, token: str | None) -> Daemon:
    """The daemon that the options name; what they leave open comes from the config."""
    if url is not None:
        return Daemon(url, token)
    from relay import config as config_file
    from relay.schema import local_url

    found = config_file.load(config_file.find_config(config)).config.admin
    if token is None and found.token is not None:
        token = found.token.reveal()
    return Daemon(local_url(found.listen), token)


def refused(answer: Any) -> str:
    """What an error answer says."""
    if not isinstance(answer, dict):
        return "the answer makes no sense"
    return str(answer.get("detail") or answer.get("error") or answer)
