"""`relay logs`: deliveries, newest first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay import logtext
from relay.cli import ask, colour, completing, hint, offline, term

if TYPE_CHECKING:
    from relay.cli import screen

FILTERS = {
    "route": "Of these routes.",
    "source": "Of events of these sources.",
    "type": "Of sources of these types.",
    "model": "Of these models.",
    "stage": "Of these stages.",
    "action": "Of these actions.",
    "event": "Of these events, as their senders name them.",
    "entry-id": "Of these entries.",
    "event-id": "Of these events (evt_…).",
    "status": "pending, delivered, failed, held, merged, cancelled; also unmatched, rejected.",
    "code": "With these statuses of the destination: 500, 5xx, 200-399, >=400.",
    "q": "Ids, entries or events that begin so, or what is in an error's text.",
    "since": "Not older: a time such as 2026-11-23T20:00:00Z, or an age such as 2h.",
    "until": "Older: a time, or an age.",
    "limit": "At most so many (100; with -f 10; up to 1000).",
    "cursor": "Go on from the 'next' of an earlier --json answer.",
    "order": "desc (newest first) or asc.",
}
PAGING = ("limit", "cursor", "order")
_SINGLE = ("q", "since", "until", *PAGING)

_FLEXIBLE = ("route", "source", "event", "model", "entry_id")
_DISPENSABLE = ("model", "entry_id", "source", None, "event", "created_at")
"""Left out of a narrow terminal, in this order; at None the others become as short as they can."""


def filters(function: Callable[..., Any], leave_out: Collection[str] = ()) -> Callable[..., Any]:
    """The filters of `/logs` as options of the same names; several values with commas, or the option repeated."""
    for name, text in reversed(FILTERS.items()):
        if name not in leave_out:
            names = ("-q", "--q") if name == "q" else (f"--{name}",)
            option = click.option(
                *names,
                shell_complete=completing.FILTERS.get(name),
                help=text,
                multiple=name not in _SINGLE,
                metavar=name.upper(),
            )
            function = option(function)
    return function


def asked(given: dict[str, Any]) -> dict[str, str]:
    """The options as the query of `/logs`."""
    joined = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in given.items()}
    return {name: value for name, value in joined.items() if value}


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on with each new state as it happens, until Ctrl-C.")
@filters
@term.json_option
@term.daemon_options
@term.config_errors
def command(follow: bool, config: Path | None, url: str | None, token: str | None, as_json: bool, **given: Any) -> None:
    """List deliveries, newest first. Without a running daemon the store's file itself is read.

    With -f the newest are at the bottom, and the running daemon tells each new state: one line, or with --json one
    object a line. It goes on when the daemon was restarted.

    \b
    Examples:
      relay logs --status failed --since 2h
      relay logs --route search,audit --entry-id 1042
      relay logs -f --route search
      relay logs --status rejected         requests that did not prove themselves
      relay logs --json | jq -r '.items[].id'
    """
    query = asked(given)
    if follow:
        _follow(query, config, ask.daemon(config, url, token), as_json)
        return
    answer = offline.get(config, url, token, "/logs", query)
    if not answer["items"]:
        hint.unknown_names(
            query, config, ask.daemon(config, url, token), lambda query: offline.get(config, url, token, "/logs", query)
        )
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    room = term.width()
    click.echo(logtext.table(answer["items"]) if room is None else fitted(answer["items"], room))
    if answer["next"] is not None and sys.stderr.isatty():
        term.complain(f"there are more: --cursor {answer['next']} goes on, --limit shows up to 1000")


def _follow(query: dict[str, str], config: Path | None, daemon: ask.Daemon, as_json: bool) -> None:
    from relay.cli import follow

    for name in follow.NOT_FOLLOWED:
        if name in query:
            raise click.UsageError(f"--{name} is for lists, not for what is followed", click.get_current_context())

    def found(query: Mapping[str, str]) -> Any:
        return daemon.require("items", *daemon.get("/logs", query))

    limit = query.pop("limit", follow.NEWEST)
    follow.follow(daemon, query, limit, as_json, lambda: hint.unknown_names(query, config, daemon, found))


def fitted(items: Sequence[dict[str, Any]], room: int) -> str:
    """As much of the table as a terminal has room for; errors stand beneath their lines."""
    from relay.cli import screen

    shape = screen.best(_shapes(items), _FLEXIBLE, room)
    first, *others = screen.table(*shape, _FLEXIBLE, room)
    lines = [first]
    for item, line in zip(items, others, strict=True):
        lines.append(line)
        if item["error"]:
            lines.append(colour.paint(screen.cut(f"    {term.printable(logtext.cell(item, 'error'))}", room), "red"))
    return "\n".join(lines)


def _shapes(items: Sequence[dict[str, Any]]) -> Iterator[screen.Shape]:
    """The table with ever fewer columns."""
    shown = [column for column in logtext.COLUMNS if column != "error"]
    tight = False
    for dropped in ("", *_DISPENSABLE):
        tight = tight or dropped is None
        shown = [column for column in shown if column != dropped]
        names = {"created_at": "utc" if tight else "time (utc)", "attempts": "tries" if tight else "attempts"}
        rows = [
            [_time(item, tight) if column == "created_at" else logtext.cell(item, column) for column in shown]
            for item in items
        ]
        yield [names.get(column, column) for column in shown], rows


def _time(item: dict[str, Any], tight: bool) -> str:
    """`11-23 20:00:00`, or without the day."""
    return str(item["created_at"])[11 if tight else 5 : 19].replace("T", " ")
