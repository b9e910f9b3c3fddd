"""The keys of `to.auth`: how a route proves itself to its destination."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from relay import fields
from relay.fields import SecretText, Section, Unresolved
from relay.proof import raw
from relay.secret import Secret
from relay.wireschema import Url

_UNSENDABLE = re.compile(r"[^\x21-\x7e]")


def _username(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Unresolved) and ":" in value:
        raise ValueError("a user name cannot hold ':' (RFC 7617)")
    return value


class Basic(Section):
    """User name and password."""

    type: Literal["basic"]
    username: Annotated[str, BeforeValidator(_username)]
    password: SecretText

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return "Basic " + base64.b64encode(raw(f"{self.username}:{self.password.reveal()}")).decode()


def _token(value: object) -> object:
    text = value.reveal() if isinstance(value, Secret) else value
    if isinstance(text, str) and not isinstance(text, Unresolved) and _UNSENDABLE.search(text):
        raise ValueError("a token cannot hold white space, control characters or anything but ASCII (a stray newline?)")
    return value


class Bearer(Section):
    """A token."""

    type: Literal["bearer"]
    token: Annotated[SecretText, BeforeValidator(_token)]

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return f"Bearer {self.token.reveal()}"


def _client_id(value: object) -> object:
    if value == "":
        raise ValueError("the client id is empty")
    return value


_OWN_PARAMS = frozenset({"grant_type", "client_id", "client_secret", "scope"})


def _params(value: object) -> object:
    names = [name for name in value if name in _OWN_PARAMS] if isinstance(value, dict) else []
    if names:
        cures = {"scope": " (use scope)"}
        raise fields.all_misplaced(((name,), f"'{name}' is written by relay{cures.get(name, '')}") for name in names)
    return value


class OAuth2(Section):
    """Client credentials (RFC 6749 section 4.4): relay gets a token for them, and another when it has run out."""

    type: Literal["oauth2"]
    token_url: Url
    client_id: Annotated[str, BeforeValidator(_client_id)]
    client_secret: SecretText
    scope: str | None = None
    params: Annotated[Mapping[str, str], BeforeValidator(_params)] = Field(default_factory=dict)
    query: Mapping[str, str] = Field(default_factory=dict)


def _one_of(models: Mapping[str, type[Section]]) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, tuple(models.values())):
            return value
        if not isinstance(value, dict):
            raise ValueError("expected a mapping such as {type: bearer, token: …}")
        return fields.chosen(value, "type", models)

    return BeforeValidator(check)


Auth = Annotated[Basic | Bearer | OAuth2, _one_of({"basic": Basic, "bearer": Bearer, "oauth2": OAuth2})]

FixedAuth = Annotated[Basic | Bearer, _one_of({"basic": Basic, "bearer": Bearer})]
"""What can be written into a header as it is."""
