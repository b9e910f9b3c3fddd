"""Cloudflare Pages' deploy hooks: https://developers.cloudflare.com/pages/configuration/deploy-hooks/"""

from __future__ import annotations

from typing import Literal

from relay.payloadschema import Made
from relay.preset import HookPreset


class Config(HookPreset):
    """Deploys a project."""

    base = "https://api.cloudflare.com/client/v4/pages/webhooks/deploy_hooks/"

    preset: Literal["cloudflare-pages"]

    @property
    def payload(self) -> str | Made | None:
        return "empty"
