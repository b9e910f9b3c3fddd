"""GitHub's `repository_dispatch`: https://docs.github.com/rest/repos/repos#create-a-repository-dispatch-event"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import orjson
from pydantic import BeforeValidator
from yarl import URL

from relay.authschema import Bearer
from relay.event import Event
from relay.fields import SecretText, Unresolved, got
from relay.payload import Content, Payload, failed
from relay.payloadschema import Jmespath, Made
from relay.preset import Filling, Preset
from relay.window import Collected

_MOST_KEYS = 10  # of client_payload
_MOST_BYTES = 64 << 10  # of it all

_REPO = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/(?!\.{1,2}$)[A-Za-z0-9_.-]+")
_EVENT_TYPE = re.compile(r"[^'\\\x00-\x1f\x7f]{1,100}")
# Ten keys: as many as GitHub takes.
_SENT = ("id", "source", "event", "action", "model", "stage", "entry_id", "locale", "environment", "changes")


def _repo(value: object) -> object:
    if isinstance(value, Unresolved):
        return "owner/repository"
    if not isinstance(value, str) or _REPO.fullmatch(value) is None:
        raise ValueError(f"expected owner/repository, got {got(value)}")
    return value


def _event_type(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Unresolved) and _EVENT_TYPE.fullmatch(value) is None:
        raise ValueError(f"expected 1 to 100 characters without quotes and backslashes, got {got(value)}")
    return value


class Config(Preset):
    """Runs the workflows of a repository that wait for this type of event."""

    preset: Literal["github-dispatch"]
    repo: Annotated[str, BeforeValidator(_repo)]
    token: SecretText
    event_type: Annotated[str, BeforeValidator(_event_type)] = "relay"

    @property
    def payload(self) -> str | Made | None:
        fields = ", ".join(f"{name}: event.{name}" for name in _SENT)
        return Jmespath(jmespath=f"{{event_type: '{self.event_type}', client_payload: {{{fields}}}}}")

    def filling(self) -> Filling:
        return Filling(
            URL(f"https://api.github.com/repos/{self.repo}/dispatches"),
            headers={"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
            auth=Bearer(type="bearer", token=self.token),
        )

    def checked(self, payload: Payload) -> Payload:
        def render(event: Event, event_id: str, collected: Collected | None = None) -> Content:
            content = payload(event, event_id, collected)
            reason = _refused(content.body)
            if reason is not None:
                raise failed(f"GitHub would refuse the payload: {reason}")
            return content

        return render


def _refused(body: bytes) -> str | None:
    """Why GitHub would not take a body."""
    if len(body) >= _MOST_BYTES:
        return f"it has {len(body)} bytes, and must have less than 64 KiB"
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "it is not JSON"
    if not isinstance(document, dict) or not isinstance(document.get("event_type"), str):
        return "it has no event_type"
    sent = document.get("client_payload", {})
    if not isinstance(sent, dict):
        return "client_payload is not an object"
    if len(sent) > _MOST_KEYS:
        return f"client_payload has {len(sent)} keys, and may have {_MOST_KEYS}"
    return None
