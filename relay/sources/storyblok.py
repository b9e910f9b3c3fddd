"""Storyblok: `webhook-signature` is the HMAC-SHA1 of the body in lower-case hex, by the webhook's secret.

https://www.storyblok.com/tp/webhook-secret-with-different-technologies

A webhook without a secret sends the header empty: that never passes. Tasks of the Tasks app are never signed; they
carry only what their dialog asks for, so their secret travels as a dialog value:
https://www.storyblok.com/docs/concepts/webhooks

Bodies name the action but not always what it happened to: `created` and `deleted` exist for several kinds of content,
and then the ids tell, and only where there are none the unsigned `x-storyblok-topic`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from relay import proof, proofschema
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import SecretTexts
from relay.jsontext import Malformed, at, said, whole
from relay.source import Proof, Rejected, SourceConfig

SAMPLE = "story.published"

_SIGNATURE = "webhook-signature"
_TOPIC = "x-storyblok-topic"
_DIALOG_SECRET = ("dialog_values", "secret")


class Config(SourceConfig):
    """A Storyblok space, or its tasks."""

    type: Literal["storyblok"]
    secret: SecretTexts | None = None
    body_secret: proofschema.BodySecretKeys | None = None

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "secret", "body_secret")


class _Meaning(NamedTuple):
    event: str
    model: str
    action: str
    stage: str | None
    ids: tuple[str, ...]


# Actions that only one kind of content has. The names of legacy webhooks are their events' names too.
_STAGE_CHANGE = ("story", "stage_change", None, ("story_id",))
_UNIQUE = {
    "published": _Meaning("story.published", "story", "publish", "published", ("story_id",)),
    "unpublished": _Meaning("story.unpublished", "story", "unpublish", "published", ("story_id",)),
    "moved": _Meaning("story.moved", "story", "move", None, ("story_id",)),
    "entries_updated": _Meaning("datasource.entries_updated", "datasource", "update", None, ("datasource_slug",)),
    "datasource_entry_saved": _Meaning("datasource_entry_saved", "datasource", "update", None, ("datasource_slug",)),
    "replaced": _Meaning("asset.replaced", "asset", "update", None, ("asset_id",)),
    "restored": _Meaning("asset.restored", "asset", "restore", None, ("asset_id",)),
    "added": _Meaning("user.added", "user", "create", None, ("user_id",)),
    "removed": _Meaning("user.removed", "user", "delete", None, ("user_id",)),
    "roles_updated": _Meaning("user.roles_updated", "user", "update", None, ("user_id",)),
    "stage.changed": _Meaning("stage.changed", *_STAGE_CHANGE),
    "workflow_stage_changed": _Meaning("workflow_stage_changed", *_STAGE_CHANGE),
    "resolved": _Meaning("discussion.resolved", "discussion", "resolve", None, ("discussion_id", "story_id")),
    "comment_created": _Meaning("discussion.comment_created", "comment", "create", None, ("comment_id", "story_id")),
    "comment_updated": _Meaning("discussion.comment_updated", "comment", "update", None, ("comment_id", "story_id")),
    "comment_deleted": _Meaning("discussion.comment_deleted", "comment", "delete", None, ("comment_id", "story_id")),
    "deployed": _Meaning("pipeline.deployed", "pipeline", "deploy", None, ("branch_id",)),
    "branch_deployed": _Meaning("branch_deployed", "pipeline", "deploy", None, ("branch_id",)),
    "merged": _Meaning("release.merged", "release", "merge", "published", ("release_id",)),
    "release_merged": _Meaning("release_merged", "release", "merge", "published", ("release_id",)),
    "task_execution": _Meaning("task_execution", "task", "execute", None, ()),
}

# `created` and `deleted` by what they happened to.
_SHARED = {
    "created": {
        "asset": _Meaning("asset.created", "asset", "create", None, ("asset_id",)),
        "discussion": _Meaning("discussion.created", "discussion", "create", None, ("discussion_id", "story_id")),
        "story": _Meaning("discussion.created", "discussion", "create", None, ("story_id",)),
    },
    "deleted": {
        "asset": _Meaning("asset.deleted", "asset", "delete", None, ("asset_id",)),
        "discussion": _Meaning("discussion.deleted", "discussion", "delete", None, ("discussion_id", "comment_id")),
        "story": _Meaning("story.deleted", "story", "delete", None, ("story_id",)),
    },
}
_KINDS = (("asset_id", "asset"), ("discussion_id", "discussion"), ("comment_id", "discussion"), ("story_id", "story"))


class Adapter:
    """Storyblok's signature and events."""

    retries = False
    never = frozenset({"environment", "locale"})
    own_actions = True

    def __init__(self, config: Config) -> None:
        self._signature: proof.Check | None = None
        self._dialog: proof.Check | None = None
        path: proof.JsonPath = _DIALOG_SECRET
        if config.secret is not None:
            self._signature = proof.SignedBody(
                _SIGNATURE, proof.Hmac("secret", proof.reveal(config.secret), algorithm="sha1")
            )
        if config.body_secret is not None:
            path = config.body_secret.path or path
            self._dialog = proof.BodySecret("body_secret", path, config.body_secret.value)
        self.body_proofs: tuple[tuple[str, ...], ...] = (path,)
        self.proof_headers = proofschema.masked(config, _SIGNATURE)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify((self._check_for(inbound),), inbound, now)

    def _check_for(self, inbound: Inbound) -> proof.Check:
        if self._dialog is None:
            if self._signature is None:
                raise Rejected("the source has no proof configured")
            return self._signature  # over bytes alone: nothing is parsed before it holds
        try:
            task = "task" in inbound.object()
        except Malformed:
            if self._signature is None:
                raise
            task = False  # what is no task must be signed, also where it is no JSON
        if task:
            return self._dialog
        if self._signature is None:
            raise Rejected("not a task, and only body_secret is configured")
        return self._signature

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        try:
            checks = [self._check_for(inbound)] if self._dialog or self._signature else []
        except Rejected as rejected:
            raise ValueError(f"this cannot be signed: {rejected.reason}") from None
        return proof.sign(checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        body = inbound.object()
        extra = {}
        for key in ("space_id", "full_slug"):
            text = said(body.get(key))
            if text is not None:
                extra[key] = text
        sent = body.get("action")
        action = whole(sent) if isinstance(sent, str) and sent else None
        # Whoever knows a dialog's secret may start tasks, not publish stories: a task is a task whatever it says.
        known = _UNIQUE["task_execution"] if "task" in body else _meaning(body, action, inbound)
        if known is None:
            return _unknown(action, inbound, extra)
        stage, branch = known.stage, None
        if known.action == "stage_change":
            name = said(body.get("workflow_stage_name"))
            stage = name.casefold() if name is not None else None
        elif known.action == "deploy":
            branch = said(body.get("branch_id"))
        entry_id = None
        for key in known.ids:
            entry_id = said(body.get(key))
            if entry_id is not None:
                break
        if known.action == "execute":
            entry_id = said(at(body, "task", "id"))
        change = Change(known.model, stage, known.action, entry_id)
        return Description(known.event, (change,), None, None, branch, None, extra)  # by name it costs twice as much

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        # Sent once, whatever the answer. Two publishes of a story have one body, and nothing says which it is.
        return None


def _meaning(body: dict[str, Any], action: str | None, inbound: Inbound) -> _Meaning | None:
    if action is None:
        return None
    verb = action.casefold()
    unique = _UNIQUE.get(verb)
    if unique is not None:
        return unique
    shared = _SHARED.get(verb)
    if shared is None:
        return None
    for key, kind in _KINDS:
        if said(body.get(key)) is not None:
            return shared[kind]
    return shared.get(_topic(action, inbound).partition(".")[0])


def _topic(action: str | None, inbound: Inbound) -> str:
    """The unsigned topic, where it does not contradict the signed action."""
    topic = proof.hint(inbound.headers, _TOPIC)
    if topic is None or (action is not None and not topic.endswith("." + action)):
        return ""
    return whole(topic)


def _unknown(action: str | None, inbound: Inbound, extra: dict[str, str]) -> Description:
    topic = _topic(action, inbound)
    kind, dot, _ = topic.partition(".")
    change = Change(kind if dot and kind else None, None, action.casefold() if action is not None else None)
    return Description(topic or action or "unknown", (change,), extra=extra)
