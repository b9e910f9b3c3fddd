"""`relay logs`: deliveries, newest first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, offline, term

_FILTERS = {
    "route": "routes",
    "source": "sources",
    "type": "source types",
    "model": "models",
    "stage": "stages",
    "action": "actions",
    "event": "the senders' own event names",
    "entry-id": "entries",
    "event-id": "events",
    "status": "pending, delivered, failed, held, merged, cancelled, unmatched, rejected",
    "since": "a time, or an age such as 2h",
    "until": "a time, or an age such as 2h",
    "limit": "at most so many (100, up to 1000)",
    "order": "asc or desc",
}
_COLUMNS = ("id", "created_at", "route", "source", "event", "model", "entry_id", "status", "attempts", "code", "error")


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filters of `/logs` as options of the same names; lists with commas."""
    for name, text in reversed(_FILTERS.items()):
        function = click.option(f"--{name}", help=text)(function)
    return function


@click.command("logs")
@filters
@term.json_option
@term.daemon_options
@term.config_errors
def command(config: Path | None, url: str | None, token: str | None, as_json: bool, **given: str | None) -> None:
    """List deliveries, newest first. Without a running daemon the store's file itself is read."""
    query = {name: value for name, value in given.items() if value is not None}
    try:
        status, answer = ask.daemon(config, url, token).get("/logs", query)
    except ask.Unreachable as error:
        if url is not None:
            term.fail(str(error))
        status, answer = offline.logs(config, query)
    if status != 200:
        term.fail(ask.refused(answer))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(term.table(_COLUMNS, [[_cell(item, column) for column in _COLUMNS] for item in answer["items"]]))


def _cell(item: dict[str, Any], column: str) -> Any:
    value = item[column]
    return value["code"] if column == "error" and value else value
