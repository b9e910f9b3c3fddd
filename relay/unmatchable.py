"""Filters that no event of a route's sources can satisfy: valid, and probably not meant."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from relay.fields import Unresolved
from relay.pattern import CHANGE_KEYS, EVENT_KEYS, Patterns
from relay.problems import Path, did_you_mean, nearest

_ACTIONS = (
    *("create", "update", "delete", "publish", "unpublish", "move", "restore", "merge", "deploy", "discard"),
    *("stage_change", "resolve", "reopen", "execute", "assign", "unassign", "localize", "unlocalize", "change"),
    *("test", "upgrade"),
)


def reasons(
    place: Path,
    match: Mapping[str, Any],
    never: Collection[str],
    knows_actions: bool,
    omitted: Mapping[str, Collection[str]],
) -> Iterator[tuple[Path, str]]:
    """What is wrong with a `match`, and where.

    `never` are the fields that none of the sources ever says; `knows_actions` is whether all of them speak of actions
    in relay's own words; `omitted` are fields with the actions of which no event has them.
    """
    yield from _of_keys(place, match, never, knows_actions)
    yield from _of_omitted(place, match, (match,), omitted)
    alternatives = match.get("any")
    for number, entry in enumerate(alternatives if isinstance(alternatives, list) else ()):
        if isinstance(entry, dict):
            yield from _of_keys((*place, "any", number), entry, never, knows_actions)
            yield from _of_omitted((*place, "any", number), entry, (match, entry), omitted)


def _of_keys(
    place: Path, keys: Mapping[str, Any], never: Collection[str], knows_actions: bool
) -> Iterator[tuple[Path, str]]:
    for key in (*CHANGE_KEYS, *EVENT_KEYS):
        texts = _patterns(keys.get(key))
        if not texts:
            continue
        patterns = Patterns(texts)
        if "!*" in texts:
            yield (*place, key), "the list takes nothing: '!*' excludes every value"
        elif key in never and not patterns.takes(None):
            yield (*place, key), f"no event of this route's sources has {named(key)}"
        elif key == "action" and knows_actions:
            for text in texts:
                word = text.removeprefix("!")
                if word.isidentifier() and _base(word) not in _ACTIONS and nearest(word, _ACTIONS) is not None:
                    yield (*place, key), f"no action is called '{word}'{did_you_mean(word, _ACTIONS)}"


def _of_omitted(
    place: Path, keys: Mapping[str, Any], asked: Collection[Mapping[str, Any]], omitted: Mapping[str, Collection[str]]
) -> Iterator[tuple[Path, str]]:
    """Actions that are named beside a field which no event of them has; `asked` is all that must hold together."""
    for field, actions in omitted.items():
        lists = [texts for part in asked if (texts := _patterns(part.get(field)))]
        if all(Patterns(texts).takes(None) for texts in lists):
            continue
        for text in _patterns(keys.get("action")):
            if text.casefold() in actions:
                message = f"'{text}' takes nothing: no such event of this route's sources has {named(field)}, which is"
                yield (*place, "action"), f"{message} asked for besides (give it an entry of its own in any)"


def _patterns(raw: object) -> list[str]:
    """The patterns of a key; none where the key is missing, wrong, or not looked up."""
    texts = raw if isinstance(raw, list) else [raw]
    found = [text for text in texts if isinstance(text, str) and text and not isinstance(text, Unresolved)]
    return found if len(found) == len(texts) else []


def _base(word: str) -> str:
    return word.casefold().removesuffix("_fail").removesuffix("_start")


def named(key: str) -> str:
    """A field with its article."""
    return f"an {key}" if key[0] in "aeiou" else f"a {key}"
