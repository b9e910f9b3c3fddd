"""Discord's webhooks: https://docs.discord.com/developers/resources/webhook#execute-webhook"""

from __future__ import annotations

from typing import ClassVar, Literal

from relay.payloadschema import Made, Template
from relay.preset import HookPreset, message

_LONGEST = 80  # of each part, so that the whole stays below the 2,000 characters that Discord takes

# Cut so that it stays below 2,000 characters also when each of them is escaped. Flag 4: no previews of links.
_NOTICE = """{% set cut = lines | join("\\n") | truncate(980, true, '…', 0) -%}
{{ {
  "content": cut.split("\\n") | map("markdown") | join("\\n"),
  "allowed_mentions": {"parse": []}, "flags": 4
} | tojson }}"""


class Config(HookPreset):
    """Says in a channel what happened, without calling anybody by name."""

    base = "https://discord.com/api/webhooks/"
    notice: ClassVar[str] = _NOTICE

    preset: Literal["discord"]

    @property
    def payload(self) -> str | Made | None:
        sent = '{{ {"content": text, "allowed_mentions": {"parse": []}} | tojson }}'
        return Template(template=message("markdown", _LONGEST) + sent)
