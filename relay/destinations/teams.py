"""Microsoft Teams' workflows that post a card when a webhook request is received.

https://support.microsoft.com/office/create-incoming-webhooks-with-workflows-for-microsoft-teams-8ae491c7-0394-4861-ba59-055e33f75498

The text goes into a RichTextBlock, which knows no Markdown, so that there is nothing to escape:
https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features
"""

from __future__ import annotations

from typing import ClassVar, Literal

from relay.payloadschema import Made, Template
from relay.preset import HookPreset, message

_START = """{"type": "message", "attachments": [{
  "contentType": "application/vnd.microsoft.card.adaptive",
  "contentUrl": null,
  "content": {
    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
    "type": "AdaptiveCard",
    "version": "1.2",
    "body": ["""
_LINE = '{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": {{ %s | tojson }}}]}'
_END = "]}}]}"
_NOTICE = (
    _START
    + "{% for line in lines %}"
    + _LINE % "line | truncate(1000, true, '…', 0)"
    + "{% if not loop.last %},{% endif %}{% endfor %}"
    + _END
)


class Config(HookPreset):
    """Says in a channel or chat what happened."""

    base = None
    notice: ClassVar[str] = _NOTICE

    preset: Literal["teams"]

    @property
    def payload(self) -> str | Made | None:
        return Template(template=message("string", 200) + _START + _LINE % "text" + _END)
