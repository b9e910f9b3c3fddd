"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from relay import journal
from tests.postgres import Cluster, Database, cluster


def pytest_configure() -> None:
    """Programs that tests start heed Ctrl-C, also where who runs the tests, as a shell does in the background, has it
    ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)  # tests/packaging marks its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soaks, what is shipped, and what pages tell readers to type are tried only where they are asked for."""
    out = {name for name in ("soak", "packages", "typed") if name not in config.getoption("markexpr")}
    left_out = {item for item in items if any(item.get_closest_marker(name) for name in out)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
    # What takes long begins first: begun last, it would be waited for with processors that have nothing to do.
    kept = (item for item in items if item not in left_out)
    items[:] = sorted(kept, key=lambda item: item.get_closest_marker("long") is None)


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
