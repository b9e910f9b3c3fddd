"""Reading the store's file where no daemon runs: the same answers as the admin side's, by the same code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.cli import ask, term

if TYPE_CHECKING:
    from relay.store import Surveyor


def get(
    config: Path | None, url: str | None, token: str | None, path: str, query: Mapping[str, str] | None = None
) -> Any:
    """What `GET path` answers: the daemon's word, or where none runs and none was named, the file's."""
    daemon = ask.daemon(config, url, token)
    try:
        status, answer = daemon.get(path, query)
    except ask.Unreachable as error:
        if url is not None:
            term.fail(str(error))
        import asyncio

        return asyncio.run(_read(config, path, query or {}, str(error)))
    return daemon.require("items" if path == "/logs" else "headers", status, answer)


@contextlib.contextmanager
def survey(config: Path | None) -> Iterator[Surveyor]:
    """The store's file as a whole, read beside a running daemon or without one."""
    from relay.store import Unavailable, Unusable
    from relay.stores import surveyed

    section = ask.load(config).config.store
    if not section.path.exists():
        term.fail(f"there is no store at {section.path}: 'relay serve' makes one")
    try:
        with surveyed(section.url) as found:
            yield found
    except Unusable as error:
        term.fail(str(error), term.OPERATOR)
    except Unavailable as error:
        term.fail(str(error))


async def _read(config: Path | None, path: str, query: Mapping[str, str], unreachable: str) -> Any:
    from relay.clock import SystemClock
    from relay.store import Unavailable, Unusable
    from relay.stores import open_reader
    from relay.web import logquery, read

    section = ask.load(config).config.store
    if not section.path.exists():
        term.fail(f"{unreachable}; nor is there a store to read at {section.path}")
    try:
        store = await open_reader(section.url)
    except Unusable as error:
        term.fail(f"no relay runs, and its store cannot be read: {error}", term.OPERATOR)
    except Unavailable as error:
        term.fail(f"no relay runs, and its store cannot be read now: {error}")
    try:
        if path == "/logs":
            return await read.logs(store, query.items(), SystemClock().now())
        return await read.log(store, path.removeprefix("/logs/"))
    except logquery.BadFilter as error:
        term.fail(str(error), term.USAGE)
    except (read.NotFound, Unavailable) as error:
        term.fail(str(error))
    finally:
        await store.close()
