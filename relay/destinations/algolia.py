"""Algolia's indices: https://www.algolia.com/doc/rest-api/search/add-or-update-object and …/delete-object"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator
from yarl import URL

from relay.destination import Target
from relay.fields import Unresolved, got
from relay.preset import Filling, IndexPreset, Segment


def _application(value: object) -> object:
    if isinstance(value, Unresolved):
        return "UNRESOLVED"
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9]+", value) is None:
        raise ValueError(f"expected an application ID of letters and digits, got {got(value)}")
    return value


class Config(IndexPreset):
    """Keeps an index like the content."""

    id_key = "objectID"
    # The one other PUT of a single segment below an index (DELETE has none), by which whoever names an entry would say
    # what the index finds and shows: https://www.algolia.com/doc/rest-api/search/set-settings
    taken: ClassVar[Mapping[str, str]] = {"settings": "that is where the settings of the index are"}

    preset: Literal["algolia"]
    application: Annotated[str, BeforeValidator(_application)]
    index: Segment

    def filling(self) -> Filling:
        headers = {"X-Algolia-Application-Id": self.application, "X-Algolia-API-Key": self.key.reveal()}
        return Filling(URL(f"https://{self.application}.algolia.net"), method="PUT", headers=headers)

    def upsert(self, entry_id: str) -> Target:
        return Target(self.method, self.place("/1/indexes/{}/{}", self.index, entry_id), bodiless=False)

    def delete(self, entry_id: str) -> Target:
        return Target("DELETE", self.place("/1/indexes/{}/{}", self.index, entry_id), bodiless=True)
