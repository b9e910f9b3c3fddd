"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay import journal
from tests.postgres import Cluster, Database, cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs are made only where they are asked for."""
    if "soak" in config.getoption("markexpr"):
        return
    long = [item for item in items if item.get_closest_marker("soak") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(autouse=True)
def _journal_as_in_the_daemon() -> None:
    journal.configure("info", "json")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The PostgreSQL of all tests of this process: one may stop it and start it again, and leaves it running."""
    with cluster() as made:
        yield made


@pytest.fixture
def database(postgres: Cluster) -> Iterator[Database]:
    """A database of PostgreSQL with nothing in it."""
    with postgres.database() as made:
        yield made
