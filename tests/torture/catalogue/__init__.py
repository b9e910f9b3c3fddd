"""The catalogue: every fault and attack that relay is tried with, in order."""

from __future__ import annotations

from tests.torture.catalogue import durability, ingest, network, operations, security
from tests.torture.row import Row

ROWS: tuple[Row, ...] = (
    *durability.ROWS,
    *network.ROWS,
    *ingest.ROWS,
    *operations.ROWS,
    *security.ROWS,
)
