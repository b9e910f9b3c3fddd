"""O: what operators and machines do to a daemon."""

from __future__ import annotations

from tests.torture.row import Row

ROWS: tuple[Row, ...] = ()
