"""Why each route takes an event or leaves it: every clause of its filter with the value it saw. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from typing import Any

from relay.pattern import Clause, Subject
from relay.runtime import Runtime


def of_routes(runtime: Runtime, subject: Subject) -> list[dict[str, Any]]:
    """What every route of a config makes of an event, in the config's order, as JSON data."""
    patterns = {section.name: list(section.sources) for section in runtime.config.routes}
    found = []
    for route in runtime.routing.routes.values():
        clauses = route.filter.explain(subject)
        ours = subject.source in route.sources
        found.append(
            {
                "route": route.name,
                "matched": route.enabled and ours and all(clause.matched for clause in clauses),
                "enabled": route.enabled,
                "sources": {"patterns": patterns[route.name], "saw": subject.source, "matched": ours},
                "clauses": [_clause(clause) for clause in clauses],
            }
        )
    return found


def leave_open(runtime: Runtime, routes: list[dict[str, Any]], gone: Container[str]) -> list[str]:
    """Leave open what a `where` makes of what is `gone`: a body that is no longer kept, perhaps the headers with it.
    The routes whose verdict hangs on that."""
    unknown = []
    for entry in routes:
        if not runtime.routing.routes[entry["route"]].filter.may_see(gone):
            continue
        *others, where = entry["clauses"]
        where |= {"matched": None, "note": "the body is no longer kept"}
        if entry["enabled"] and entry["sources"]["matched"] and all(clause["matched"] for clause in others):
            unknown.append(entry["route"])
    return unknown


def gone_from(headers: Collection[object]) -> tuple[str, ...]:
    """What is gone of an event without its body, which has these headers."""
    return ("body",) if headers else ("body", "headers")  # 'relay forget' takes both


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """JSON data without any secret of the config, wherever an event or a payload may have brought one."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(child, redact) for key, child in value.items()}
    if isinstance(value, list):
        return [redacted(child, redact) for child in value]
    return value


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
