"""Signatures for the receiver: how relay proves itself to a destination.

With the scheme of its content system, a receiver that already verifies that system's signature works unchanged behind
relay.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from relay import bodyproof
from relay.clock import to_ms
from relay.immutable import immutable
from relay.keyed import Algorithm, Keyed
from relay.proof import raw
from relay.secret import MASK

Encoding = Literal["hex", "base64"]


@immutable
class Message:
    """What a signature may speak of beside the body."""

    id: str
    now: datetime
    """The moment of the attempt."""
    timestamp: int
    """The same in seconds, as `webhook-timestamp` says it."""
    environment: str | None


class Signer(Protocol):
    """One scheme with its keys, built once per config."""

    headers: frozenset[str]
    """Lower-case names of the headers that it writes."""
    fills: bool
    """Whether it puts anything into the body."""

    def fill(self, body: bytes) -> bytes:
        """The body with what the scheme puts into it. Raises Malformed. Comes before all signatures of the body."""
        ...

    def sign(self, message: Message, body: bytes) -> list[tuple[str, str]]:
        """The headers that prove the body."""
        ...

    def hide(self, body: bytes) -> bytes:
        """A filled body as anyone may see it."""
        ...


class _HeaderSigner:
    """Leaves the body alone."""

    fills = False

    def fill(self, body: bytes) -> bytes:
        return body

    def hide(self, body: bytes) -> bytes:
        return body


class StandardSigner(_HeaderSigner):
    """Standard Webhooks v1: HMAC-SHA256 over `id.timestamp.body`, one signature for each secret.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    headers = frozenset({"webhook-signature"})

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [Keyed(standard_key(secret), "sha256") for secret in secrets]

    def sign(self, message: Message, body: bytes) -> list[tuple[str, str]]:
        signed = f"{message.id}.{message.timestamp}.".encode() + body
        if len(self._keys) == 1:
            return [("webhook-signature", "v1," + _base64(self._keys[0].digest(signed)))]
        signatures = ["v1," + _base64(key.digest(signed)) for key in self._keys]
        return [("webhook-signature", " ".join(signatures))]


class AsymmetricSigner(_HeaderSigner):
    """Standard Webhooks v1a: Ed25519 over `id.timestamp.body`, one signature for each `whsk_` key."""

    headers = frozenset({"webhook-signature"})

    def __init__(self, secrets: Sequence[str]) -> None:
        # Imported where it is used: it costs memory that most relays need not spend.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._keys = [Ed25519PrivateKey.from_private_bytes(asymmetric_key(secret)) for secret in secrets]

    def sign(self, message: Message, body: bytes) -> list[tuple[str, str]]:
        signed = f"{message.id}.{message.timestamp}.".encode() + body
        signatures = ["v1a," + _base64(key.sign(signed)) for key in self._keys]
        return [("webhook-signature", " ".join(signatures))]


class HygraphSigner(_HeaderSigner):
    """Hygraph's `gcms-signature`: HMAC-SHA256, base64, over body, environment and time in ms as a JSON object.

    https://hygraph.com/docs/api-reference/basics/webhooks
    """

    headers = frozenset({"gcms-signature"})

    def __init__(self, secret: str, environment: str | None) -> None:
        self._key = Keyed(raw(secret), "sha256")
        self._environment = environment

    def sign(self, message: Message, body: bytes) -> list[tuple[str, str]]:
        environment = self._environment or message.environment or "master"
        moment = to_ms(message.now)
        # What is not UTF-8 cannot stand in JSON; no Hygraph receiver could verify it in any form.
        payload = {"Body": body.decode("utf-8", "replace"), "EnvironmentName": environment, "TimeStamp": moment}
        signed = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        signature = _base64(self._key.digest(signed))
        return [("gcms-signature", f"sign={signature}, env={environment}, t={moment}")]


class HmacSigner(_HeaderSigner):
    """A header with the HMAC of the body: Storyblok's, GitHub's, and any of that kind."""

    def __init__(self, secret: str, header: str, algorithm: Algorithm, encoding: Encoding, prefix: str = "") -> None:
        self.headers = frozenset({header.lower()})
        self._key = Keyed(raw(secret), algorithm)
        self._header = header
        self._encoding = encoding
        self._prefix = prefix

    def sign(self, message: Message, body: bytes) -> list[tuple[str, str]]:
        digest = self._key.digest(body)
        return [(self._header, self._prefix + (digest.hex() if self._encoding == "hex" else _base64(digest)))]


class PrismicSigner:
    """Prismic's proof: a `secret` in the JSON body. https://prismic.io/docs/webhooks"""

    headers: frozenset[str] = frozenset()
    fills = True

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def fill(self, body: bytes) -> bytes:
        return bodyproof.put(body, "secret", self._secret)

    def hide(self, body: bytes) -> bytes:
        return bodyproof.put(body, "secret", MASK)

    def sign(self, message: Message, body: bytes) -> list[tuple[str, str]]:
        return []


def storyblok(secret: str) -> HmacSigner:
    """`webhook-signature`: HMAC-SHA1 of the body, in hex. https://www.storyblok.com/docs/concepts/webhooks"""
    return HmacSigner(secret, "webhook-signature", "sha1", "hex")


def github(secret: str) -> HmacSigner:
    """`X-Hub-Signature-256`. https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries"""
    return HmacSigner(secret, "X-Hub-Signature-256", "sha256", "hex", "sha256=")


def standard_key(secret: str) -> bytes:
    """The key behind a `whsec_…` secret: base64, with or without its prefix. Raises ValueError."""
    return _decoded(secret, "whsec_")


def asymmetric_key(secret: str) -> bytes:
    """The 32 bytes behind a `whsk_…` secret: an Ed25519 seed, alone or before its public key. Raises ValueError."""
    key = _decoded(secret, "whsk_")
    if len(key) not in (32, 64):
        raise ValueError("expected whsk_ and the base64 of an Ed25519 key (32 or 64 bytes)")
    return key[:32]


def _decoded(secret: str, prefix: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"expected {prefix} and base64") from None
    if not key:
        raise ValueError(f"expected {prefix} and base64, got nothing after {prefix}")
    return key


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()
