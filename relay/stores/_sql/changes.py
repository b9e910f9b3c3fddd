"""What a transaction changed of what `/logs` shows, for those who follow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.delivery import LogItem
from relay.ids import Ids
from relay.stores._sql import rows

MOST = 5000
"""Rows of one transaction that are told; past that it is only said that there were more."""


class Changed:
    """What one transaction changed."""

    __slots__ = ("_deliveries", "_rejected", "_unmatched", "more")

    def __init__(
        self,
        deliveries: Sequence[Any] = (),
        unmatched: Sequence[Any] = (),
        rejected: Sequence[Any] = (),
        more: bool = False,
    ) -> None:
        self._deliveries = deliveries
        self._unmatched = unmatched
        self._rejected = rejected
        self.more = more or MOST in (len(deliveries), len(unmatched), len(rejected))
        """Whether there may be others, which nobody is told of."""

    def __bool__(self) -> bool:
        return bool(self._deliveries or self._unmatched or self._rejected or self.more)

    def items(self, ids: Ids) -> list[LogItem]:
        """As `/logs` shows them."""
        return [
            *(rows.to_unmatched_item(row, ids, rows.entries(row[-1])) for row in self._unmatched),
            *(rows.to_rejected_item(row, ids) for row in self._rejected),
            *(rows.to_item(row, ids, rows.entries(row[-1])) for row in self._deliveries),
        ]
