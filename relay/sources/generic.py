"""Any other sender: an HMAC of the body, basic auth, a bearer token, static headers or a secret in the body.

What happened is unknown until the source's `map` says where it stands. Any body is taken.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from relay import proof, proofschema
from relay.delivery import Mark
from relay.event import Description, Inbound
from relay.fields import HeaderName, SecretTexts, Section
from relay.keyed import Algorithm
from relay.source import Proof

SAMPLE = "event"


class HmacKeys(Section):
    """How a sender signs its bodies."""

    header: HeaderName
    secret: SecretTexts
    algorithm: Algorithm = "sha256"
    encoding: proof.Encoding = "hex"
    prefix: str = ""


class Config(proofschema.HeaderProofs):
    """A sender without a type of its own."""

    type: Literal["generic"]
    hmac: HmacKeys | None = None
    basic: proofschema.BasicAuth | None = None
    body_secret: proofschema.BodySecretKeys | None = None

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "hmac", "basic", "token", "headers", "body_secret")


class Adapter:
    """Whatever proofs are configured; the description is left to `map`."""

    retries = True
    never = frozenset({"event", "model", "stage", "action", "entry_id", "environment", "branch", "locale"})
    own_actions = False

    def __init__(self, config: Config) -> None:
        self._checks: list[proof.Check] = []
        self.body_proofs: tuple[tuple[str, ...], ...] = ()
        if config.body_secret is not None and config.body_secret.path:
            path = config.body_secret.path
            self.body_proofs = (path,)
            self._checks.append(proof.BodySecret("body_secret", path, config.body_secret.value))
        self._checks += config.header_checks()
        if config.basic is not None:
            self._checks.append(proof.BasicCredentials(config.basic))
        own: tuple[str, ...] = ()
        if config.hmac is not None:
            keys = config.hmac
            code = proof.Hmac("hmac.secret", proof.reveal(keys.secret), keys.algorithm, keys.encoding)
            self._checks.append(proof.SignedBody(keys.header, code, keys.prefix, any_case=keys.encoding == "hex"))
            own = (keys.header,)
        self.proof_headers = proofschema.masked(config, *own)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        return Description(None)

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        return None  # for the source's `dedup` to say
