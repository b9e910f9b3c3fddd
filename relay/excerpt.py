"""One route of a config as a config of its own: as it was written, with what it needs, and without its secrets.

References stay references. What nobody may see becomes one: a value that the effective config shows as `***` and that
was written into the file as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from relay import yamltext
from relay.effective import effective
from relay.fields import Unresolved
from relay.problems import Path, path_text
from relay.schema import Config
from relay.secret import MASK
from relay.variables import Variable, Variables
from relay.yamltext import literal, reference

_NAMES = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
_URLS = frozenset({"url", "token_url"})
_LEFT_OUT = frozenset({"to", "sources", "routes", 0})  # of the names of variables


def of(raw: dict[str, Any], config: Config, name: str) -> tuple[str, list[Variable]]:
    """The config of one route, and the variables that it names in the place of secrets.

    `raw` is the document, read without looking anything up, and `config` what it came to. Raises KeyError.
    """
    place = next((place for place, route in enumerate(config.routes) if route.name == name), None)
    if place is None:
        raise KeyError(name)
    selected = config.routes[place].selected(config.sources)
    kept: dict[str, Any] = {}
    if raw.get("defaults"):
        kept["defaults"] = raw["defaults"]
    if selected:
        kept["sources"] = {name: source for name, source in raw["sources"].items() if name in selected}
    kept["routes"] = [raw["routes"][place]]
    if raw.get("notifiers") and any("notify" in part for part in _mappings(kept)):
        kept["notifiers"] = raw["notifiers"]
    shown = effective(config)
    shown["routes"] = [shown["routes"][place]]
    taken = {found for text in _texts(kept) if isinstance(text, Unresolved) for found in _NAMES.findall(text)}
    hiding = _Hiding(name, Variables(taken))
    return yamltext.written(hiding.copy(kept, shown, ())), hiding.variables.made


class _Hiding:
    """Copies a document and puts references where its effective form is masked."""

    def __init__(self, route: str, variables: Variables) -> None:
        self._route = route
        self.variables = variables

    def copy(self, value: Any, shown: Any, path: Path) -> Any:
        """The value, compared with its effective form."""
        if isinstance(value, dict):
            known = shown if isinstance(shown, dict) else {}
            return {key: self.copy(child, known.get(key), (*path, key)) for key, child in value.items()}
        if isinstance(value, list):
            many = shown if isinstance(shown, list) and len(shown) == len(value) else [shown] * len(value)
            return [self.copy(*pair, (*path, place)) for place, pair in enumerate(zip(value, many, strict=True))]
        if isinstance(shown, list) and len(shown) == 1:
            shown = shown[0]  # one value where the effective form has a list
        if not isinstance(value, str) or not value:
            return value
        if isinstance(value, Unresolved):
            return self._without_query(value, path) if path[-1] in _URLS and "?" in value else value
        if not isinstance(shown, str) or MASK not in shown or value == shown:
            return value
        return self._without_query(value, path) if _only_query_masked(shown) else self._variable(path)

    def _without_query(self, url: str, path: Path) -> str:
        """A URL with a reference for each value of its query that is not one."""
        start, _, query = (url if isinstance(url, Unresolved) else literal(url)).partition("?")
        pairs = []
        for name, equal, value in (pair.partition("=") for pair in query.split("&")):
            kept = not value or (isinstance(url, Unresolved) and "${" in value)
            pairs.append(name + equal + (value if kept else self._variable((*path, name))))
        return reference(f"{start}?{'&'.join(pairs)}")

    def _variable(self, path: Path) -> str:
        words = [self._route] if path[0] == "routes" else []
        words += [part if isinstance(part, str) else str(part + 1) for part in path if part not in _LEFT_OUT]
        return self.variables.new("_".join(words), path_text(path))


def _only_query_masked(shown: str) -> bool:
    start, asked, query = shown.partition("?")
    return bool(asked) and MASK not in start and MASK in query


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from _mappings(child)
    elif isinstance(value, list):
        for child in value:
            yield from _mappings(child)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)
    elif isinstance(value, str):
        yield value
