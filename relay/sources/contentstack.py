"""Contentstack: RSA-PSS over the body by Contentstack's own key, or an HMAC by the organisation's, or static headers.

https://www.contentstack.com/docs/developers/set-up-webhooks/secure-your-webhooks

- `X-Contentstack-Request-Signature: v1=<base64>[,v1=<base64>]`: RSA-PSS, SHA-256, MGF1-SHA-256, of the raw body, whose
  `triggered_at` is the time. The salt is 32 bytes today and was longer, so its length is recovered from the signature.
  The public key is at `https://<app host>/.well-known/public-keys.json`.
- `x-contentstack-hmac-signature: t=<seconds>,v1=<hex>[,v1=<hex>]`: HMAC-SHA256 of `<t>.<body>`. Switched off at
  Contentstack, requests fall back to the signature above, and a source that is set to `secret` refuses them.
- `X-Contentstack-Signature` is an undocumented older header. It proves nothing here.

Every attempt of a delivery is dated and signed anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, ValidatorFunctionWrapHandler, WrapValidator

from relay import dedup, proof, proofschema
from relay.clock import parse_rfc3339, rfc3339, to_ms
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import Duration, SecretTexts, Unresolved
from relay.jsontext import Malformed, at, canonical, said
from relay.source import Proof, Rejected

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

SAMPLE = "entry.publish"

_RSA_SIGNATURE = "X-Contentstack-Request-Signature"
_HMAC_SIGNATURE = "x-contentstack-hmac-signature"
_LEGACY_SIGNATURE = "X-Contentstack-Signature"
_REPEATS = timedelta(minutes=20)  # five attempts within 780 s, each of up to 30 s
_MOST_SIGNATURES = 4  # of RSA: each costs as much again for each key before anybody is known to be genuine


def _rsa_key(pem: str) -> RSAPublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # not imported where no source needs it: 10 MB of memory
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in pem:
        raise ValueError("this is a private key; public_key wants Contentstack's public one")
    try:
        key = load_pem_public_key(pem.replace("\\n", "\n").strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "not a public key in PEM (-----BEGIN RSA PUBLIC KEY----- or -----BEGIN PUBLIC KEY-----)"
        ) from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the public key is not an RSA key, which Contentstack signs with")
    return key


def _pem(value: object, handler: ValidatorFunctionWrapHandler) -> str:
    if isinstance(value, Unresolved):
        return value
    text = cast(str, handler(value))
    _rsa_key(text)
    return text


def _listed(value: object) -> object:
    if value == [] or value == ():
        raise ValueError("expected at least one value, got an empty list")
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


PublicKeys = Annotated[tuple[Annotated[str, WrapValidator(_pem)], ...], BeforeValidator(_listed)]


class Config(proofschema.HeaderProofs):
    """A webhook of a Contentstack stack."""

    omits: ClassVar[Mapping[str, frozenset[str]]] = {"environment": frozenset({"create", "update", "delete"})}

    type: Literal["contentstack"]
    public_key: PublicKeys | None = None
    secret: SecretTexts | None = None
    basic: proofschema.BasicAuth | None = None
    tolerance: Duration = timedelta(minutes=5)

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "public_key", "secret", "basic", "token", "headers")


class RequestSignature:
    """`X-Contentstack-Request-Signature` by any of the keys; any `v1` may be the one."""

    def __init__(self, pems: tuple[str, ...], tolerance: timedelta) -> None:
        names = proof.labels("public_key", len(pems))
        self._keys = [
            (name, _rsa_key(pem)) for name, pem in zip(names, pems, strict=True) if not isinstance(pem, Unresolved)
        ]
        self._tolerance = proof.whole_ms(tolerance)
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
        from cryptography.hazmat.primitives.hashes import SHA256

        self._invalid = InvalidSignature
        self._padding = PSS(MGF1(SHA256()), PSS.AUTO)
        self._hash = Prehashed(SHA256())

    def hold(self, inbound: Inbound, now: datetime) -> str:
        pairs = proof.parts(proof.sole(inbound.headers, _RSA_SIGNATURE))
        given = [decoded for name, text in pairs if name == "v1" and (decoded := proof.unbase64(text))]
        if not given:
            raise Rejected(f"the {_RSA_SIGNATURE} header has no v1 signature")
        if len(given) > _MOST_SIGNATURES:
            raise Rejected(f"the {_RSA_SIGNATURE} header has more than {_MOST_SIGNATURES} v1 signatures")
        held = self._held(given, inbound.sha256)
        if held is None:
            raise Rejected(f"the signature in {_RSA_SIGNATURE} does not fit")
        if self._tolerance:
            triggered_at = parse_rfc3339(inbound.object().get("triggered_at"))
            if triggered_at is None:
                raise Rejected("no triggered_at in the body, and a tolerance is set")
            proof.check_time(to_ms(triggered_at), now, self._tolerance)
        return held

    def _held(self, given: list[bytes], digest: bytes) -> str | None:
        for name, key in self._keys:
            for signature in given:
                if len(signature) * 8 != (key.key_size + 7) // 8 * 8:
                    continue
                try:
                    key.verify(signature, digest, self._padding, self._hash)
                except self._invalid:
                    continue
                return name
        return None

    def sign(self, draft: proof.Draft, now: datetime) -> None:
        raise ValueError("only Contentstack can sign for public_key: it alone holds the private key")


class Adapter:
    """Contentstack's signatures and events."""

    retries = True
    never: frozenset[str] = frozenset()
    own_actions = True
    body_proofs: tuple[tuple[str, ...], ...] = ()

    def __init__(self, config: Config) -> None:
        self._checks = config.header_checks()
        if config.basic is not None:
            self._checks.append(proof.BasicCredentials(config.basic))
        if config.secret is not None:
            code = proof.Hmac("secret", proof.reveal(config.secret))
            self._checks.append(proof.StampedBody(_HMAC_SIGNATURE, code, config.tolerance))
        if config.public_key is not None:
            self._checks.append(RequestSignature(config.public_key, config.tolerance))
        self.proof_headers = proofschema.masked(config, _RSA_SIGNATURE, _HMAC_SIGNATURE, _LEGACY_SIGNATURE)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        with suppress(Malformed):
            if "triggered_at" in inbound.object():
                body = proof.with_value(inbound.body, ("triggered_at",), rfc3339(now))
                inbound = Inbound(inbound.headers, body)
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        body = inbound.object()
        module, event = said(body.get("module")), said(body.get("event"))
        data = body.get("data")
        change = _change(module, event, data)
        branch = _named(at(data, "branch"), "uid")
        if module in ("branch", "branch_alias"):
            branch = change.entry_id or branch
        extra = {}
        if (api_key := said(body.get("api_key"))) is not None:
            extra["api_key"] = api_key
        if at(body, "source", "type") == "release":
            extra["via_release"] = said(at(body, "source", "uid")) or said(at(body, "source", "title")) or "true"
        return Description(
            f"{module}.{event}" if module and event else module or event,
            (change,),
            occurred_at=parse_rfc3339(body.get("triggered_at")),
            environment=_environment(data),
            branch=branch,
            locale=said(at(data, "locale")) or said(at(data, "entry", "locale")) or _published_locale(data),
            extra=extra,
        )

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        # A second publish may have the body of the first: it is a repeat only while nothing else was said of the entry.
        entry = description.common
        body = inbound.object()
        if entry.entry_id is None or _where_untold(body):
            return None
        about = [description.environment, description.branch, description.locale, entry.model, entry.entry_id]
        says = {key: value for key, value in body.items() if key != "triggered_at"}
        return Mark(dedup.digest(canonical(about)), dedup.digest(canonical(says)), _REPEATS)


def fresh(sample: Inbound, now: datetime) -> Inbound:
    """A sample as Contentstack sends it after one more change of what it is about, which says when that was. Branches,
    content types, releases and taxonomies say no such thing: two of these are the same."""
    body, data = sample.body, sample.object().get("data")
    for name, part in data.items() if isinstance(data, dict) else ():
        if said(at(part, "updated_at")) is not None:
            body = proof.with_value(body, ("data", name, "updated_at"), rfc3339(now))
    return Inbound(sample.headers, body)


_CONCISE = {"uid", "title", "locale", "_version"}
_CONCISE_TYPE = {"uid", "title"}


def concise(body: dict[str, Any]) -> dict[str, Any]:
    """The body as Contentstack makes it for a webhook with "Send concise payload".

    https://www.contentstack.com/docs/developers/set-up-webhooks/send-concise-webhook-payload
    """
    data = body.get("data")
    if not isinstance(data, dict):
        return body
    kept = {"entry": _CONCISE, "asset": _CONCISE, "content_type": _CONCISE_TYPE, "global_field": _CONCISE_TYPE}
    short = {
        key: {name: field for name, field in value.items() if name in kept[key]}
        if key in kept and isinstance(value, dict)
        else value
        for key, value in data.items()
    }
    return body | {"data": short}


# `publish.start`, `create-completed`: the docs spell both.
_PHASED = re.compile(r"(.+)[.\-]([a-z]+)")
_PHASES = {
    "success": "",
    "completed": "",
    "start": "_start",
    "started": "_start",
    "initiated": "_start",
    "fail": "_fail",
    "failed": "_fail",
    "failure": "_fail",
}
_VERBS = {"assigned": "assign", "unassigned": "unassign"}
_ENTRIES = frozenset({"entry", "entry_variant", "entry_variants", "variant", "variants"})
_DRAFTED = frozenset({"create", "update"})
_PUBLISHED = frozenset({"publish", "unpublish"})


def _change(module: str | None, event: str | None, data: Any) -> Change:
    verb, phase = _verb(event, data)
    action = verb + phase if verb is not None else None
    if module in _ENTRIES:
        model, entry_id = said(at(data, "content_type", "uid")), said(at(data, "entry", "uid"))
    elif module == "workflow":
        model, entry_id = said(at(data, "content_type", "uid")), said(at(data, "entry", "uid"))
        return Change(model, _workflow_stage(data), "stage_change", entry_id)
    elif module is None:
        return Change(None, None, action, None)
    else:  # in 2018 `data` was the content type itself
        model, entry_id = module, said(at(data, module, "uid")) or said(at(data, "uid"))
        if module == "branch_alias" and entry_id is None:
            entry_id = _named(at(data, "branch"), "uid")
    stage = None
    if verb in _PUBLISHED or (module == "release" and verb == "deploy"):
        stage = "published"
    elif verb in _DRAFTED and (module in _ENTRIES or module == "asset"):
        stage = "draft"
    return Change(model, stage, action, entry_id)


def _verb(event: str | None, data: Any) -> tuple[str | None, str]:
    """What was done, and how far it came: "" done, or `_start`, or `_fail`."""
    if event is None:
        return None, ""
    verb, phase = event.casefold(), ""
    phased = _PHASED.fullmatch(verb) if "." in verb or "-" in verb else None
    if phased is not None and phased[2] in _PHASES:
        verb, phase = phased[1], _PHASES[phased[2]]
    status = at(data, "status")
    if not phase and isinstance(status, str):
        phase = _PHASES.get(status.casefold(), "")
    return _VERBS.get(verb, verb), phase


def _where_untold(body: dict[str, Any]) -> bool:
    """Whether an entry or asset was published or unpublished, without a word of where to or from. So are assets of a
    release: deployed to staging and then to production, or once more after they were taken back, they look the same,
    also where a `map` says one environment for all."""
    module, event, data = said(body.get("module")), said(body.get("event")), body.get("data")
    content = module in _ENTRIES or module == "asset"
    return content and _verb(event, data)[0] in _PUBLISHED and _environment(data) is None


def _environment(data: Any) -> str | None:
    return _named(at(data, "environment"), "name", "uid")


def _named(value: object, *keys: str) -> str | None:
    """A thing by the first of these keys that it has, or the string that it is."""
    if not isinstance(value, dict):
        return said(value)
    for key in keys:
        text = said(value.get(key))
        if text is not None:
            return text
    return None


def _published_locale(data: Any) -> str | None:
    # An object in 2018, a list since 2019, one for each environment.
    for kind in ("entry", "asset"):
        details = at(data, kind, "publish_details")
        locales = {said(at(detail, "locale")) for detail in (details if isinstance(details, list) else [details])}
        if len(locales) == 1:
            locale = locales.pop()
            if locale is not None:
                return locale
    return None


def _workflow_stage(data: Any) -> str | None:
    # The wire form is not public: take what names a stage, wherever it may stand.
    for place in (
        ("workflow_stage",),
        ("stage",),
        ("workflow", "workflow_stage"),
        ("workflow", "stage"),
        ("workflow", "log"),
        ("entry", "_workflow"),
    ):
        stage = _named(at(data, *place), "name", "title", "uid")
        if stage is not None:
            return stage.casefold()
    return None
