"""Discord's webhooks: https://docs.discord.com/developers/resources/webhook#execute-webhook"""

from __future__ import annotations

from typing import Literal

from relay.payloadschema import Made, Template
from relay.preset import HookPreset, message

_LONGEST = 80  # of each part, so that the whole stays below the 2,000 characters that Discord takes


class Config(HookPreset):
    """Says in a channel what happened, without calling anybody by name."""

    base = "https://discord.com/api/webhooks/"

    preset: Literal["discord"]

    @property
    def payload(self) -> str | Made | None:
        sent = '{{ {"content": text, "allowed_mentions": {"parse": []}} | tojson }}'
        return Template(template=message("markdown", _LONGEST) + sent)
