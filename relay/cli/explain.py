"""`relay explain`: what would happen to an event, and why. Runs the code of production, and sends nothing."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli import ask, offline, term

if TYPE_CHECKING:
    from relay.pattern import Clause
    from relay.runtime import Runtime


@click.command("explain")
@click.argument("what", metavar="FILE|ID")
@click.option("--source", help="the source that FILE would have come to")
@click.option("--expect", multiple=True, metavar="ROUTE", help="fail unless ROUTE would take it: a check for CI")
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

    FILE is a request as JSON ({"headers": [[name, value]…], "body": "…"}) or the bare body of one; ID an event or a
    delivery that relay has stored.
    """
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.runtime import build

    now = SystemClock().now()
    runtime = build(config_file.load(config_file.find_config(config)), 1, now)
    for route in expect:
        if route not in runtime.routing.routes:
            term.fail(f"--expect {route}: there is no such route in the config", 2)
    if Path(what).is_file():
        if source is None or source not in runtime.sources:
            term.fail(f"say --source: one of {', '.join(runtime.sources)}", 2)
        report = _of_file(runtime, source, Path(what), now)
    elif what[:4] in ("evt_", "dlv_"):
        report = _of_id(runtime, what, config, url, token, now)
    else:
        term.fail(f"{what}: no such file, and not an id", 2)
    click.echo(json.dumps(report, indent=2) if as_json else _text(report))
    missing = [name for name in expect if name not in report["routes_matched"]]
    if missing:
        term.fail(f"expected {', '.join(missing)} to take the event")


def _of_file(runtime: Runtime, source_name: str, path: Path, now: datetime) -> dict[str, Any]:
    """Verify, describe and route a request from a file."""
    from relay.bodyproof import without_proofs
    from relay.jsontext import Malformed
    from relay.source import Ignored, RateLimited, Rejected

    source = runtime.sources[source_name]
    inbound = _inbound(path)
    report: dict[str, Any] = {"source": source.name, "type": source.type, "routes": [], "routes_matched": []}
    try:
        proof = source.verify(inbound, now)
        report["verified"] = "not asked for (verify: none)" if source.trusting else ", ".join(proof.held)
    except Rejected as error:
        report["verified"] = f"REJECTED (401): {runtime.redact(error.reason)}"
    except (Malformed, RateLimited) as error:
        report["verified"] = f"NOT TAKEN: {runtime.redact(str(error))}"
    inbound = without_proofs(inbound, source.adapter.body_proofs)
    try:
        description = source.describe(inbound)
    except Malformed as error:
        report["ignored"] = f"refused (400): {error}"
        return report
    if isinstance(description, Ignored):
        report["ignored"] = description.reason
        return report
    from hashlib import sha256

    from relay.event import Event
    from relay.ids import EVENT, EventId, Ids

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


def _of_id(
    runtime: Runtime, id_text: str, config: Path | None, url: str | None, token: str | None, now: datetime
) -> dict[str, Any]:
    """Route a stored event again, under today's config."""
    try:
        status, answer = ask.daemon(config, url, token).get(f"/logs/{id_text}")
    except ask.Unreachable:
        status, answer = offline.show(config, id_text)
    if status != 200:
        term.fail(ask.refused(answer))
    from relay.event import event_from_json

    body = (
        answer["body"].encode() if answer.get("body") is not None else base64.b64decode(answer.get("body_base64", ""))
    )
    event = event_from_json(answer["event"], answer["headers"], body)
    report: dict[str, Any] = {"source": event.source, "type": event.type, "verified": "when it was accepted"}
    return report | _routes(runtime, event, answer["event"]["id"], now)


def _inbound(path: Path) -> Any:
    """A request from a file: the whole of it as JSON, or its body alone."""
    from multidict import CIMultiDict

    from relay.event import Inbound

    raw = path.read_bytes()
    try:
        request = json.loads(raw)
    except ValueError:
        request = None
    if (
        isinstance(request, dict)
        and isinstance(request.get("headers"), list)
        and request.keys() & {"body", "body_base64"}
    ):
        body = request["body"].encode() if "body" in request else base64.b64decode(request["body_base64"])
        return Inbound(CIMultiDict([(name, value) for name, value in request["headers"]]), body)
    return Inbound(CIMultiDict({"Content-Type": "application/json"}), raw)


def _routes(runtime: Runtime, event: Any, event_id: str, now: datetime) -> dict[str, Any]:
    """What each route makes of the event."""
    from relay.delivery import Delivery
    from relay.destination import Unsendable
    from relay.ids import DeliveryId
    from relay.pattern import Subject
    from relay.web import shape

    subject = Subject.of(event, event_id)
    matched = {route.name for route in runtime.routing.match(subject)}
    routes = []
    for route in runtime.routing.routes.values():
        from_source = event.source in route.sources
        entry: dict[str, Any] = {
            "route": route.name,
            "matched": route.name in matched,
            "enabled": route.enabled,
            "sources": {"patterns": sorted(route.sources), "saw": event.source, "matched": from_source},
            "clauses": [_clause(clause) for clause in route.filter.explain(subject)],
        }
        if route.name in matched:
            delivery = Delivery(DeliveryId(0), route.name, event, now, now)
            try:
                outbound = route.destination.render(delivery, "dlv_" + "0" * 26, event_id, now)
                request = route.destination.shown(outbound)
                entry["request"] = {
                    "method": request.method,
                    "url": request.url,
                    "headers": [list(pair) for pair in request.headers],
                    **shape.text("body", outbound.body),
                }
            except Unsendable as error:
                entry["request"] = {"error": shape.failure(error.failure)}
        routes.append(entry)
    return {"event": event.as_json(event_id), "routes": routes, "routes_matched": sorted(matched)}


def _clause(clause: Clause) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "key": clause.key,
        "patterns": list(clause.patterns),
        "saw": list(clause.saw),
        "matched": clause.matched,
    }
    if clause.change is not None:
        entry["change"] = clause.change
    if clause.note is not None:
        entry["note"] = clause.note
    if clause.alternatives:
        entry["alternatives"] = [[_clause(inner) for inner in alternative] for alternative in clause.alternatives]
    return entry


def _text(report: dict[str, Any]) -> str:
    lines = [f"source {report['source']} ({report['type']}): verified by {report['verified']}"]
    if "ignored" in report:
        return "\n".join([*lines, f"not stored: {report['ignored']}"])
    for key, value in report["event"].items():
        if key not in ("id", "received_at", "source", "type"):
            lines.append(f"  {key}: {term.printable(json.dumps(value, ensure_ascii=False))}")
    for route in report["routes"]:
        verdict = "MATCHES" if route["matched"] else "does not match" if route["enabled"] else "is disabled"
        lines += ["", f"route {route['route']} {verdict}"]
        lines.append(
            _line("source", route["sources"]["patterns"], [route["sources"]["saw"]], route["sources"]["matched"])
        )
        if not route["clauses"]:
            lines.append("  yes  (no match: takes everything)")
        for clause in route["clauses"]:
            lines += _clause_lines(clause, "")
        if "request" in route:
            lines += _request_lines(route["request"])
    return "\n".join(lines)


def _clause_lines(clause: dict[str, Any], indent: str) -> list[str]:
    lines = [indent + _line(clause["key"], clause["patterns"], clause["saw"], clause["matched"], clause.get("note"))]
    for number, alternative in enumerate(clause.get("alternatives", ())):
        lines.append(f"{indent}       {'or' if number else 'either'}:")
        for inner in alternative:
            lines += _clause_lines(inner, indent + "       ")
    return lines


def _line(key: str, patterns: list[str], saw: list[Any], matched: bool, note: str | None = None) -> str:
    wanted = " wants " + ", ".join(patterns) if patterns else ""
    value = " saw " + ", ".join("nothing" if one is None else repr(one) for one in saw) if saw else ""
    return term.printable(f"  {'yes' if matched else 'NO '}  {key}{wanted}{value}{f' ({note})' if note else ''}")


def _request_lines(request: dict[str, Any]) -> list[str]:
    if "error" in request:
        return [f"  would fail: {request['error']['code']}: {request['error']['message']}"]
    lines = [f"  would send: {request['method']} {request['url']}"]
    lines += [term.printable(f"    {name}: {value}") for name, value in request["headers"]]
    body = request.get("body", "(binary)")
    lines.append("    " + (term.printable(body[:400]) + ("…" if len(body) > 400 else "") if body else "(no body)"))
    return lines
