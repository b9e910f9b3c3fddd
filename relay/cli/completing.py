"""What shells complete: names out of the config, read without the rest of relay, for somebody waits at each Tab."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

STATUSES = ("pending", "delivered", "failed", "held", "merged", "cancelled", "unmatched", "rejected")
_PLACES = ("config.yaml", "/etc/relay/config.yaml")
_LARGEST = 1 << 20

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def routes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of routes; after a comma, one more."""
    found = _document(ctx).get("routes")
    names = [route.get("name") for route in found if isinstance(route, dict)] if isinstance(found, list) else []
    return _beginning(incomplete, names)


def sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of sources; after a comma, one more."""
    found = _document(ctx).get("sources")
    return _beginning(incomplete, found if isinstance(found, dict) else ())


def statuses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Words of `--status`."""
    return _beginning(incomplete, STATUSES)


def orders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Words of `--order`."""
    return _beginning(incomplete, ("asc", "desc"))


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, which the shell knows itself."""
    return [CompletionItem(incomplete, type="file")]


FILTERS: dict[str, Complete] = {"route": routes, "source": sources, "status": statuses, "order": orders}
"""By the names of the filters of `relay logs`."""


def _beginning(incomplete: str, words: Iterable[Any]) -> list[CompletionItem]:
    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(before + comma + word) for word in words if isinstance(word, str) and word.startswith(last)]


def _document(ctx: click.Context) -> dict[str, Any]:
    """What the config says, as far as it can be read: mistakes are for other verbs to tell."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with _path(ctx).open("rb") as file:
            found = yaml.load(file.read(_LARGEST), loader)  # noqa: S506 - a safe loader, in C where there is one
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _path(ctx: click.Context) -> Path:
    """As relay.config.find_config finds it, which takes longer to load than a person waits."""
    named = ctx.params.get("config") or os.environ.get("RELAY_CONFIG")
    return Path(named) if named else next((path for path in map(Path, _PLACES) if path.exists()), Path(_PLACES[0]))
