"""Imports of libraries without what the daemon never uses of them: it is there for years, and so is what it imports."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType

_PLUGINS = "pydantic.plugin._loader"


def imports() -> None:
    """Import structlog and aiohttp: 6 MB and a tenth of a second less than it costs otherwise.

    structlog takes rich along where it finds it, for tracebacks that relay does not print. aiohttp makes a TLS context
    that trusts all authorities of this machine, for those who give it none; relay's connections have their own
    (`relay.tls`), and one that had not would trust nobody.
    """
    _without_plugins()
    with _not_found("rich"):
        import structlog  # noqa: F401
    with _no_authorities():
        import aiohttp  # noqa: F401


@contextlib.contextmanager
def _not_found(name: str) -> Iterator[None]:
    """As if a package were not installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks what may not be imported
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def _no_authorities() -> Iterator[None]:
    """OpenSSL finds nobody to trust, by the variables that tell it where to look."""
    kept = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(kept, os.devnull))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _without_plugins() -> None:
    """Of all packages that are installed pydantic asks what they say of themselves, whether one would take part in
    checks of values. None has any business in relay's; and to ask takes the packages for metadata, CSV and zip along.

    Where a later pydantic asks in another way, it does so, and nothing but memory is lost.
    """
    if _PLUGINS not in sys.modules:
        none = ModuleType(_PLUGINS)
        none.__dict__["get_plugins"] = tuple
        sys.modules[_PLUGINS] = none
