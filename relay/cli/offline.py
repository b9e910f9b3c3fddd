"""Reading the store where no daemon runs: the same answers as the admin side's, by the same code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.cli import ask, term

if TYPE_CHECKING:
    from relay.schema import Store as Section
    from relay.survey import Surveyor


def get(
    config: Path | None, url: str | None, token: str | None, path: str, query: Mapping[str, str] | None = None
) -> Any:
    """What `GET path` answers: the daemon's word, or where none runs and none was named, the store's."""
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
    """The store as a whole, read beside a running daemon or without one."""
    from relay.store import Unavailable, Unusable
    from relay.stores import surveyed

    section, redact = ask.store(config)
    needed(section)
    try:
        with surveyed(section.url) as found:
            yield found
    except Unusable as error:
        term.fail(redact(str(error)), term.OPERATOR)
    except Unavailable as error:
        term.fail(redact(str(error)))


def needed(section: Section) -> None:
    """End here where there is no store to read. Of a database only it can say that itself."""
    if section.path is not None and not section.path.exists():
        term.fail(f"there is no store at {section.path}: 'relay serve' makes one")


async def _read(config: Path | None, path: str, query: Mapping[str, str], unreachable: str) -> Any:
    from relay.clock import SystemClock
    from relay.store import Unavailable, Unusable
    from relay.stores import open_reader
    from relay.web import logquery, read

    section, redact = ask.store(config)
    if section.path is not None and not section.path.exists():
        term.fail(f"{unreachable}; nor is there a store to read at {section.path}")
    # On a database others may run all the same.
    none = (
        "no relay runs, and its store cannot be read"
        if section.path is not None
        else f"{unreachable}; nor can its store be read"
    )
    try:
        store = await open_reader(section.url)
    except Unusable as error:
        term.fail(redact(f"{none}: {error}"), term.OPERATOR)
    except Unavailable as error:
        term.fail(redact(f"{none} now: {error}"))
    try:
        if path == "/logs":
            return await read.logs(store, query.items(), SystemClock().now())
        return await read.log(store, path.removeprefix("/logs/"), redact, SystemClock().now())
    except logquery.BadFilter as error:
        term.fail(str(error), term.USAGE)
    except (read.NotFound, Unavailable) as error:
        term.fail(redact(str(error)))
    finally:
        await store.close()
