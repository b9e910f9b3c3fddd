"""Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, or the same as `svix-*`.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

The signature is a list, separated by spaces, of `v1,<base64 HMAC-SHA256>` and `v1a,<base64 Ed25519>` of
`<id>.<timestamp>.<body>`; any one that fits will do. Keys are base64 after `whsec_` (v1) and `whpk_` (v1a).
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator

from relay import dedup, proof, proofschema
from relay.clock import parse_rfc3339, to_ms
from relay.delivery import Mark
from relay.event import Change, Description, Headers, Inbound
from relay.fields import Duration, SecretTexts, Unresolved
from relay.jsontext import at, said
from relay.secret import Secret
from relay.source import Proof, Rejected, SourceConfig

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SAMPLE = "entry.publish"

_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_OLD_HEADERS = ("svix-id", "svix-timestamp", "svix-signature")
_MOST_SIGNATURES = 4  # of v1a: each costs a pass over the body before anybody is known to be genuine


def _hmac_key(text: str) -> bytes:
    if text.startswith(("whsk_", "whpk_")):
        raise ValueError("this is an asymmetric key: secret wants whsec_…, public_key wants whpk_…")
    key = proof.unbase64(text.removeprefix("whsec_"))
    if not key:
        raise ValueError("expected whsec_ and base64")
    return key


def _keyed(secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
    for secret in secrets:
        if not isinstance(secret.reveal(), Unresolved):
            _hmac_key(secret.reveal())
    return secrets


def _ed25519_key(text: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if text.startswith("whsk_"):
        raise ValueError("this is the private key; public_key wants the public one (whpk_…)")
    key = proof.unbase64(text.removeprefix("whpk_"))
    if key is None or len(key) != 32:
        raise ValueError("expected whpk_ and 32 bytes in base64")
    return Ed25519PublicKey.from_public_bytes(key)


def _public(value: object, handler: ValidatorFunctionWrapHandler) -> str:
    if isinstance(value, Unresolved):
        return value
    text = cast(str, handler(value))
    _ed25519_key(text)
    return text


def _listed(value: object) -> object:
    if value == [] or value == ():
        raise ValueError("expected at least one value, got an empty list")
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


PublicKeys = Annotated[tuple[Annotated[str, WrapValidator(_public)], ...], BeforeValidator(_listed)]


class Config(SourceConfig):
    """A sender of Standard Webhooks."""

    type: Literal["standard"]
    secret: Annotated[SecretTexts, AfterValidator(_keyed)] | None = None
    public_key: PublicKeys | None = None
    tolerance: Duration = timedelta(minutes=5)

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "secret", "public_key")


def _signed(inbound: Inbound, now: datetime, tolerance: int) -> tuple[bytes, list[tuple[str, str]]]:
    """The message that is signed, and the signatures by version. Raises Rejected."""
    headers = inbound.headers
    names = _names(headers)
    identifier, timestamp, signatures = [proof.sole(headers, name) for name in names]
    seconds = proof.number(timestamp)
    if seconds is None:
        raise Rejected(f"the {names[1]} header is not a number of seconds")
    proof.check_time(seconds * 1000, now, tolerance)
    pairs = []
    for one in signatures.split(" "):
        version, _, code = one.partition(",")
        pairs.append((version, code))
    return _message(identifier, timestamp, inbound.body), pairs


def _names(headers: Headers) -> tuple[str, str, str]:
    for name in _HEADERS:
        if name in headers:
            return _HEADERS
    return _OLD_HEADERS


def _message(identifier: str, timestamp: str, body: bytes) -> bytes:
    return b"%s.%s.%s" % (proof.raw(identifier), timestamp.encode(), body)


class SymmetricSignature:
    """v1: HMAC-SHA256."""

    def __init__(self, secrets: tuple[Secret, ...], tolerance: timedelta) -> None:
        keys = [
            proof.raw(text) if isinstance(text, Unresolved) else _hmac_key(text)
            for text in (secret.reveal() for secret in secrets)
        ]
        self._hmac = proof.Hmac("secret", keys, encoding="base64")
        self._tolerance = proof.whole_ms(tolerance)

    def hold(self, inbound: Inbound, now: datetime) -> str:
        message, signatures = _signed(inbound, now, self._tolerance)
        given = [proof.raw(code) for version, code in signatures if version == "v1" and code]
        held = self._hmac.held(message, given)
        if held is None:
            raise Rejected("no v1 signature fits")
        return held

    def sign(self, draft: proof.Draft, now: datetime) -> None:
        for name in _OLD_HEADERS:
            draft.headers.popall(name, None)
        seconds = str(to_ms(now) // 1000)
        identifier = proof.hint(draft.headers, "webhook-id")
        if identifier is None:
            unique = hashlib.sha256(str(to_ms(now)).encode() + draft.body).hexdigest()
            identifier = f"msg_{unique[:24]}"
        code = self._hmac.sign(_message(identifier, seconds, draft.body))
        draft.headers["webhook-id"] = identifier
        draft.headers["webhook-timestamp"] = seconds
        draft.headers["webhook-signature"] = f"v1,{code}"


class AsymmetricSignature:
    """v1a: Ed25519."""

    def __init__(self, keys: tuple[str, ...], tolerance: timedelta) -> None:
        from cryptography.exceptions import InvalidSignature  # not imported where no source needs it

        names = proof.labels("public_key", len(keys))
        self._keys = [
            (name, _ed25519_key(key)) for name, key in zip(names, keys, strict=True) if not isinstance(key, Unresolved)
        ]
        self._invalid = InvalidSignature
        self._tolerance = proof.whole_ms(tolerance)

    def hold(self, inbound: Inbound, now: datetime) -> str:
        message, signatures = _signed(inbound, now, self._tolerance)
        given = [
            decoded
            for version, code in signatures
            if version == "v1a" and len(decoded := proof.unbase64(code) or b"") == 64
        ]
        if len(given) > _MOST_SIGNATURES:
            raise Rejected(f"more than {_MOST_SIGNATURES} v1a signatures")
        for name, key in self._keys:
            for signature in given:
                try:
                    key.verify(signature, message)
                except self._invalid:
                    continue
                return name
        raise Rejected("no v1a signature fits")

    def sign(self, draft: proof.Draft, now: datetime) -> None:
        raise ValueError("only the sender can sign for public_key: it alone holds the private key")


class Adapter:
    """Standard Webhooks' signatures and events."""

    retries = True
    never = frozenset({"stage", "environment", "branch", "locale"})
    own_actions = False
    body_proofs: tuple[tuple[str, ...], ...] = ()

    def __init__(self, config: Config) -> None:
        self._checks: list[proof.Check] = []
        if config.secret is not None:
            self._checks.append(SymmetricSignature(config.secret, config.tolerance))
        if config.public_key is not None:
            self._checks.append(AsymmetricSignature(config.public_key, config.tolerance))
        self.proof_headers = proofschema.masked(config, "webhook-signature", "svix-signature")

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        body = inbound.object()
        event = said(body.get("type"))
        model, action = dotted(event)
        change = Change(model, None, action, said(at(body, "data", "id")))
        return Description(event, (change,), occurred_at=parse_rfc3339(body.get("timestamp")))

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        return dedup.message_id(proof.hint(inbound.headers, _names(inbound.headers)[0]))


def dotted(event: str | None) -> tuple[str | None, str | None]:
    """`customer.subscription.updated` as model and action."""
    model, _, action = (event or "").rpartition(".")
    return model or None, action.casefold() or None
