"""`relay logs -f`: each new state as it happens, a line for each, over restarts of the daemon.

The stream is opened before the newest deliveries are listed, so that nothing falls between the two; what is in both is
shown once. After a break the list says what was missed.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from relay.cli import ask, colour, completing, term

NEWEST = "10"
PATIENCE = 45.0  # seconds in which something comes: relay sends a comment every 15
NOT_FOLLOWED = ("cursor", "order", "until")
"""Filters that say where a list ends: what is followed does not."""

_FLEXIBLE = ("route", "source", "event", "entry_id")
_DISPENSABLE = ("entry_id", "source", "event", "route")  # left out of a narrow terminal, in this order
_COLUMNS = ("updated_at", "id", "status", "route", "source", "event", "entry_id", "attempts", "code", "error")
_APART = 19  # characters of an id that tell it from the others of its event
_WIDEST = 32  # a column that is wider than this once does not stay so
_MISSED = "100"
_REMEMBERED = 2000
_LONGEST_PAUSE = 8.0

Item = dict[str, Any]


def follow(
    daemon: ask.Daemon, query: dict[str, str], limit: str, as_json: bool, nothing: Callable[[], None] = lambda: None
) -> None:
    """Print what comes until Ctrl-C. A daemon that goes away is waited for, once it was there. Where there is nothing
    to begin with, `nothing` says why that may be."""
    query = {"status": ",".join(completing.STATUSES), **query}
    shown = _Shown()
    lines = _Lines(as_json)
    pause = 0.0
    while True:
        try:
            with daemon.stream("/logs/stream", query, PATIENCE) as incoming:
                if pause:
                    term.complain(f"the relay at {daemon.shown} answers again")
                pause = 0.0
                first = not shown.connected
                for item in _before(daemon, query, limit, shown):
                    lines.say(item)
                if first and not shown.latest:
                    nothing()
                for kind, data in events(incoming):
                    if kind == "lost":
                        term.complain(f"some states were passed over: {_detail(data)}")
                    elif kind == "message" and shown.new(item := json.loads(data)):
                        lines.say(item)
            why = f"the relay at {daemon.shown} ended the stream"
        except ask.Unreachable as error:
            if not shown.connected:
                term.fail(str(error))
            why = str(error).partition(": start it")[0]
        if not pause:
            term.complain(f"{why}: trying again until it answers")
        pause = min(_LONGEST_PAUSE, pause * 2 or 0.25)
        time.sleep(pause)


def events(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """The kind and the data of each event: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    kind, data = "", list[str]()
    for raw in lines:
        name, colon, value = raw.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if name == "" and not colon:
            if data:
                yield kind or "message", "\n".join(data)
            kind, data = "", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)


def _before(daemon: ask.Daemon, query: dict[str, str], limit: str, shown: _Shown) -> Iterator[Item]:
    """What there is already, as it came about: at the start the newest few, later what was missed."""
    again, shown.connected = shown.connected, True
    if not again and limit == "0":
        return
    status, answer = daemon.get("/logs", {**query, "limit": _MISSED if again else limit})
    if status >= http.client.INTERNAL_SERVER_ERROR:
        raise ask.Unreachable(f"the relay at {daemon.shown} is not ready (HTTP {status})")
    answer = daemon.require("items", status, answer)
    latest = shown.latest if again else ""
    for item in sorted(answer["items"], key=lambda item: (str(item["updated_at"]), str(item["id"]))):
        if str(item["updated_at"]) >= latest and shown.new(item):
            yield item


def _detail(data: str) -> str:
    try:
        return str(json.loads(data)["detail"])
    except (ValueError, KeyError, TypeError):
        return data


class _Shown:
    """What was shown of the last deliveries, so that no state is told twice, or after one that follows it."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[str, int, str]] = {}
        self.latest = ""
        self.connected = False

    def new(self, item: Item) -> bool:
        """Whether this state was not told yet; it counts as told from now on."""
        state = (str(item["updated_at"]), int(item["attempts"]), str(item["status"]))
        before = self._states.pop(item["id"], None)
        fresh = before is None or (state[:2] >= before[:2] and state != before)
        self._states[item["id"]] = state if fresh or before is None else before
        self.latest = max(self.latest, state[0])
        if len(self._states) > _REMEMBERED:
            del self._states[next(iter(self._states))]
        return fresh


class _Lines:
    """How states are printed: columns as wide as what they held so far."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._sizes = {**dict.fromkeys(_COLUMNS, 0), "status": len("delivered"), "code": len("200")}

    def say(self, item: Item) -> None:
        """One line, flushed."""
        if self._as_json:
            click.echo(json.dumps(item))
            return
        room = term.width()
        if room is not None:
            self._show(item, room)
            return
        cells = {column: term.plain(_cell(item, column, room)) for column in _COLUMNS}
        for column, cell in cells.items():
            self._sizes[column] = max(self._sizes[column], min(len(cell), _WIDEST))
        click.echo("  ".join(cell.ljust(self._sizes[column]) for column, cell in cells.items()).rstrip())

    def _show(self, item: Item, room: int) -> None:
        """On a terminal: what fits, and an error on a line of its own."""
        from rich.cells import cell_len

        from relay.cli import screen

        cells = {column: term.plain(_cell(item, column, room)) for column in _COLUMNS}
        for column, cell in cells.items():
            self._sizes[column] = max(self._sizes[column], min(cell_len(cell), _WIDEST))
        shown = [column for column in _COLUMNS if column != "error"]
        for dropped in _DISPENSABLE:
            if screen.total(screen.least(shown, [self._sizes[column] for column in shown], _FLEXIBLE)) <= room:
                break
            shown.remove(dropped)
        sizes = screen.fitted(shown, [self._sizes[column] for column in shown], _FLEXIBLE, room, _APART)
        parts = []
        for column, size in zip(shown, sizes, strict=True):
            # A beginning of an id is an id, too: no ellipsis stands in it.
            text = cells[column][:size] if column == "id" else cells[column]
            text = screen.padded(text, size)
            parts.append(colour.paint(text, colour.OF_WORD.get(cells[column])) if column == "status" else text)
        click.echo("  ".join(parts).rstrip())
        if item["error"]:
            click.echo(colour.paint(screen.cut(f"    {term.printable(cells['error'])}", room), "red"))


def _cell(item: Item, column: str, room: int | None) -> object:
    from relay.logtext import cell

    if column == "updated_at" and room is not None:
        return str(item[column])[11:19]
    return cell(item, column)
