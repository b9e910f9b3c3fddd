"""Microsoft Teams' workflows that post a card when a webhook request is received.

https://support.microsoft.com/office/create-incoming-webhooks-with-workflows-for-microsoft-teams-8ae491c7-0394-4861-ba59-055e33f75498

The text goes into a RichTextBlock, which knows no Markdown, so that there is nothing to escape:
https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features
"""

from __future__ import annotations

from typing import Literal

from relay.payloadschema import Made, Template
from relay.preset import HookPreset, message

_CARD = """{{ {"type": "message", "attachments": [{
  "contentType": "application/vnd.microsoft.card.adaptive",
  "contentUrl": none,
  "content": {
    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
    "type": "AdaptiveCard",
    "version": "1.2",
    "body": [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text}]}]
  }
}]} | tojson }}"""


class Config(HookPreset):
    """Says in a channel or chat what happened."""

    base = None

    preset: Literal["teams"]

    @property
    def payload(self) -> str | Made | None:
        return Template(template=message("string", 200) + _CARD)
