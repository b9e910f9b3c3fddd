"""Stripe: `Stripe-Signature: t=<seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">[,v1=…]`.

https://docs.stripe.com/webhooks#verify-manually

The key is the endpoint's secret as it stands, `whsec_` included: it is not base64, unlike Standard Webhooks'.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from relay import dedup, proof, proofschema
from relay.clock import from_ms
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import Duration, SecretTexts
from relay.jsontext import at, said
from relay.source import Proof, SourceConfig

SAMPLE = "invoice.paid"

_SIGNATURE = "Stripe-Signature"
_LATEST = 253_402_300_799  # the last second of the year 9999


class Config(SourceConfig):
    """A Stripe webhook endpoint."""

    type: Literal["stripe"]
    secret: SecretTexts | None = None
    tolerance: Duration = timedelta(minutes=5)

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "secret")


class Adapter:
    """Stripe's signature and events."""

    retries = True
    never = frozenset({"stage", "environment", "branch", "locale"})
    own_actions = False
    body_proofs: tuple[tuple[str, ...], ...] = ()

    def __init__(self, config: Config) -> None:
        self._checks: list[proof.Check] = []
        if config.secret is not None:
            code = proof.Hmac("secret", proof.reveal(config.secret))
            self._checks.append(proof.StampedBody(_SIGNATURE, code, config.tolerance))
        self.proof_headers = proofschema.masked(config, _SIGNATURE)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        body = inbound.object()
        event = said(body.get("type"))
        model, _, action = (event or "").rpartition(".")
        change = Change(model or None, None, action.casefold() or None, said(at(body, "data", "object", "id")))
        return Description(event, (change,), occurred_at=_moment(body.get("created")))

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        return dedup.message_id(said(inbound.object().get("id")))


def _moment(created: object) -> datetime | None:
    if isinstance(created, int) and not isinstance(created, bool) and 0 <= created <= _LATEST:
        return from_ms(created * 1000)
    return None
