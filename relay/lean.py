"""Imports of libraries without what the daemon never uses of them: it is there for years, and so is what it imports."""

from __future__ import annotations

import contextlib
import importlib
import mimetypes
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import ModuleType

_PLUGINS = "pydantic.plugin._loader"


def imports() -> None:
    """Import aiohttp: 4 MB less than it costs otherwise.

    It makes a TLS context that trusts all authorities of this machine, for those who give it none; relay's connections
    have their own (`relay.tls`), and one that had not would trust nobody. Its lists that can be frozen are compiled,
    and take the library of C++ along; they are looked at where an application is put together, never for a request. For
    files that it could serve it reads the machine's lists of file types; relay says itself what each answer is. And it
    is a program as well, whose arguments nobody gives.
    """
    _without_plugins()
    with _stand_in("html.entities", html5=_Entities()):
        import html  # noqa: F401
    with _environment(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull, FROZENLIST_NO_EXTENSIONS="1"):
        import aiohttp
    with _no_lists_of_types(), _stand_in("argparse", ArgumentParser=None):
        import aiohttp.web  # noqa: F401


@contextlib.contextmanager
def not_found(name: str) -> Iterator[None]:
    """As if a package were not installed: structlog takes rich along where it finds it, for tracebacks that relay does
    not print."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks what may not be imported
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that libraries read while they are imported; afterwards all is as it was."""
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_lists_of_types() -> Iterator[None]:
    """Python knows the types of files that are common, and reads no list of them."""
    kept = mimetypes.knownfiles[:]
    mimetypes.knownfiles.clear()
    try:
        yield
    finally:
        mimetypes.knownfiles.extend(kept)


class _StandIn(ModuleType):
    """Something in the place of a module: what others take from it as a rule. Should a later version of theirs take
    more, they get it, and nothing but memory is lost."""

    def __init__(self, name: str, **contents: object) -> None:
        super().__init__(name)
        self.__dict__.update(contents)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _stand_in(name: str, **contents: object) -> Iterator[None]:
    """A stand-in while others import; afterwards the module can be imported as ever."""
    if name in sys.modules:
        yield
        return
    stand_in = sys.modules[name] = _StandIn(name, **contents)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


class _Entities(Mapping[str, str]):
    """The 2,231 names that characters have in HTML, read when `html.unescape` asks for the first. It is never called
    here; `html.escape` is, and both are of one module."""

    @cached_property
    def _all(self) -> Mapping[str, str]:
        from html.entities import html5

        return html5

    def __getitem__(self, name: str) -> str:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def _without_plugins() -> None:
    """Of all packages that are installed pydantic asks what they say of themselves, whether one would take part in
    checks of values. None has any business in relay's; and to ask takes the packages for metadata, CSV and zip along.
    """
    if _PLUGINS not in sys.modules:
        sys.modules[_PLUGINS] = _StandIn(_PLUGINS, get_plugins=tuple)
