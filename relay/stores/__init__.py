"""One module or package per kind of store, found by the scheme of `store.url`."""

from __future__ import annotations

import contextlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

from relay.clock import Clock
from relay.shared import Server
from relay.store import LogReader, Store, Unusable
from relay.survey import Surveyor

_DRIVERS = {"postgresql": ("psycopg", "psycopg[binary]>=3.2")}
"""By store: the package that speaks to it where that is one more than relay itself needs, and how pip knows it. (Not as
relay's extra: by that name PyPI has another program.)"""


_OLDEST_SQLITE = (3, 37, 0)
"""The first that has STRICT tables."""


def lacking(url: str) -> str | None:
    """What has to be installed for the store that `store.url` names, if something has. Imports it."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return _newer_sqlite()
    if scheme not in _DRIVERS:
        return None
    driver, known_as = _DRIVERS[scheme]
    try:
        import_module(driver)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == driver
        why = "" if absent else f" ({' '.join(str(error).split())})"
        return f"{scheme}: needs {driver}: pip install '{known_as}'{why}"
    return None


def _newer_sqlite() -> str | None:
    import sqlite3  # which relays on PostgreSQL do without

    # It comes with Python, or with the system. With an older one the first statement would say nothing that helps.
    if sqlite3.sqlite_version_info >= _OLDEST_SQLITE:
        return None
    oldest = ".".join(map(str, _OLDEST_SQLITE[:2]))
    return (
        f"sqlite: needs SQLite {oldest} or later, and {sys.executable} has {sqlite3.sqlite_version}: run relay with a"
        " Python that has a newer one, or its container image"
    )


async def open_store(
    url: str,
    clock: Clock,
    on_wait: Callable[[str], None] | None = None,
    on_migrate: Callable[[int, int], None] | None = None,
) -> Store:
    """Open the store that `store.url` names, as in `sqlite:relay.db`.

    `on_wait` is told once what it waits for: who holds the store, or why a database cannot be reached yet.
    `on_migrate` is told, on another thread, from which version to which an older store is brought, before that begins.
    """
    module, rest = _backend(url)
    store: Store = await module.open_url(rest, clock, on_wait, on_migrate)
    return store


async def open_reader(url: str) -> LogReader:
    """Read the store that `store.url` names while no relay runs on it. Raises Unusable."""
    module, rest = _backend(url)
    reader: LogReader = await module.open_reader(rest)
    return reader


@contextlib.contextmanager
def surveyed(url: str) -> Iterator[Surveyor]:
    """The store that `store.url` names, to be looked at as a whole. Raises Unusable, Unavailable."""
    module, rest = _backend(url)
    with module.survey(rest) as found:
        yield found


def server(url: str) -> Server | None:
    """What the server says on which the store that `store.url` names lies; None where there is none. Raises Unusable,
    Unavailable."""
    module, rest = _backend(url)
    found: Server | None = module.server(rest) if hasattr(module, "server") else None
    return found


def _backend(url: str) -> tuple[ModuleType, str]:
    scheme, colon, rest = url.partition(":")
    known = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    if not colon or scheme not in known:
        raise Unusable(f"store.url: no store is called '{scheme}': there is {', '.join(known)}")
    if (needed := lacking(url)) is not None:
        raise Unusable(f"store.url: {needed}")
    return import_module(f"{__name__}.{scheme}"), rest
