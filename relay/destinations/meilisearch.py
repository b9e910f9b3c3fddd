"""Meilisearch's indexes: https://www.meilisearch.com/docs/reference/api/documents"""

from __future__ import annotations

from typing import Literal

from relay.authschema import Bearer
from relay.destination import Target
from relay.preset import Filling, IndexPreset
from relay.wireschema import Url


class Config(IndexPreset):
    """Keeps an index like the content."""

    id_key = "id"

    preset: Literal["meilisearch"]
    url: Url
    index: str

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
