"""Vercel's deploy hooks: https://vercel.com/docs/deploy-hooks"""

from __future__ import annotations

from typing import Literal

from relay.payloadschema import Made
from relay.preset import HookPreset


class Config(HookPreset):
    """Deploys a project."""

    base = "https://api.vercel.com/v1/integrations/deploy/"

    preset: Literal["vercel"]

    @property
    def payload(self) -> str | Made | None:
        return "empty"
