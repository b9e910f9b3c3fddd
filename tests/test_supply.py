"""What is imported is declared, and what is declared is locked by hash."""

from __future__ import annotations

import pytest

from tests.torture import supply
from tests.torture.row import TOP


def test_relay_declares_what_it_imports_and_imports_what_it_declares() -> None:
    assert supply.imported() == supply.declared()


@pytest.mark.parametrize("lock", supply.LOCKS)
def test_all_that_is_installed_is_known_by_its_hash(lock: str) -> None:
    assert supply.unhashed(TOP / lock) == []
    assert supply.declared() <= supply.pinned(TOP / lock).keys()


def test_the_tests_run_on_what_is_shipped() -> None:
    shipped, tested = (supply.pinned(TOP / lock) for lock in supply.LOCKS)
    assert shipped.items() <= tested.items()
