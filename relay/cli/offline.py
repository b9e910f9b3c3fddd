"""Reading the store's file where no daemon runs: the same answers as the admin side's, by the same code."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.cli import term


def logs(config: Path | None, query: Mapping[str, str]) -> tuple[int, Any]:
    """What `GET /logs` would answer."""
    return asyncio.run(_ask(config, "/logs", query))


def show(config: Path | None, id_text: str) -> tuple[int, Any]:
    """What `GET /logs/<id>` would answer."""
    return asyncio.run(_ask(config, f"/logs/{id_text}", {}))


async def _ask(config: Path | None, path: str, query: Mapping[str, str]) -> tuple[int, Any]:
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.store import Unavailable, Unusable
    from relay.stores import open_reader
    from relay.web import logquery, read

    url = config_file.load(config_file.find_config(config)).config.store.url
    try:
        store = await open_reader(url)
    except (Unusable, Unavailable) as error:
        term.fail(f"no relay runs, and its store cannot be read: {error}", term.OPERATOR)
    try:
        if path == "/logs":
            return 200, await read.logs(store, query.items(), SystemClock().now())
        return 200, await read.log(store, path.removeprefix("/logs/"))
    except logquery.BadFilter as error:
        return 400, {"error": "bad_filter", "detail": str(error)}
    except read.NotFound as error:
        return 404, {"error": "not_found", "detail": str(error)}
    finally:
        await store.close()
