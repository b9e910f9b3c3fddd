"""Typesense's collections: https://typesense.org/docs/latest/api/documents.html"""

from __future__ import annotations

from typing import Literal

from relay.destination import Target
from relay.preset import Filling, IndexPreset, Segment
from relay.wireschema import Url


class Config(IndexPreset):
    """Keeps a collection like the content."""

    id_key = "id"

    preset: Literal["typesense"]
    url: Url
    collection: Segment

    def filling(self) -> Filling:
        return Filling(self.url, headers={"X-TYPESENSE-API-KEY": self.key.reveal()})

    def upsert(self, entry_id: str) -> Target:
        url = self.place("/collections/{}/documents", self.collection, query={"action": "upsert"})
        return Target(self.method, url, bodiless=False)

    def delete(self, entry_id: str) -> Target:
        # What is not there need not be deleted: a draft may go that was never published.
        gone = {"ignore_not_found": "true"}
        url = self.place("/collections/{}/documents/{}", self.collection, entry_id, query=gone)
        return Target("DELETE", url, bodiless=True)
