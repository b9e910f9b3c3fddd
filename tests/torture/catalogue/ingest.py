"""I: senders misbehave, and every other sender is served."""

from __future__ import annotations

from tests.torture.row import Row

ROWS: tuple[Row, ...] = ()
