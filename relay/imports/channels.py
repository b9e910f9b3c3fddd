"""Contentstack's channels, which are what a webhook subscribes to, as what a route matches.

https://www.contentstack.com/docs/developers/set-up-webhooks/webhook-events

A channel is `<kind>[.<uid>][.<part>[.<uid>]][.environments[.<name>]].<verb>[.<phase>]`, such as `assets.create`,
`content_types.blog.entries.publish` or `releases.environments.production.deploy`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

Match = dict[str, str]
"""A pattern for each key."""

_VERBS = {
    "create": "create",
    "update": "update",
    "delete": "delete",
    "publish": "publish",
    "unpublish": "unpublish",
    "deploy": "deploy",
    "resolve": "resolve",
    "reopen": "reopen",
    "localize": "localize",
    "unlocalize": "unlocalize",
    "assigned": "assign",
    "unassigned": "unassign",
}
_PHASES = {
    "success": "",
    "completed": "",
    "start": "_start",
    "initiated": "_start",
    "fail": "_fail",
    "failed": "_fail",
}
_CHANGED = frozenset({"create", "update", "delete"})
_PUBLISHED = frozenset({"publish", "unpublish"})
_KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "assets": ("asset", _CHANGED | _PUBLISHED),
    "global_fields": ("global_field", _CHANGED),
    "releases": ("release", _CHANGED | {"deploy"}),
    "branch": ("branch", _CHANGED),
    "branches": ("branch", _CHANGED),
    "branch_alias": ("branch_alias", frozenset({"assign", "unassign"})),
    "branch_aliases": ("branch_alias", frozenset({"assign", "unassign"})),
}
_TAXONOMY = _CHANGED | {"localize", "unlocalize"}
_NAME = re.compile(r"[\w -]+")  # what means itself in a pattern
# Without a name in it, `entry.*` is what tells an entry's event from a content type's or an asset's.
_ENTRY_EVENTS = "entry.*"
_OTHER_MODELS = frozenset(
    {"asset", "branch", "branch_alias", "comment", "content_type", "discussion", "global_field", "release"}
    | {"taxonomy", "term"}
)
# Whose events say no branch, or are about one.
_OF_ALL_BRANCHES = frozenset({"comment", "discussion", "release", "taxonomy", "term"})
_ABOUT_BRANCHES = frozenset({"branch", "branch_alias"})
_NO_VALUE = "!?*"


def match_of(channel: str) -> Match | None:
    """What a route has to match to get a channel's events; None where relay cannot say."""
    kind, *rest = channel.split(".")
    action = _action(rest)
    if action is None or not all(map(is_name, rest)):
        return None
    if kind == "content_types":
        return _content_type(rest, action)
    if kind == "taxonomies":
        return _taxonomy(rest, action)
    model, actions = _KINDS.get(kind, ("", frozenset()))
    environment = _environment(rest)
    if action.partition("_")[0] not in actions or len(rest) > 1:
        return None
    return {"model": model, "action": action, **_named("entry_id", rest), **environment}


def is_name(text: str) -> bool:
    """Whether a uid or a name can stand in a pattern as it is."""
    return _NAME.fullmatch(text) is not None


def _content_type(rest: list[str], action: str) -> Match | None:
    """`[uid.]` or `[uid.]entries.[uid.]`, and `comments` and `discussions` of these."""
    if "entries" not in rest[:2]:
        if len(rest) > 1 or action not in _CHANGED:
            return None
        return {"model": "content_type", "action": action, **_named("entry_id", rest)}
    place = rest.index("entries")
    model, below = rest[:place], rest[place + 1 :]
    if below in (["comments"], ["discussions"]) and not model:  # theirs do not say of which content type they are
        part = below[0].removesuffix("s")
        allowed = _CHANGED if part == "comment" else {"create", "resolve", "reopen"}
        return {"model": part, "action": action} if action in allowed else None
    environment = _environment(below)
    if len(below) > 1 or below in (["comments"], ["discussions"], ["variants"], ["workflow_stages"]):
        return None
    if action.partition("_")[0] not in _CHANGED | _PUBLISHED:
        return None
    match = {**_named("model", model), "action": action, **_named("entry_id", below), **environment}
    return match if model and model[0] not in _OTHER_MODELS else {"event": _ENTRY_EVENTS, **match}


def _taxonomy(rest: list[str], action: str) -> Match | None:
    """`[uid.]` or `[uid.]terms.[uid.]`; a term's events do not say of which taxonomy they are."""
    if action not in _TAXONOMY:
        return None
    if rest[:1] == ["terms"] and len(rest) <= 2:
        return {"model": "term", "action": action, **_named("entry_id", rest[1:])}
    if len(rest) > 1:
        return None
    return {"model": "taxonomy", "action": action, **_named("entry_id", rest)}


def _action(rest: list[str]) -> str | None:
    """The action that a channel ends with, taken off its parts: `publish.success`, `create-completed`, `delete`."""
    if not rest:
        return None
    verb, _, phase = rest[-1].partition("-")
    if phase:
        taken = 1
    elif verb in _PHASES and len(rest) > 1:
        phase, verb, taken = verb, rest[-2], 2
    else:
        taken = 1
    if verb not in _VERBS or (phase and phase not in _PHASES):
        return None
    del rest[-taken:]
    return _VERBS[verb] + (_PHASES[phase] if phase else "")


def _environment(rest: list[str]) -> Match:
    """The environment at the end of a channel, taken off its parts."""
    if "environments" not in rest:
        return {}
    place = rest.index("environments")
    named = rest[place + 1 :]
    if len(named) > 1:
        return {}
    del rest[place:]
    return _named("environment", named)


def _named(key: str, names: Sequence[str]) -> Match:
    return {key: names[0]} if names else {}


# --- several ----------------------------------------------------------------------------------------------------------

_ORDER = ("event", "model", "stage", "action", "entry_id", "environment", "branch")


def scoped(match: Match, branches: Sequence[str]) -> list[dict[str, Any]]:
    """Matches that together take what one takes of these branches.

    What may say its branch need not: items of a release do not, nor does anything in the concise payload. An event too
    many is better than one too few, so what says none is taken as well.
    """
    if not branches or of_all_branches(match) or _kind(match) in _ABOUT_BRANCHES:
        return [match]
    return [{**match, "branch": _one_or_all(branches)}, {**match, "branch": _NO_VALUE}]


def of_all_branches(match: Match) -> bool:
    """Whether it takes events that never say their branch: `branches` cannot hold for them."""
    return _kind(match) in _OF_ALL_BRANCHES


def _kind(match: Match) -> str | None:
    """What its events are about, None for entries: a content type may be called `release`."""
    return None if "event" in match else match.get("model")


def joined(matches: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One `match` that takes what any of these takes: as lists of values where that is the same, else with `any`."""
    found: list[dict[str, Any]] = []
    for match in matches:
        if match not in found:
            found.append(match)
    for key in ("action", "model", "entry_id", "environment"):
        found = _grouped(found, key)
    if len(found) == 1:
        return _sorted(found[0])
    common = {key: value for key, value in found[0].items() if all(match.get(key) == value for match in found)}
    others = [_sorted({key: match[key] for key in match if key not in common}) for match in found]
    return {**_sorted(common), "any": others}


def _grouped(matches: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Matches that differ in one key alone, as one."""
    groups: list[tuple[dict[str, Any], list[str]]] = []
    for match in matches:
        if key not in match:
            groups.append((match, []))
            continue
        rest = {name: value for name, value in match.items() if name != key}
        values = match[key] if isinstance(match[key], list) else [match[key]]
        for known, seen in groups:
            if seen and known == rest:
                seen.extend(value for value in values if value not in seen)
                break
        else:
            groups.append((rest, list(values)))
    return [{**rest, key: _one_or_all(values)} if values else rest for rest, values in groups]


def _one_or_all(values: Sequence[str]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _sorted(match: dict[str, Any]) -> dict[str, Any]:
    return {key: match[key] for key in _ORDER if key in match}
