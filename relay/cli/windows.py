"""`relay windows`: the windows that are being collected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, completing, hand, prefix, term

_DONE = {"flush": "is sent now", "hold": "is held, and takes events, until it is flushed", "cancel": "is dropped"}
_COLUMNS = ("id", "route", "events", "opened_at", "due_at", "held")


@click.command("windows")
@click.argument("action", type=click.Choice(["list", *_DONE]), default="list", metavar="[list|flush|hold|cancel]")
@click.argument("ids", nargs=-1, metavar="[ID…]")
@click.option("--route", multiple=True, shell_complete=completing.routes, help="The windows of these routes.")
@click.option("--all", "everything", is_flag=True, help="All windows.")
@click.option("--dry-run", is_flag=True, help="Only list the windows that are meant.")
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    action: str,
    ids: tuple[str, ...],
    route: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    as_json: bool,
    config: Path | None,
    url: str | None,
    token: str | None,
) -> None:
    """List the windows (debounce, batch) that still take events, send them now (flush), keep them (hold), or drop
    them (cancel).

    \b
    Examples:
      relay windows
      relay windows flush dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay windows hold --route rebuild-www --dry-run
    """
    context = click.get_current_context()
    prefix.checked(ids, "dlv_")
    ways = bool(ids) + bool(route) + everything
    if ways > 1:
        raise click.UsageError("name windows, or say --route, or --all", context)
    if action != "list" and not ways:
        raise click.UsageError(f"say which windows to {action}: their ids, --route, or --all", context)
    if action == "list" and ids:
        raise click.UsageError("'relay show ID' shows one", context)
    daemon = ask.daemon(config, url, token)
    ids = hand.named(daemon, ids)
    if action != "list" and ids and not dry_run:
        _act(daemon, action, ids, as_json)
        return
    windows: list[dict[str, Any]] = hand.get(daemon, "/windows", "items")["items"]
    if route:
        windows = _of_routes(daemon, windows, [name for names in route for name in names.split(",")])
    if ids:
        windows = [window for window in windows if window["id"] in ids]
    if action != "list" and not dry_run:
        _act(daemon, action, [window["id"] for window in windows], as_json)
    elif as_json:
        click.echo(json.dumps({"items": windows}, indent=2))
    else:
        click.echo(_listing(windows, term.width()))


def _act(daemon: ask.Daemon, action: str, ids: tuple[str, ...] | list[str], as_json: bool) -> None:
    hand.each(daemon, ids, lambda id_text: f"/windows/{id_text}/{action}", "delivery", _said(action), as_json)


def _of_routes(daemon: ask.Daemon, windows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """The windows of routes, of which those that are held may be gone from the config."""
    held = {window["route"] for window in windows}
    if not held.issuperset(names):
        routes = hand.get(daemon, "/routes", "removed")
        known = [route["name"] for route in routes["routes"]]
        held.update(known, (route["name"] for route in routes["removed"]))  # what those had open may be closed by now
        for name in names:
            if name not in held:
                term.fail(term.one_of("route", name, known), term.USAGE)
    return [window for window in windows if window["route"] in names]


def _said(action: str) -> Any:
    def said(id_text: str, answer: Any) -> str:
        if action == "flush" and answer["delivery"]["status"] == "held":
            return f"{id_text}: is closed, and held until its route may send"
        return f"{id_text}: {_DONE[action]}"

    return said


def _listing(windows: list[dict[str, Any]], room: int | None) -> str:
    if room is None:
        return term.table(_COLUMNS, [_row(window, _COLUMNS) for window in windows])
    from relay.cli import screen

    tight = [column for column in _COLUMNS if column != "opened_at"]
    shapes: list[screen.Shape] = [
        (_COLUMNS, [_row(window, _COLUMNS) for window in windows]),
        (_COLUMNS, [_row(window, _COLUMNS, short=True) for window in windows]),
        (tight, [_row(window, tight, short=True) for window in windows]),
    ]
    return "\n".join(screen.table(*screen.best(shapes, ("route",), room), ("route",), room))


def _row(window: dict[str, Any], columns: Sequence[str], *, short: bool = False) -> list[Any]:
    row = {**window, "events": len(window["events"]), "held": "yes" if window["held"] else "no"}
    if short:  # `11-23 20:00:00`
        row |= {name: str(window[name])[5:19].replace("T", " ") for name in ("opened_at", "due_at")}
    return [row[column] for column in columns]
