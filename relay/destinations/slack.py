"""Slack's incoming webhooks: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""

from __future__ import annotations

from typing import Literal

from relay.payloadschema import Made, Template
from relay.preset import HookPreset, message


class Config(HookPreset):
    """Says in a channel what happened."""

    base = "https://hooks.slack.com/services/"

    preset: Literal["slack"]

    @property
    def payload(self) -> str | Made | None:
        return Template(template=message("slack", 200) + '{{ {"text": text} | tojson }}')
