"""What the verbs share that do something by hand: one request for each thing that is named."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from relay.cli import ask, term

PATIENCE = 600.0  # seconds: a route may have a million deliveries, and a destination its own timeout
_SOON = 0.5  # seconds after which a person wonders


def post(daemon: ask.Daemon, path: str, query: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """The status and the answer of a POST that may take long."""
    try:
        return daemon.post(path, query, PATIENCE)
    except ask.Unreachable as error:
        term.fail(str(error))


def get(daemon: ask.Daemon, path: str, key: str) -> Any:
    """The answer to a GET, which has this key."""
    try:
        status, answer = daemon.get(path)
    except ask.Unreachable as error:
        term.fail(str(error))
    return daemon.require(key, status, answer)


def each(
    daemon: ask.Daemon,
    names: Iterable[str],
    path: Callable[[str], str],
    key: str,
    said: Callable[[str, Any], str],
    as_json: bool,
    query: Mapping[str, str] | None = None,
) -> list[Any]:
    """Do something with each of several things. Where one is not there, or its state does not allow it, that is said,
    the others go on, and in the end the verb has failed. Returns the answers of the others."""
    answers: list[Any] = []
    failures: list[Any] = []
    for name in names:
        status, answer = post(daemon, path(name), query)
        if status in (404, 409) and isinstance(answer, dict) and "detail" in answer:
            term.complain(str(answer["detail"]))
            failures.append({"id": name, **answer})
            continue
        answers.append(daemon.require(key, status, answer))
        if not as_json:
            click.echo(term.printable(said(name, answer)))
    if as_json:
        click.echo(json.dumps(answers + failures, indent=2))
    if failures:
        sys.exit(term.FAILED)
    return answers


def routes(daemon: ask.Daemon, names: Sequence[str], everything: bool) -> list[dict[str, Any]]:
    """The routes that are meant, as the daemon shows them. Nothing is done to any where one does not exist."""
    if bool(names) is everything:
        what = "--all and names exclude each other" if everything else "name routes, or say --all"
        raise click.UsageError(what, click.get_current_context())
    known = {route["name"]: route for route in get(daemon, "/routes", "routes")["routes"]}
    for name in names:
        if name not in known:
            term.fail(term.one_of("route", name, known), term.USAGE)
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show a person at a terminal that something is going on, and for how long."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        seconds = 0
        pause = _SOON
        while not done.wait(pause):
            click.echo(f"\r{what} … {seconds} s", nl=False, err=True)
            seconds += 1
            pause = 1.0
        if seconds:
            click.echo("\r\x1b[K", nl=False, err=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
