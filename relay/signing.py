"""Signatures for the receiver: how relay proves itself to a destination."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Protocol


class Signer(Protocol):
    """One scheme with its keys, built once per config."""

    headers: frozenset[str]
    """Lower-case names of the headers that it writes."""

    def sign(self, message_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
        """The headers that prove the body. `timestamp` is that of the attempt, in seconds."""
        ...


class StandardSigner:
    """Standard Webhooks v1: HMAC-SHA256 over `id.timestamp.body`, one signature for each secret.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    headers = frozenset({"webhook-signature"})

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [standard_key(secret) for secret in secrets]

    def sign(self, message_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
        signed = f"{message_id}.{timestamp}.".encode() + body
        signatures = [
            "v1," + binascii.b2a_base64(hmac.digest(key, signed, "sha256"), newline=False).decode()
            for key in self._keys
        ]
        return [("webhook-signature", " ".join(signatures))]


def standard_key(secret: str) -> bytes:
    """The key behind a `whsec_…` secret: base64, with or without its prefix. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("expected whsec_ and base64") from None
    if not key:
        raise ValueError("expected whsec_ and base64, got nothing after whsec_")
    return key
