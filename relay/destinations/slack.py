"""Slack's incoming webhooks: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks

Escaped, a text calls nobody by name; that *bold* stays as it is takes `mrkdwn`:
https://api.slack.com/reference/messaging/payload. What it links to is not shown in the channel.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from relay.payloadschema import Made, Template
from relay.preset import HookPreset, message

_NOTICE = """{{ {
  "text": lines | join("\\n") | truncate(3000, true, '…', 0) | slack,
  "mrkdwn": false, "unfurl_links": false, "unfurl_media": false
} | tojson }}"""
_SENT = '{{ {"text": text, "mrkdwn": false, "unfurl_links": false, "unfurl_media": false} | tojson }}'


class Config(HookPreset):
    """Says in a channel what happened."""

    base = "https://hooks.slack.com/services/"
    notice: ClassVar[str] = _NOTICE

    preset: Literal["slack"]

    @property
    def payload(self) -> str | Made | None:
        return Template(template=message("slack", 200) + _SENT)
