"""S: attacks on what relay guards."""

from __future__ import annotations

from tests.torture.row import Row

ROWS: tuple[Row, ...] = ()
