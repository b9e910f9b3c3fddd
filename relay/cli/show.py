"""`relay show`: everything about one thing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from relay.cli import colour, offline, prefix, term

_BODY_LINES = 6  # of a destination's answer; --json has all that was kept


@click.command("show")
@click.argument("id_text", metavar="ID")
@term.json_option
@term.daemon_options
@term.config_errors
def command(id_text: str, config: Path | None, url: str | None, token: str | None, as_json: bool) -> None:
    """Show a delivery (dlv_…), an event (evt_…) or a rejected request (rej_…), with all attempts and the body.

    Without a running daemon the store's file itself is read.

    \b
    Examples:
      relay show dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay show evt_01M85CA5GE9CERZWDHANEQSGCC --json | jq .event.changes
    """
    prefix.checked([id_text], "dlv_", "evt_", "rej_")
    [found] = prefix.whole([id_text], lambda query: offline.get(config, url, token, "/logs", query))
    answer = offline.get(config, url, token, f"/logs/{found}")
    click.echo(json.dumps(answer, indent=2) if as_json else page(answer))


def page(answer: dict[str, Any]) -> str:
    """What a person reads first, first."""
    lines: list[str] = []
    if isinstance(answer.get("rejection"), dict):
        lines += _section("rejected request", answer["rejection"])
    if isinstance(answer.get("delivery"), dict):
        lines += _delivery(answer)
    if isinstance(answer.get("event"), dict):
        lines += _section("event", answer["event"])
    if "deliveries" in answer:
        some = bool(answer["deliveries"])
        lines += ["", colour.paint("deliveries", "bold") + ("" if some else ": none, no route wanted it")]
        for group in answer["deliveries"]:
            lines += _brief(group)
    if answer.get("headers"):
        lines += ["", colour.paint("headers", "bold"), *term.columns(_pairs(answer["headers"]))]
    return "\n".join([*lines, *_body(answer)])


def _delivery(answer: dict[str, Any]) -> list[str]:
    lines = _section("delivery", answer["delivery"])
    if answer.get("merged"):
        lines.append(f"  sent for  {', '.join(answer['merged'])}")
    lines += ["", colour.paint("attempts", "bold") + ("" if answer["attempts"] else ": none yet")]
    for made in answer["attempts"]:
        lines += _attempt(made, "  ")
    return [*lines, ""]


def _brief(group: dict[str, Any]) -> list[str]:
    delivery = group["delivery"]
    head = f"{term.printable(delivery['id'])}  {_status(delivery['status'])}  to {term.printable(delivery['route'])}"
    lines = [f"  {head}"]
    for made in group["attempts"]:
        lines += _attempt(made, "    ")
    return lines


def _section(title: str, values: dict[str, Any]) -> list[str]:
    pairs = ((name, _status(value) if name == "status" else _value(value)) for name, value in values.items())
    return [colour.paint(title, "bold"), *term.columns(pairs)]


def _status(value: Any) -> str:
    return colour.word(_value(value))


def _attempt(made: dict[str, Any], indent: str) -> list[str]:
    request, response, error = made["request"], made["response"], made["error"]
    sent = f"{request['method']} {request['url']}" if request else "nothing was sent"
    came = colour.paint(f"HTTP {response['status']}" if response else "no answer", "red" if error else "green")
    head = term.printable(f"{made['n']}  {made['started_at']}  {made['trigger']}  {sent}")
    lines = [f"{indent}{head}  {came}  {made['duration_ms']} ms"]
    deeper = indent + "   "
    if error:
        lines.append(deeper + colour.paint(term.printable(f"{error['code']}: {error['message']}"), "red"))
    if response and response.get("body"):
        lines += term.paragraph(response["body"], deeper + "| ", most=_BODY_LINES)
    elif response and response.get("body_base64"):
        lines.append(f"{deeper}| ({len(base64.b64decode(response['body_base64']))} bytes that are not text)")
    return lines


def _body(answer: dict[str, Any]) -> list[str]:
    if "body_base64" in answer:
        return ["", f"body: {len(base64.b64decode(answer['body_base64']))} bytes that are not text (--json has them)"]
    if "body" not in answer:
        return []
    if not answer["body"]:
        return ["", "body: " + ("not kept" if answer["body"] is None else "empty")]
    return ["", colour.paint("body", "bold"), *("  " + term.printable(line) for line in answer["body"].splitlines())]


def _pairs(pairs: Iterable[list[str]]) -> list[tuple[str, str]]:
    return [(term.printable(name), term.printable(value)) for name, value in pairs]


def _value(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"code", "message"}:
        return term.printable(f"{value['code']}: {value['message']}")
    return "-" if value is None else term.printable(value if isinstance(value, str) else json.dumps(value))
