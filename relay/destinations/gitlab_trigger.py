"""GitLab's pipeline triggers: https://docs.gitlab.com/ci/triggers/"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field
from yarl import URL

from relay.fields import SecretText, Unresolved
from relay.payloadschema import Form, Made
from relay.preset import Filling, Preset, Segment
from relay.secret import Secret
from relay.wireschema import Url

_SENT = ("id", "source", "event", "action", "model", "stage", "entry_id", "locale", "environment")


def _filled(value: str) -> str:
    if not value and not isinstance(value, Unresolved):
        raise ValueError("expected a text, got ''")
    return value


Text = Annotated[str, AfterValidator(_filled)]


class Config(Preset):
    """Runs a pipeline. What happened is in the variables RELAY_ID, RELAY_SOURCE, RELAY_ACTION and so on."""

    preset: Literal["gitlab-trigger"]
    project: Segment
    token: SecretText
    ref: Text = "main"
    variables: Mapping[str, str] = Field(default_factory=dict)
    server: Url = URL("https://gitlab.com")

    @property
    def payload(self) -> str | Made | None:
        # What the config says goes out as it is, as a secret does: quoted in an expression it might not be masked.
        form: dict[str, Secret | str] = {"token": self.token, "ref": Secret(self.ref)}
        form |= {f"variables[RELAY_{name.upper()}]": f"event.{name}" for name in _SENT}
        return Form(form=form | {f"variables[{name}]": Secret(value) for name, value in self.variables.items()})

    def filling(self) -> Filling:
        project = quote(self.project, safe="")
        return Filling(URL(f"{str(self.server).rstrip('/')}/api/v4/projects/{project}/trigger/pipeline", encoded=True))
