"""`relay test`: what a destination says to a test event."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, completing, hand, term

_BODY_LINES = 6


@click.command("test")
@click.argument("names", nargs=-1, metavar="[ROUTE…]", shell_complete=completing.routes)
@click.option("--all", "everything", is_flag=True, help="All routes of the config.")
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    names: tuple[str, ...], everything: bool, as_json: bool, config: Path | None, url: str | None, token: str | None
) -> None:
    """Send a test event to the destinations of routes, and show what they answer. Nothing of it is kept.

    The event says of itself that it is a test (action: test); a destination that does not look at it does what it
    does for any other, so a build hook builds. A search index is asked to delete a document that is not there. Paused
    and disabled routes can be tested too.

    \b
    Examples:
      relay test rebuild-www
      relay test --all
    """
    daemon = ask.daemon(config, url, token)
    failed = False
    made = []
    for route in hand.routes(daemon, names, everything):
        name = route["name"]
        with hand.waiting(f"testing {name}"):
            status, answer = hand.post(daemon, f"/routes/{name}/test")
        tried = daemon.require("duration_ms", status, answer)
        failed = failed or tried["error"] is not None
        made.append({"route": name, **tried})
        if not as_json:
            click.echo("\n".join(_lines(name, tried)))
    if as_json:
        click.echo(json.dumps(made, indent=2))
    if failed:
        sys.exit(term.FAILED)


def _lines(name: str, tried: dict[str, Any]) -> list[str]:
    request, response, error = tried["request"], tried["response"], tried["error"]
    came = f"HTTP {response['status']}" if response else "no answer"
    sent = f"{request['method']} {request['url']}" if request else "nothing was sent"
    lines = [
        term.printable(f"{name}: {'ok' if error is None else 'FAILED'}, {came}, {tried['duration_ms']} ms, {sent}")
    ]
    if error:
        lines.append(term.printable(f"  {error['code']}: {error['message']}"))
    if response and response.get("body"):
        lines += term.paragraph(response["body"], "  | ", most=_BODY_LINES)
    elif response and response.get("body_base64"):
        lines.append("  | (bytes that are not text)")
    return lines
