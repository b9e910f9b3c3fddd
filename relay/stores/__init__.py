"""One module or package per kind of store, found by the scheme of `store.url`."""

from __future__ import annotations

import contextlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

from relay.clock import Clock
from relay.store import LogReader, Store, Surveyor, Unusable


async def open_store(
    url: str,
    clock: Clock,
    on_wait: Callable[[str], None] | None = None,
    on_migrate: Callable[[int, int], None] | None = None,
) -> Store:
    """Open the store that `store.url` names, as in `sqlite:relay.db`.

    `on_wait` is told once who holds the store, when another process does and there is something to wait for.
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


def _backend(url: str) -> tuple[ModuleType, str]:
    scheme, colon, rest = url.partition(":")
    known = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    if not colon or scheme not in known:
        raise Unusable(f"store.url: no store is called '{scheme}': there is {', '.join(known)}")
    return import_module(f"{__name__}.{scheme}"), rest
