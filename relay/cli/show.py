"""`relay show`: everything about one thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, offline, term


@click.command("show")
@click.argument("id_text", metavar="ID")
@term.json_option
@term.daemon_options
@term.config_errors
def command(id_text: str, config: Path | None, url: str | None, token: str | None, as_json: bool) -> None:
    """Show a delivery, an event or a rejected request. Without a running daemon the store's file itself is read."""
    try:
        status, answer = ask.daemon(config, url, token).get(f"/logs/{id_text}")
    except ask.Unreachable as error:
        if url is not None:
            term.fail(str(error))
        status, answer = offline.show(config, id_text)
    if status != 200:
        term.fail(ask.refused(answer))
    click.echo(json.dumps(answer, indent=2, ensure_ascii=True) if as_json else _text(answer))


def _text(answer: dict[str, Any]) -> str:
    """What a person reads first, first."""
    lines: list[str] = []
    for key in ("delivery", "rejection", "event"):
        if isinstance(answer.get(key), dict):
            lines += [f"{key}:", *(f"  {name}: {_value(value)}" for name, value in answer[key].items())]
    groups = answer.get("deliveries") or ([answer] if "attempts" in answer else [])
    for group in groups:
        if group is not answer:
            delivery = group["delivery"]
            lines.append(f"delivery {delivery['id']} to {delivery['route']}: {delivery['status']}")
        lines += [_attempt(made) for made in group["attempts"]]
    lines += ["headers:", *(f"  {name}: {_value(value)}" for name, value in answer["headers"])]
    if "body" in answer:
        lines += ["body:", "  " + _value(answer["body"])]
    return "\n".join(lines)


def _attempt(made: dict[str, Any]) -> str:
    request, response, error = made["request"], made["response"], made["error"]
    said = f"HTTP {response['status']}" if response else ""
    why = f"{error['code']}: {error['message']}" if error else "ok"
    sent = f"{request['method']} {request['url']}" if request else "nothing was sent"
    return term.printable(
        f"attempt {made['n']} ({made['trigger']}) {made['started_at']} {made['duration_ms']} ms  {sent}  {said} {why}"
    )


def _value(value: Any) -> str:
    return "-" if value is None else term.printable(value if isinstance(value, str) else json.dumps(value))
