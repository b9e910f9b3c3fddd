"""What a source's config says of its proofs: the sections and checks that the source types share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Self, cast

from pydantic import AfterValidator, BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from relay import fields
from relay.fields import HeaderName, SecretTexts, Section, Unresolved
from relay.jsontext import kind
from relay.proof import Bearer, Check, StaticHeader
from relay.secret import Secret
from relay.source import SourceConfig

ALWAYS_MASKED = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers that are never stored nor passed on, whatever the source."""


JsonPath = tuple[str, ...]


def _sendable(secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
    for secret in secrets:
        value = secret.reveal()
        if isinstance(value, Unresolved):
            continue
        if any(character in value for character in "\r\n\0"):
            raise ValueError("a header value cannot hold CR, LF or NUL")
        if value != value.strip():
            raise ValueError("the value begins or ends with white space, which no header can carry")
    return secrets


HeaderSecrets = Annotated[SecretTexts, AfterValidator(_sendable)]
"""Secrets that travel as (part of) a header's value."""


def _mapping(value: object) -> object:
    if not isinstance(value, Mapping):  # said here, where the value is not shown: it is likely a secret
        raise ValueError(f"expected a mapping of header names to values, got {kind(value)}")
    return value


def _distinct(headers: Mapping[str, tuple[Secret, ...]]) -> Mapping[str, tuple[Secret, ...]]:
    if not headers:
        raise ValueError("expected at least one header, got an empty object")
    seen: set[str] = set()
    for name in headers:
        if name.lower() in seen:
            raise ValueError(f"the header '{name}' is given twice (case does not count)")
        seen.add(name.lower())
    return headers


StaticHeaders = Annotated[Mapping[HeaderName, HeaderSecrets], BeforeValidator(_mapping), AfterValidator(_distinct)]
"""Headers that the operator set at the sender, each with its value or values."""


def _username(value: object, handler: ValidatorFunctionWrapHandler) -> str:
    if isinstance(value, Unresolved):
        return value
    name = cast(str, handler(value))
    if ":" in name:
        raise ValueError("a user name of basic auth cannot hold a colon")
    return name


class BasicAuth(Section):
    """User name and password of `Authorization: Basic`."""

    username: Annotated[str, WrapValidator(_username)]
    password: SecretTexts


def pointer_path(pointer: str) -> JsonPath:
    """A JSON pointer (RFC 6901) as the object keys it names. Raises ValueError."""
    if not pointer.startswith("/"):
        raise ValueError("expected a JSON pointer such as /dialog_values/secret")
    keys = pointer[1:].split("/")
    if any(re.search("~(?![01])", key) for key in keys):
        raise ValueError("in a JSON pointer '~' is written '~0' and '/' in a key '~1'")
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in keys)


def _pointer(value: object, handler: ValidatorFunctionWrapHandler) -> str:
    if isinstance(value, Unresolved):
        return value
    pointer = cast(str, handler(value))
    pointer_path(pointer)
    return pointer


class BodySecretKeys(Section):
    """A secret that travels in the JSON body, and where: the pointer names object keys, not places in lists."""

    pointer: Annotated[str, WrapValidator(_pointer)]
    value: SecretTexts

    @property
    def path(self) -> JsonPath:
        """The pointer as keys; empty where it was not looked up."""
        return () if isinstance(self.pointer, Unresolved) else pointer_path(self.pointer)


class HeaderProofs(SourceConfig):
    """Proofs that any sender with settable headers can give."""

    token: HeaderSecrets | None = None
    headers: StaticHeaders | None = None

    @model_validator(mode="after")
    def _one_authorization(self) -> Self:
        wanting = [key for key in ("token", "basic") if getattr(self, key, None) is not None]
        wanting += [f"headers.{name}" for name in self.headers or () if name.lower() == "authorization"]
        if len(wanting) > 1:
            message = f"{' and '.join(wanting)} want one header, Authorization: they can never both hold"
            raise fields.misplaced((), message)
        return self

    def header_checks(self) -> list[Check]:
        """The checks of `token` and `headers`."""
        checks: list[Check] = []
        if self.token is not None:
            checks.append(Bearer(self.token))
        for name, secrets in (self.headers or {}).items():
            checks.append(StaticHeader(name, secrets))
        return checks


def configured(config: SourceConfig, *keys: str) -> tuple[str, ...]:
    """Those of the keys that the config sets."""
    return tuple(key for key in keys if getattr(config, key, None) is not None)


def masked(config: SourceConfig, *own: str) -> frozenset[str]:
    """Lower-case names of all headers that carry a proof of this source, configured or not."""
    named = getattr(config, "headers", None) or ()
    return ALWAYS_MASKED | {name.lower() for name in (*own, *named)}
