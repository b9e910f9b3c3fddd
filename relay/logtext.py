"""The log in words: a table of items, a page about one of them. The same from `relay logs` and `relay show` as from
`/logs?format=text` and `/logs/<id>?format=text`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

from relay import plaintext

COLUMNS = (
    "id",
    "created_at",
    "status",
    "route",
    "source",
    "event",
    "model",
    "entry_id",
    "attempts",
    "code",
    "error",
)
_BODY_LINES = 6  # of a destination's answer; JSON has all that was kept


def table(items: Sequence[dict[str, Any]]) -> str:
    """A line for each item of `/logs`."""
    return plaintext.table(COLUMNS, [[cell(item, column) for column in COLUMNS] for item in items])


def cell(item: dict[str, Any], column: str) -> Any:
    """What stands in a column of the table."""
    value = item[column]
    if column == "error" and value:
        code, message = value.get("code"), value.get("message")
        return f"{code}: {message}" if code and message else code or message
    return value


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
        lines += ["", "deliveries" if answer["deliveries"] else "deliveries: none, no route wanted it"]
        for group in answer["deliveries"]:
            lines += _brief(group)
    if answer.get("headers"):
        lines += ["", "headers", *plaintext.columns(_pairs(answer["headers"]))]
    return "\n".join([*lines, *_body(answer)])


def _delivery(answer: dict[str, Any]) -> list[str]:
    lines = _section("delivery", answer["delivery"])
    if answer.get("merged"):
        lines.append(f"  sent for  {', '.join(answer['merged'])}")
    lines += ["", "attempts" if answer["attempts"] else "attempts: none yet"]
    for made in answer["attempts"]:
        lines += _attempt(made, "  ")
    return [*lines, ""]


def _brief(group: dict[str, Any]) -> list[str]:
    delivery = group["delivery"]
    lines = [plaintext.printable(f"  {delivery['id']}  {delivery['status']}  to {delivery['route']}")]
    for made in group["attempts"]:
        lines += _attempt(made, "    ")
    return lines


def _section(title: str, values: dict[str, Any]) -> list[str]:
    return [title, *plaintext.columns(((name, _value(value)) for name, value in values.items()))]


def _attempt(made: dict[str, Any], indent: str) -> list[str]:
    request, response, error = made["request"], made["response"], made["error"]
    sent = f"{request['method']} {request['url']}" if request else "nothing was sent"
    came = f"HTTP {response['status']}" if response else "no answer"
    head = f"{indent}{made['n']}  {made['started_at']}  {made['trigger']}  {sent}  {came}  {made['duration_ms']} ms"
    lines = [plaintext.printable(head)]
    deeper = indent + "   "
    if error:
        lines.append(deeper + plaintext.printable(f"{error['code']}: {error['message']}"))
    if response and response.get("body"):
        lines += plaintext.paragraph(response["body"], deeper + "| ", most=_BODY_LINES)
    elif response and response.get("body_base64"):
        lines.append(f"{deeper}| ({len(base64.b64decode(response['body_base64']))} bytes that are not text)")
    return lines


def _body(answer: dict[str, Any]) -> list[str]:
    if "body_base64" in answer:
        return [
            "",
            f"body: {len(base64.b64decode(answer['body_base64']))} bytes that are not text (JSON has them)",
        ]
    if "body" not in answer:
        return []
    if not answer["body"]:
        return ["", "body: " + ("not kept" if answer["body"] is None else "empty")]
    return ["", "body", *("  " + plaintext.printable(line) for line in answer["body"].splitlines())]


def _pairs(pairs: Iterable[list[str]]) -> list[tuple[str, str]]:
    return [(plaintext.printable(name), plaintext.printable(value)) for name, value in pairs]


def _value(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"code", "message"}:
        return plaintext.printable(f"{value['code']}: {value['message']}")
    return "-" if value is None else plaintext.printable(value if isinstance(value, str) else json.dumps(value))
