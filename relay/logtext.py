"""The log in words: a table of items, a page about one of them. The same from `relay logs` and `relay show` as from
`/logs?format=text` and `/logs/<id>?format=text`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
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
Paint = Callable[[str, str], str]
"""Makes words stand out where that can be done: in a style (`bold`, `red`, `green`), or as a state is shown."""
_BODY_LINE = 64 << 10  # characters of each line of an event's body
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


def _unpainted(text: str, style: str) -> str:
    return text


def page(answer: dict[str, Any], paint: Paint = _unpainted) -> str:
    """Everything about one thing: what a person reads first, first."""
    lines: list[str] = []
    if isinstance(answer.get("rejection"), dict):
        lines += _section("rejected request", answer["rejection"], paint)
    if isinstance(answer.get("delivery"), dict):
        lines += _delivery(answer, paint)
    if isinstance(answer.get("event"), dict):
        lines += _section("event", answer["event"], paint)
    if "deliveries" in answer:
        some = bool(answer["deliveries"])
        lines += ["", paint("deliveries", "bold") + ("" if some else ": none, no route wanted it")]
        for group in answer["deliveries"]:
            lines += _brief(group, paint)
    if answer.get("headers"):
        lines += ["", paint("headers", "bold"), *plaintext.columns(_pairs(answer["headers"]))]
    return "\n".join([*lines, *_body(answer, paint)])


def _delivery(answer: dict[str, Any], paint: Paint) -> list[str]:
    lines = _section("delivery", answer["delivery"], paint)
    if answer.get("waits_for"):
        lines.append(f"  waits for  {_value(answer['waits_for'])}")
    if answer.get("merged"):
        lines.append(f"  carries  {', '.join(answer['merged'])}")
    none = ": none yet" if answer["delivery"]["status"] in ("pending", "held") else ": none"
    lines += ["", paint("attempts", "bold") + ("" if answer["attempts"] else none)]
    for made in answer["attempts"]:
        lines += _attempt(made, "  ", paint)
    return [*lines, ""]


def _brief(group: dict[str, Any], paint: Paint) -> list[str]:
    delivery = group["delivery"]
    status = paint(_value(delivery["status"]), delivery["status"])
    lines = [f"  {_value(delivery['id'])}  {status}  to {_value(delivery['route'])}"]
    for made in group["attempts"]:
        lines += _attempt(made, "    ", paint)
    return lines


def _section(title: str, values: dict[str, Any], paint: Paint) -> list[str]:
    pairs = (
        (name, paint(_value(value), value) if name == "status" else _value(value)) for name, value in values.items()
    )
    return [paint(title, "bold"), *plaintext.columns(pairs)]


def _attempt(made: dict[str, Any], indent: str, paint: Paint) -> list[str]:
    request, response, error = made["request"], made["response"], made["error"]
    sent = f"{request['method']} {request['url']}" if request else "nothing was sent"
    came = paint(f"HTTP {response['status']}" if response else "no answer", "red" if error else "green")
    head = plaintext.printable(f"{made['n']}  {made['started_at']}  {made['trigger']}  {sent}")
    lines = [f"{indent}{head}  {came}  {made['duration_ms']} ms"]
    deeper = indent + "   "
    if error:
        lines.append(deeper + paint(plaintext.printable(f"{error['code']}: {error['message']}"), "red"))
    if response and response.get("body"):
        lines += plaintext.paragraph(response["body"], deeper + "| ", most=_BODY_LINES)
    elif response and response.get("body_base64"):
        lines.append(f"{deeper}| ({len(base64.b64decode(response['body_base64']))} bytes that are not text)")
    return lines


def _body(answer: dict[str, Any], paint: Paint) -> list[str]:
    if "body_base64" in answer:
        size = len(base64.b64decode(answer["body_base64"]))
        return ["", f"body: {size} bytes that are not text (JSON has them)"]
    if "body" not in answer:
        return []
    if not answer["body"]:
        return ["", "body: " + ("not kept" if answer["body"] is None else "empty")]
    lines = (plaintext.printable(line, _BODY_LINE) for line in answer["body"].splitlines())
    return ["", paint("body", "bold"), *("  " + line for line in lines)]


def _pairs(pairs: Iterable[list[str]]) -> list[tuple[str, str]]:
    return [(plaintext.printable(name), plaintext.printable(value)) for name, value in pairs]


def _value(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"code", "message"}:
        return plaintext.printable(f"{value['code']}: {value['message']}")
    return "-" if value is None else plaintext.printable(value if isinstance(value, str) else json.dumps(value))
