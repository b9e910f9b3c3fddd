"""Netlify's build hooks: https://docs.netlify.com/build/configure-builds/build-hooks/"""

from __future__ import annotations

from typing import Literal

from relay.payloadschema import Made
from relay.preset import Filling, HookPreset


class Config(HookPreset):
    """Builds a site."""

    base = "https://api.netlify.com/build_hooks/"

    preset: Literal["netlify"]
    trigger_title: str | None = None
    trigger_branch: str | None = None
    clear_cache: bool = False

    @property
    def payload(self) -> str | Made | None:
        return "empty"

    def filling(self) -> Filling:
        query = {"trigger_title": self.trigger_title, "trigger_branch": self.trigger_branch}
        given = {name: value for name, value in query.items() if value is not None}
        return Filling(self._hook_url(), query=given | ({"clear_cache": "true"} if self.clear_cache else {}))
