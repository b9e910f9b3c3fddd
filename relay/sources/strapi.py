"""Strapi 3, 4 and 5: a static header that the operator set, `Authorization: Bearer …` or any other.

https://docs.strapi.io/cms/backend-customization/webhooks

Such a header says who sent the request, nothing about the body: use TLS. `secret` checks `X-Strapi-Signature-256:
sha256=<hex HMAC-SHA256 of the body>`, which is proposed (strapi/strapi#27268) and in no release yet.

Strapi also sends events of its own content types, such as users with their e-mail addresses; these are ignored unless
the source says `plugins: true`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from relay import dedup, proof, proofschema
from relay.clock import parse_rfc3339, rfc3339
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import SecretTexts
from relay.jsontext import at, said, whole
from relay.source import Ignored, Proof

SAMPLE = "entry.publish"

_SIGNATURE = "X-Strapi-Signature-256"
_REPEATS = timedelta(minutes=60)
_EVENT = "X-Strapi-Event"
_ENTRY_ACTIONS = {
    "entry.create": "create",
    "entry.update": "update",
    "entry.delete": "delete",
    "entry.publish": "publish",
    "entry.unpublish": "unpublish",
    "entry.draft-discard": "discard",
}
_MEDIA_ACTIONS = {"media.create": "create", "media.update": "update", "media.delete": "delete"}


class Config(proofschema.HeaderProofs):
    """A Strapi server's webhook."""

    type: Literal["strapi"]
    secret: SecretTexts | None = None
    plugins: bool = False

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "token", "headers", "secret")


class Adapter:
    """Strapi's headers and events."""

    retries = False
    never = frozenset({"environment", "branch"})
    own_actions = True
    body_proofs: tuple[tuple[str, ...], ...] = ()

    def __init__(self, config: Config) -> None:
        self._plugins = config.plugins
        self._checks = config.header_checks()
        if config.secret is not None:
            code = proof.Hmac("secret", proof.reveal(config.secret))
            self._checks.append(proof.SignedBody(_SIGNATURE, code, "sha256="))
        self.proof_headers = proofschema.masked(config, _SIGNATURE)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description | Ignored:
        body = inbound.object()
        uid = said(body.get("uid"))
        if uid is not None and not self._plugins and uid.startswith(("plugin::", "admin::")):
            return Ignored("plugin")
        event = said(body.get("event"))
        if event is None:
            sent = proof.hint(inbound.headers, _EVENT)
            event = whole(sent) if sent is not None else None
        created = body.get("createdAt")
        occurred_at = parse_rfc3339(created if created is not None else body.get("created_at"))
        locale = _locale(body.get("entry")) or _locale(body.get("entity"))
        extra = {"uid": uid} if uid is not None else {}
        # By position: it costs half as much as by name.
        return Description(event, (_change(event, body),), occurred_at, None, None, locale, extra)

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        # Every body holds the millisecond in which it was sent: only a proxy's or a person's repeat is the same again.
        return dedup.known_by(inbound.sha256, window=_REPEATS, at=description.occurred_at)


def fresh(sample: Inbound, now: datetime) -> Inbound:
    """A sample as Strapi sends it now: the body says when that is, and the entry when it was changed."""
    body, moment = sample.body, rfc3339(now)
    said_before = sample.object()
    for path in (("createdAt",), *((part, "updatedAt") for part in ("entry", "media", "release"))):
        if at(said_before, *path) is not None:
            body = proof.with_value(body, path, moment)
    return Inbound(sample.headers, body)


def _change(event: str | None, body: dict[str, Any]) -> Change:
    model = said(body.get("model"))
    if event is None:
        return Change(model)
    name = event.casefold()
    action = _ENTRY_ACTIONS.get(name)
    if action is not None:
        entry = body.get("entry")
        return Change(model, _stage(action, entry), action, _id(entry))
    if name in _MEDIA_ACTIONS:
        return Change("media", None, _MEDIA_ACTIONS[name], said(at(body, "media", "id")))
    if name == "review-workflows.updateentrystage":
        stage = said(at(body, "workflow", "stages", "to", "name"))
        return Change(model, stage.casefold() if stage is not None else None, "stage_change", _id(body.get("entity")))
    if name == "releases.publish":
        # A release that failed is sent under the same name, with `isPublished: false` and an error.
        verb = "publish" if body.get("isPublished") is True else "publish_fail"
        return Change("release", "published", verb, said(at(body, "release", "id")))
    if name == "trigger-test":
        return Change(None, None, "test", None)
    prefix, dot, _ = event.partition(".")
    return Change(model or (prefix or None if dot else None), None, name.rpartition(".")[2] or None, None)


def _stage(action: str, entry: object) -> str | None:
    if action in ("publish", "unpublish"):
        return "published"  # v4 unpublish has `publishedAt: null`, v5 sends the row that was published
    if action == "discard":
        return "draft"
    if isinstance(entry, dict):
        for key in ("publishedAt", "published_at"):
            if key in entry:
                return "draft" if entry[key] is None else "published"
    return None


def _id(entry: object) -> str | None:
    # v5's `id` is a new row at every publish; its `documentId` stays.
    return said(entry.get("documentId")) or said(entry.get("id")) if isinstance(entry, dict) else None


def _locale(entry: object) -> str | None:
    return said(entry.get("locale")) if isinstance(entry, dict) else None
