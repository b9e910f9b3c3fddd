"""`${…}`: values that a config takes from the environment, from files and from systemd's credentials.

It is worked out on parsed strings. It cannot add structure, and its result is always a string.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from functools import cache

from relay.fields import Unresolved

LARGEST = 1 << 20
"""Bytes of a file that a `${file:…}` names, and of a config file."""


_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\})?")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_CREDENTIAL = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9_.@-]*")
_FORMS = "${NAME}, ${NAME:-default}, ${file:/path} or ${credential:NAME}"


class _Missing(Exception):
    """A `${…}` that leads to nothing."""


class Lookup:
    """Where `${…}` finds its values."""

    def __init__(self, environ: Mapping[str, str], no_secrets: bool, no_credentials: bool = False) -> None:
        self._environ = environ
        self._no_secrets = no_secrets
        self._no_credentials = no_secrets or no_credentials
        self._file = cache(_file_text)
        self.secrets: set[str] = set()

    def text(self, text: str) -> tuple[str, list[str], bool]:
        """A string with its references worked out, what is wrong with them, and whether the result is secret.

        One that did not work out is Unresolved: it has been complained about.
        """
        errors: list[str] = []
        secret = False
        unresolved = False

        def put(match: re.Match[str]) -> str:
            nonlocal secret, unresolved
            if match[0] == "$${":
                return "${"
            try:
                value, hidden = self._value(match[1], match[2] is not None)
            except _Missing as error:
                errors.append(str(error))
                return ""
            if value is None:
                unresolved = True
                return match[0]
            secret = secret or hidden
            return value

        result = _REFERENCE.sub(put, text)
        return (Unresolved(text) if errors or unresolved else result), errors, secret

    def _value(self, inside: str, closed: bool) -> tuple[str | None, bool]:
        """The value of `${inside}`, and whether it is secret; None where it is not looked up."""
        kind, colon, name = inside.partition(":")
        if not closed:
            raise _Missing(f"'${{{inside[:40]}' is not closed by '}}' (a literal ${{ is written $${{)")
        if colon and kind == "file" and name:
            return (None, True) if self._no_secrets else (self._secret(name, f"${{{inside}}}"), True)
        if colon and kind == "credential" and _CREDENTIAL.fullmatch(name):
            return (None, True) if self._no_credentials else (self._credential(name, f"${{{inside}}}"), True)
        match = _VARIABLE.fullmatch(inside)
        if match is None or "${" in inside:
            raise _Missing(f"'${{{inside[:40]}}}' is not {_FORMS} (a literal ${{ is written $${{)")
        if self._no_secrets:
            return None, False
        value = self._environ.get(match[1], "")
        if value:
            return value, False
        if match[2] is not None:
            return match[2], False
        state = "empty" if match[1] in self._environ else "not set"
        raise _Missing(f"the environment variable {match[1]} is {state}")

    def _credential(self, name: str, reference: str) -> str:
        directory = self._environ.get("CREDENTIALS_DIRECTORY", "")
        if not directory:
            raise _Missing(f"{reference}: $CREDENTIALS_DIRECTORY is not set (systemd sets it for LoadCredential=)")
        return self._secret(os.path.join(directory, name), reference)

    def _secret(self, path: str, reference: str) -> str:
        text, error = self._file(path)
        if text is None:
            raise _Missing(f"{reference}: {error}")
        self.secrets.add(text)
        return text


def _file_text(path: str) -> tuple[str | None, str]:
    """What a file says without the newline at its end, or None and why not."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None, f"{path} is not a regular file"
            data = file.read(LARGEST + 1)
    except IsADirectoryError:
        return None, f"{path} is not a regular file"
    except (OSError, ValueError) as error:
        return None, f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
    if len(data) > LARGEST:
        return None, f"{path} is larger than 1 MiB"
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return None, f"{path} is not UTF-8"
    return (text, "") if text else (None, f"{path} is empty")


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe must not hang a reload."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
