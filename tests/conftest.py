"""What all tests share."""

from __future__ import annotations

import pytest

from relay import journal


@pytest.fixture(autouse=True)
def _journal_as_in_the_daemon() -> None:
    journal.configure("info", "json")
