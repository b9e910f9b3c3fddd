"""Prismic: the webhook's `secret` in the JSON body, or a custom header.

https://prismic.io/docs/webhooks

The body must be parsed before it is proven, and the secret is taken out of it before anything is kept. One request may
hold many changes; of a document it does not say whether it was published or unpublished, so the action is `change`
unless the source's `action` knows better (Prismic advises one webhook for each).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

from relay import dedup, proof, proofschema
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import SecretTexts
from relay.jsontext import at, said
from relay.source import MOST_CHANGES, Proof, summed_up

SAMPLE = "document-published"

_SECRET = ("secret",)
_REPEATS = timedelta(minutes=60)  # it tries five times, ten minutes apart
_PARTS = (("releases", "release"), ("tags", "tag"), ("masks", "custom_type"), ("experiments", "experiment"))
_VERBS = (("addition", "create"), ("update", "update"), ("deletion", "delete"))

_Kind = tuple[str, str | None, str]
"""Model, stage and action."""


class Config(proofschema.HeaderProofs):
    """A webhook of a Prismic repository."""

    type: Literal["prismic"]
    secret: SecretTexts | None = None
    action: Literal["publish", "unpublish"] | None = None

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "secret", "token", "headers")

    def ill_taken(self) -> Iterator[tuple[str, str]]:
        off = "and turns the webhook off after five in a row"
        if self.respond == 202:
            yield "respond", f"Prismic takes anything but 200 for a failure, {off}"
        if self.rate_limit is not None:
            yield "rate_limit", f"Prismic counts each request that this refuses as a failure, {off}"


class BodySecret(proof.BodySecret):
    """The secret, in a body that has to be an object."""

    def hold(self, inbound: Inbound, now: datetime) -> str:
        inbound.object()
        return super().hold(inbound, now)


class Adapter:
    """Prismic's secret and events."""

    retries = True
    never = frozenset({"environment", "branch", "locale"})
    own_actions = True
    body_proofs: tuple[tuple[str, ...], ...] = (_SECRET,)

    def __init__(self, config: Config) -> None:
        self._document_action = config.action or "change"
        self._checks: list[proof.Check] = []
        if config.secret is not None:
            self._checks.append(BodySecret("secret", _SECRET, config.secret))
        self._checks += config.header_checks()
        self.proof_headers = proofschema.masked(config)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        body = inbound.object()
        event = said(body.get("type"))
        extra = {
            name: text
            for name, key in (("domain", "domain"), ("master_ref", "masterRef"))
            if (text := said(body.get(key))) is not None
        }
        if _is_test(event):
            return Description(event, (Change(action="test"),), extra=extra)
        lists = [(kind, items) for kind, items in self._lists(body) if isinstance(items, list) and items]
        count = sum(len(items) for _, items in lists)
        if count > MOST_CHANGES:
            return summed_up(Description(event, tuple(Change(*kind) for kind, _ in lists), extra=extra), count)
        changes = tuple(Change(*kind, _entry_id(item)) for kind, items in lists for item in items)
        return Description(event, changes or (Change(action="change"),), extra=extra)

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        if _is_test(said(inbound.object().get("type"))):  # whatever a `map` makes of it: its bodies are all the same
            return None
        return dedup.known_by(inbound.sha256, window=_REPEATS)

    def _lists(self, body: dict[str, Any]) -> Iterator[tuple[_Kind, Any]]:
        """What the body lists, each with what it says of every item."""
        yield ("document", "published", self._document_action), body.get("documents")
        for part, model in _PARTS:
            changed = body.get(part)
            if changed and isinstance(changed, dict):
                for key, verb in _VERBS:
                    yield (model, None, verb), changed.get(key)


def fresh(sample: Inbound, now: datetime) -> Inbound:
    """A sample as Prismic sends it now: whatever is published makes a new master ref, and a change of a release a new
    ref of its own."""
    body = sample.object()
    if "masterRef" in body:
        return Inbound(sample.headers, proof.with_value(sample.body, ("masterRef",), _ref(now)))
    releases = body.get("releases")
    if not isinstance(releases, dict) or not releases:
        return sample
    for listed in releases.values():
        for release in listed:
            release["ref"] = _ref(now) + "".join(release["ref"].partition("~")[1:])
    return Inbound(sample.headers, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def _ref(now: datetime) -> str:
    """A ref as Prismic makes them, such as X6qn-RIAACMAVge1: twelve bytes, of which the first four are the second."""
    seconds, micros = int(now.timestamp()), now.microsecond
    return urlsafe_b64encode(seconds.to_bytes(4) + b"\x12\x00\x00\x23\x00" + micros.to_bytes(3)).decode()


def _is_test(event: str | None) -> bool:
    return event is not None and event.casefold() == "test-trigger"


def _entry_id(item: object) -> str | None:
    """The id of what is listed, as an object or by its id alone."""
    return said(item) or said(at(item, "id"))
