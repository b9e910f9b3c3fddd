"""GitHub: `X-Hub-Signature-256: sha256=<hex HMAC-SHA256 of the body>`.

https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries

The older `X-Hub-Signature` (SHA-1) proves nothing here. What happened stands in `X-GitHub-Event`, outside the
signature, and for most events in the body's `action`. Any body is taken.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Literal

from multidict import CIMultiDict

from relay import dedup, proof, proofschema
from relay.clock import to_ms
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import SecretTexts
from relay.jsontext import Malformed, at, said, whole
from relay.source import Proof, SourceConfig

SAMPLE = "push"

_SIGNATURE = "X-Hub-Signature-256"
_EVENT = "X-GitHub-Event"
_DELIVERY = "X-GitHub-Delivery"


class Config(SourceConfig):
    """A webhook of a GitHub repository, organisation or app."""

    type: Literal["github"]
    secret: SecretTexts | None = None

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "secret")


class Adapter:
    """GitHub's signature and events."""

    retries = False  # only a person does: "Redeliver"
    never = frozenset({"stage", "entry_id", "environment", "branch", "locale"})
    own_actions = False
    body_proofs: tuple[tuple[str, ...], ...] = ()

    def __init__(self, config: Config) -> None:
        self._checks: list[proof.Check] = []
        if config.secret is not None:
            code = proof.Hmac("secret", proof.reveal(config.secret))
            self._checks.append(proof.SignedBody(_SIGNATURE, code, "sha256="))
        self.proof_headers = proofschema.masked(config, _SIGNATURE, "X-Hub-Signature")

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        if _DELIVERY not in inbound.headers:  # every delivery has an id of its own
            unique = hashlib.sha256(str(to_ms(now)).encode() + inbound.body).digest()
            headers = CIMultiDict(inbound.headers)
            headers[_DELIVERY] = str(uuid.UUID(bytes=unique[:16], version=4))
            inbound = Inbound(headers, inbound.body)
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        sent = proof.hint(inbound.headers, _EVENT)
        event = whole(sent) if sent is not None else None
        try:
            action = said(at(inbound.document(), "action"))
        except Malformed:
            action = None
        return Description(event, (Change(event, None, action.casefold() if action is not None else None, None),))

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        return dedup.message_id(proof.hint(inbound.headers, _DELIVERY))
