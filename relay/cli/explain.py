"""`relay explain`: what would happen to an event, and why. Runs the code of production, and sends nothing."""

from __future__ import annotations

import base64
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli import colour, completing, offline, prefix, term

if TYPE_CHECKING:
    from relay.event import Event, Inbound
    from relay.routing import Route
    from relay.runtime import Runtime

_BODY_LINES = 8  # of what would be sent; --json has all of it


@click.command("explain")
@click.argument("what", metavar="FILE|ID", shell_complete=completing.files)
@click.option("--source", shell_complete=completing.sources, help="The source that FILE would have come to.")
@click.option(
    "--expect",
    multiple=True,
    metavar="ROUTE",
    shell_complete=completing.routes,
    help="Fail unless ROUTE would take it: a check for CI.",
)
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    what: str,
    source: str | None,
    expect: tuple[str, ...],
    config: Path | None,
    url: str | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Explain what the routes of the config make of an event, clause by clause, and what would be sent.

    FILE is a request as JSON ({"headers": [[name, value], …], "body": "…"}, or "body_base64"), or the bare body of
    one; - is standard input. ID is an event or a delivery that relay has stored, explained under today's config;
    without a running daemon the store's file itself is read.

    A signature that is wrong, or too old by now, is said, and the routes are explained all the same: --expect fails
    only when a route does not want the event, or relay would leave the event out or could not read it.

    \b
    Examples:
      relay explain --source blog event.json
      relay explain --source blog event.json --expect rebuild-www
      relay explain evt_01M85CA5GE9CERZWDHANEQSGCC
    """
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.explanation import redacted
    from relay.runtime import build

    now = SystemClock().now()
    runtime = build(config_file.load(config_file.find_config(config)), 1, now)
    for route in expect:
        if route not in runtime.routing.routes:
            term.fail(f"--expect: {term.one_of('route', route, runtime.routing.routes)}", term.USAGE)
    if what == "-" or Path(what).exists():
        if source is None:
            term.fail(f"say with --source which source it would have come to: {', '.join(runtime.sources)}", term.USAGE)
        if source not in runtime.sources:
            term.fail(f"--source: {term.one_of('source', source, runtime.sources)}", term.USAGE)
        report = _of_file(runtime, source, _inbound(what), now)
    elif what[:4] in ("evt_", "dlv_", "rej_"):
        prefix.checked([what], "evt_", "dlv_")
        [found] = prefix.whole([what], lambda query: offline.get(config, url, token, "/logs", query))
        report = _of_id(runtime, found, offline.get(config, url, token, f"/logs/{found}"), now)
    else:
        term.fail(f"{what}: there is no such file, nor is it an id such as evt_… or dlv_…", term.USAGE)
    report = redacted(report, runtime.redact)
    click.echo(json.dumps(report, indent=2) if as_json else page(report, term.width() or 100))
    missing = [name for name in expect if name not in report["routes_matched"]]
    if missing:
        term.fail(f"expected {' and '.join(missing)} to take the event")


def _inbound(what: str) -> Inbound:
    """A request from a file: the whole of it as JSON, or its body alone."""
    from multidict import CIMultiDict

    from relay.event import Inbound
    from relay.sending import recorded

    try:
        raw = sys.stdin.buffer.read() if what == "-" else Path(what).read_bytes()
        request = recorded(raw)
    except OSError as error:
        term.fail(f"{what}: cannot be read: {error.strerror}", term.USAGE)
    except ValueError as error:
        term.fail(f"{what}: {error}", term.USAGE)
    return request if request is not None else Inbound(CIMultiDict({"Content-Type": "application/json"}), raw)


def _of_file(runtime: Runtime, source_name: str, inbound: Inbound, now: datetime) -> dict[str, Any]:
    """Verify, describe and route a request from a file."""
    from hashlib import sha256

    from relay.bodyproof import without_proofs
    from relay.event import Event
    from relay.ids import EVENT, EventId, Ids
    from relay.jsontext import Malformed
    from relay.source import Ignored, RateLimited, Rejected

    source = runtime.sources[source_name]
    report: dict[str, Any] = {
        "source": source.name,
        "type": source.type,
        "answer": source.respond,
        "verified": True,
        "proofs": [],
        "reason": None,
        "ignored": None,
        "body_kept": True,
        "event": None,
        "routes": [],
        "routes_matched": [],
    }
    try:
        proof = source.verify(inbound, now)
        report["proofs"] = list(proof.held)
        if source.trusting:
            report |= {"verified": None, "reason": "verify: none asks for no proof"}
    except Rejected as error:
        report |= {"answer": 401, "verified": False, "reason": error.reason}
    except Malformed as error:
        return report | {"answer": 400, "verified": False, "reason": str(error)}
    except RateLimited:
        pass  # it proved itself, and this is no request
    try:
        inbound = without_proofs(inbound, source.adapter.body_proofs)
        description = source.describe(inbound)
    except Malformed as error:
        if report["answer"] == 401:
            return report | {"reason": f"{report['reason']}; nor can its body be read: {error}"}
        return report | {"answer": 400, "reason": str(error)}
    if isinstance(description, Ignored):
        return report | {"ignored": description.reason}
    ids = Ids(0)
    event = Event(
        id=EventId(ids.draw()),
        source=source.name,
        type=source.type,
        received_at=now,
        description=description,
        headers=source.shown_headers(inbound.headers),
        body=inbound.body,
        sha256=sha256(inbound.body).digest(),
        document=inbound.document_or_none(),
    )
    return report | _routes(runtime, event, ids.text(EVENT, event.id), now)


def _of_id(runtime: Runtime, id_text: str, answer: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Route a stored event again, under today's config."""
    from relay.event import event_from_json

    if answer.get("event") is None:
        term.fail(f"the event of {id_text} is no longer kept: there is nothing to explain")
    body = answer.get("body")
    kept = body is not None or "body_base64" in answer
    content = body.encode() if body is not None else base64.b64decode(answer.get("body_base64", ""))
    event = event_from_json(answer["event"], answer["headers"], content)
    report: dict[str, Any] = {
        "source": event.source,
        "type": event.type,
        "answer": None,
        "verified": True,
        "proofs": [],
        "reason": "when it was accepted",
        "ignored": None,
        "body_kept": kept,
    }
    return report | _routes(runtime, event, answer["event"]["id"], now, kept)


def _routes(runtime: Runtime, event: Event, event_id: str, now: datetime, kept: bool = True) -> dict[str, Any]:
    """What each route makes of the event. Without a body that was `kept` nothing would be sent."""
    from relay import explanation
    from relay.pattern import Subject

    routes = explanation.of_routes(runtime, Subject.of(event, event_id))
    unknown = explanation.leave_open(runtime, routes, explanation.gone_from(event.headers)) if not kept else ()
    if unknown:
        term.fail(
            f"the body of {event_id} is no longer kept, and where looks at it: whether {' and '.join(unknown)} would"
            " take it cannot be told, and 'relay replay' refuses it"
        )
    for entry in routes:
        if entry["matched"] and kept:
            entry["request"] = _request(runtime.routing.routes[entry["route"]], event, event_id, now)
    order = [entry["route"] for entry in routes if entry["matched"]]
    return {"event": event.as_json(event_id), "routes": routes, "routes_matched": order}


def _request(route: Route, event: Event, event_id: str, now: datetime) -> dict[str, Any]:
    """What would be sent, as anyone may see it."""
    from relay.delivery import Delivery
    from relay.destination import Unsendable
    from relay.ids import DeliveryId
    from relay.web import shape

    delivery = Delivery(DeliveryId(0), route.name, event, now, now)
    try:
        outbound = route.destination.render(delivery, "dlv_" + "0" * 26, event_id, now)
    except Unsendable as error:
        return {"error": shape.failure(error.failure)}
    request = route.destination.shown(outbound)
    return {
        "method": request.method,
        "url": request.url,
        "headers": [list(pair) for pair in request.headers],
        **shape.text("body", route.destination.shown_body(outbound)),
    }


# --- for people -------------------------------------------------------------------------------------------------------


def page(report: dict[str, Any], room: int) -> str:
    """The report as a page of text."""
    lines = [f"source {report['source']}, type {report['type']}", *_verdict(report)]
    event = report.get("event")
    if event is None:
        return "\n".join(lines)
    lines += ["", *_event(event)]
    for route in report["routes"]:
        lines += ["", *_route(route, len(event["changes"]), room)]
    took = ", ".join(report["routes_matched"]) or "no route"
    return "\n".join([*lines, "", f"taken by {took}"])


def _verdict(report: dict[str, Any]) -> list[str]:
    """Whether relay would take it."""
    reason = term.printable(report["reason"]) if report["reason"] else ""
    if report["answer"] == 400:
        return [colour.paint("REFUSED with 400", "red") + f": {reason}"]
    if report["verified"] is False:
        rest = "" if report["event"] is None and not report["ignored"] else ". Were it genuine:"
        lines = [colour.paint("REJECTED with 401", "red") + f": {reason}{rest}"]
    elif report["verified"] is None:
        lines = [colour.paint("not verified", "yellow") + f": {reason}"]
    else:
        lines = [colour.paint("verified", "green") + f": {reason or ', '.join(report['proofs'])}"]
    if not report["body_kept"]:
        lines.append("its body is no longer kept: nothing would be sent, and 'relay replay' refuses it")
    if report["ignored"]:
        lines.append(f"ignored, not stored: {term.printable(report['ignored'])}")
    return lines


def _event(event: dict[str, Any]) -> list[str]:
    """The description; what its sender did not say in one line at the end."""
    hidden = ("id", "received_at", "source", "type", "changes", "extra")
    said = [(name, value) for name, value in event.items() if name not in hidden and value is not None]
    several = len(event["changes"]) > 1
    of_each = event["changes"][0].keys() if several else ()  # null here means that the changes differ
    silent = [name for name, value in event.items() if value is None and name not in hidden and name not in of_each]
    pairs = [(name, term.printable(str(value))) for name, value in said]
    pairs += [(term.printable(f"extra.{name}"), term.printable(_json(value))) for name, value in event["extra"].items()]
    if several:
        for number, change in enumerate(event["changes"], 1):
            words = [f"{name}={value}" for name, value in change.items() if value is not None]
            pairs.append((f"change {number}", term.printable("  ".join(words)) or "(nothing said)"))
    if silent:
        pairs.append(("not said", ", ".join(silent)))
    return [colour.paint("event", "bold"), *term.columns(pairs)]


def _route(route: dict[str, Any], changes: int, room: int) -> list[str]:
    verdict = "takes it" if route["matched"] else "does not take it" if route["enabled"] else "is disabled"
    sources = route["sources"]
    lines = [colour.paint(f"route {route['route']}", "bold") + f" {verdict}"]
    lines += _line("source", sources["patterns"], [sources["saw"]], sources["matched"], None, "  ", room)
    if not route["clauses"]:
        lines.append(f"  {_mark(True)}  no match: takes every event but tests")
    for clause in route["clauses"]:
        lines += _clause_lines(clause, changes, "  ", room)
    if "request" in route:
        lines += _request_lines(route["request"], room)
    return lines


def _clause_lines(clause: dict[str, Any], changes: int, indent: str, room: int) -> list[str]:
    note = clause.get("note")
    if note is None and changes > 1 and "change" in clause and clause["saw"]:
        note = f"change {clause['change'] + 1}"
    lines = _line(clause["key"], clause["patterns"], clause["saw"], clause["matched"], note, indent, room)
    for number, alternative in enumerate(clause.get("alternatives", ())):
        lines.append(f"{indent}     {'or' if number else 'either'}")
        for inner in alternative:
            lines += _clause_lines(inner, changes, indent + "       ", room)
    return lines


def _line(
    key: str, patterns: list[str], saw: list[Any], matched: bool | None, note: str | None, indent: str, room: int
) -> list[str]:
    """`yes  action  publish   wants publish, unpublish`; on two lines where one is too narrow."""
    said = f"{key:<11}" if saw or patterns else key
    if saw:
        values = ", ".join("(not said)" if one is None else repr(one) for one in saw)
        said = f"{said}  saw {values:<16}"
    more = [f"wants {', '.join(patterns)}"] if patterns else []
    more += [f"({note})"] if note else []
    said, rest = term.printable(said), term.printable("  ".join(more))
    head = f"{indent}{_mark(matched)}  "
    if not rest:
        return [head + said.rstrip()]
    if len(indent) + 5 + len(said) + 2 + len(rest) <= room:
        return [f"{head}{said}  {rest}"]
    return [head + said.rstrip(), *term.paragraph(rest, " " * (len(indent) + 18), room)]


def _mark(matched: bool | None) -> str:
    if matched is None:
        return colour.paint("?  ", "yellow")
    return colour.paint("yes", "green") if matched else colour.paint("NO ", "red")


def _request_lines(request: dict[str, Any], room: int) -> list[str]:
    if "error" in request:
        why = term.printable(f"{request['error']['code']}: {request['error']['message']}")
        return [f"  {colour.paint('would fail', 'red')}: {why}"]
    lines = [f"  would send {term.printable(request['method'] + ' ' + request['url'])}"]
    lines += [f"    {term.printable(f'{name}: {value}')}" for name, value in request["headers"]]
    if "body_base64" in request:
        return [*lines, "", f"    ({len(base64.b64decode(request['body_base64']))} bytes that are not text)"]
    if not request["body"]:
        return [*lines, "    (no body)"]
    return [*lines, "", *term.paragraph(request["body"], "    ", room, most=_BODY_LINES)]


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
