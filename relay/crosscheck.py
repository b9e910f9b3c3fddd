"""The second pass over a config: what its parts say about each other.

It looks at what the first pass could read, and for names and headers at the document itself, so that a mistake in one
part does not hide what is wrong between two others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from relay import contradiction, exposure, preset, query, source, sourcepath, unmatchable
from relay.fieldmap import FieldMap
from relay.fields import UNKNOWN_KEY, Section, Unresolved, got
from relay.headercheck import HeaderCheck
from relay.notifier import NotifierConfig
from relay.pattern import Patterns
from relay.preset import IndexPreset
from relay.problems import Note, Path, did_you_mean
from relay.schema import Admin, Route, Server, same_address
from relay.source import DedupKey, SourceAdapter, SourceConfig


class CrossCheck:
    """One config being compared with itself."""

    def __init__(
        self,
        raw: Mapping[str, Any],
        sections: Mapping[str, Section | None],
        sources: Mapping[str, SourceConfig],
        notifiers: Mapping[str, NotifierConfig],
        routes: Mapping[int, Route],
        problem: Note,
        warning: Note,
    ) -> None:
        self._sections = sections
        self._sources = sources
        self._notifiers = notifiers
        self._routes = routes
        self._problem = problem
        self._warning = warning
        raw_sources = raw.get("sources")
        self._raw_sources: dict[str, Any] = raw_sources if isinstance(raw_sources, dict) else {}
        raw_routes = raw.get("routes")
        self._raw_routes: list[Any] = raw_routes if isinstance(raw_routes, list) else []
        self._raw_defaults = _mapping(raw.get("defaults"))
        self._raw_notifiers = _mapping(raw.get("notifiers"))
        self._adapters: dict[str, SourceAdapter] = {}
        self._headers = HeaderCheck(problem)

    def run(self) -> None:
        """Note all that does not fit."""
        self._admin()
        self._source_paths()
        for name, raw in self._raw_sources.items():
            self._map(("sources", name, "map"), _mapping(_mapping(raw).get("map")))
            self._notified(("sources", name, "notify"), _mapping(raw).get("notify"))
        for name, config in self._sources.items():
            self._source(name, config)
        self._route_names()
        self._headers.of_defaults(self._raw_defaults, self._raw_routes)
        exposure.of_defaults(self._sections.get("defaults"), self._warning)
        contradiction.of_defaults(self._sections.get("defaults"), self._routes.values(), self._warning)
        self._notified(("defaults", "notify"), self._raw_defaults.get("notify"))
        for place, raw in enumerate(self._raw_routes):
            if isinstance(raw, dict):
                self._route(("routes", place), raw)
        for place, route in self._routes.items():
            exposure.of_route(("routes", place), route, self._warning)
            contradiction.of_route(("routes", place), route, self._sections.get("defaults"), self._warning)
        for name, notifier in self._notifiers.items():
            exposure.of_notifier(("notifiers", name), notifier, self._warning)
        for section, value in self._read():
            exposure.short_secrets(section, value, self._warning)

    def _read(self) -> Iterator[tuple[Path, Section]]:
        yield from (((key,), section) for key, section in self._sections.items() if section is not None)
        yield from ((("sources", name), config) for name, config in self._sources.items())
        yield from ((("notifiers", name), config) for name, config in self._notifiers.items())
        yield from ((("routes", place), route) for place, route in self._routes.items())

    # --- server and admin ---

    def _one_address(self) -> bool:
        admin, server = self._sections.get("admin"), self._sections.get("server")
        return isinstance(admin, Admin) and isinstance(server, Server) and same_address(admin.listen, server.listen)

    def _admin(self) -> None:
        admin = self._sections.get("admin")
        if not isinstance(admin, Admin) or admin.guarded:
            return
        if self._one_address():
            self._problem(("admin", "listen"), f"{admin.listen} is also server.listen: a token is needed (admin.token)")
        elif not admin.listen.local:
            self._problem(("admin", "listen"), f"{admin.listen} is not loopback: a token is needed (admin.token)")

    # --- sources ---

    def _source_paths(self) -> None:
        taken = {f"/in/{name}": name for name in self._raw_sources}
        own: dict[str, str] = {}
        one_address = self._one_address()
        for name, value in self._raw_sources.items():
            path = _mapping(value).get("path")
            place: Path = ("sources", name, "path")
            if not isinstance(path, str) or isinstance(path, Unresolved):
                continue
            if (fault := sourcepath.fault(path, one_address)) is not None:
                self._problem(place, fault)
            elif taken.get(path, name) != name:
                self._problem(place, f"{path} is the path of source '{taken[path]}'")
            elif path in own:
                self._problem(place, f"{path} is also the path of source '{own[path]}'")
            else:
                own[path] = name

    def _source(self, name: str, config: SourceConfig) -> None:
        place: Path = ("sources", name)
        proofs = config.proofs()
        if config.verify == "none" and proofs:
            self._problem((*place, "verify"), f"'none' contradicts the proof in '{proofs[0]}'")
        elif config.verify is None and not proofs and not isinstance(self._raw_sources[name].get("verify"), Unresolved):
            message = "no proof is configured: anybody could send (add one, such as a secret, or say verify: none)"
            self._problem(place, message, UNKNOWN_KEY)
        try:
            self._adapters[name] = source.types()[config.type].Adapter(config)
        except ValueError as error:
            if not any(isinstance(text, Unresolved) for text in _texts(self._raw_sources[name])):
                self._problem(place, str(error))
            return
        if config.rate_limit is not None and not self._adapters[name].retries:
            message = f"{config.type} never sends again what a rate_limit refused: events will be lost"
            self._warning((*place, "rate_limit"), message)
        for key, message in config.ill_taken():
            self._warning((*place, key), message)
        self._dedup_key((*place, "dedup", "key"), config, self._adapters[name])
        exposure.of_source(place, proofs, self._sections.get("server"), self._warning)

    def _map(self, place: Path, expressions: Mapping[str, object]) -> None:
        for field, text in expressions.items():
            if not isinstance(text, str) or isinstance(text, Unresolved):
                continue
            try:
                FieldMap({field: text})
            except ValueError as error:
                kind = UNKNOWN_KEY if str(error).startswith(f"{field}: expected") else ""
                self._problem((*place, field), str(error).removeprefix(f"{field}: "), kind)

    def _dedup_key(self, place: Path, config: SourceConfig, adapter: SourceAdapter) -> None:
        """A key that is never found, since expressions do not see what proves the sender."""
        if not isinstance(config.dedup, DedupKey) or isinstance(config.dedup.key, Unresolved):
            return
        for name in query.headers_named(config.dedup.key):
            if name in adapter.proof_headers:
                self._warning(place, f"{name} carries a proof, which no expression sees: nothing will be a duplicate")

    def _notified(self, place: Path, raw: object) -> None:
        """Names that no notifier has."""
        names = list(self._raw_notifiers)
        for number, name in enumerate(raw if isinstance(raw, list) else [raw]):
            if isinstance(name, str) and not isinstance(name, Unresolved) and name not in names:
                message = f"there is no notifier {got(name)}{did_you_mean(name, names)}"
                self._problem((*place, number) if isinstance(raw, list) else place, message)

    # --- routes ---

    def _route_names(self) -> None:
        names: dict[str, int] = {}
        for place, raw in enumerate(self._raw_routes):
            name = _mapping(raw).get("name")
            if not isinstance(name, str) or isinstance(name, Unresolved):
                continue
            first = names.setdefault(name, place)
            if first != place:
                self._problem(("routes", place, "name"), f"the name '{name}' is taken by routes[{first}]")

    def _route(self, place: Path, raw: dict[str, Any]) -> None:
        selected = self._selected((*place, "sources"), raw.get("sources", ["*"]))
        if selected:
            match = _mapping(raw.get("match"))
            self._types((*place, "match"), match, selected)
            never, knows_actions = self._never(selected)
            omitted = self._omitted(selected)
            for where, message in unmatchable.reasons((*place, "match"), match, never, knows_actions, omitted):
                self._warning(where, message)
            self._never_told_apart(place, raw, never)
        elif not self._raw_sources:
            self._warning(place, "there is no source whose events it could match", UNKNOWN_KEY)
        route = self._routes.get(place[1]) if isinstance(place[1], int) else None
        adapters = {name: self._adapters[name] for name in selected if name in self._adapters}
        self._headers.of_route(place, raw, route, adapters)
        self._windows_and_order(place, raw)
        self._notified((*place, "notify"), raw.get("notify"))

    def _selected(self, place: Path, raw: object) -> list[str]:
        """The names of the sources that a route listens to; a pattern that means none of them is a mistake."""
        listed = isinstance(raw, list)
        patterns = raw if isinstance(raw, list) else [raw]
        names = list(self._raw_sources)
        usable: list[str] = []
        unmatched = False
        for number, text in enumerate(patterns):
            if not isinstance(text, str) or isinstance(text, Unresolved) or text in ("", "!"):
                continue
            usable.append(text)
            word = text.removeprefix("!")
            if word != "*" and not any(Patterns([word]).takes(name) for name in names):
                unmatched = True
                message = f"no source matches '{word}'{did_you_mean(word, names)}"
                self._problem((*place, number) if listed else place, message)
        if not usable or len(usable) < len(patterns):
            return []
        everything = Patterns(usable)
        selected = [name for name in names if everything.takes(name)]
        if names and not selected and not unmatched:
            self._problem(place, "no source is left")
        return selected

    def _types(self, place: Path, match: Mapping[str, Any], selected: list[str]) -> None:
        """A `type` that none of the route's sources is."""
        types = {self._type(name) for name in selected}
        for where, keys in _with_alternatives(place, match):
            raw = keys.get("type")
            texts = raw if isinstance(raw, list) else [raw]
            if None in types or not all(isinstance(text, str) and not isinstance(text, Unresolved) for text in texts):
                continue
            patterns = Patterns([text for text in texts if isinstance(text, str)])
            known = [name for name in types if name is not None]
            if not any(patterns.takes(name) for name in known):
                message = f"no source of this route is of this type (they are: {', '.join(sorted(known))})"
                self._warning((*where, "type"), message)

    def _never(self, selected: list[str]) -> tuple[frozenset[str], bool]:
        """The fields of a description that none of these sources ever says, and whether all know relay's actions."""
        never: frozenset[str] | None = None
        knows_actions = True
        for name in selected:
            adapter = self._adapters.get(name)
            if adapter is None:
                return frozenset(), False
            mapped = _mapping(self._raw_sources[name]).get("map")
            unsaid = adapter.never.difference(_mapping(mapped))
            never = unsaid if never is None else never & unsaid
            knows_actions = knows_actions and adapter.own_actions and "action" not in _mapping(mapped)
        return never or frozenset(), knows_actions

    def _omitted(self, selected: list[str]) -> dict[str, frozenset[str]]:
        """Fields that events of these sources may have, with the actions of which none has them."""
        if any(name not in self._adapters for name in selected):
            return {}
        found: dict[str, frozenset[str]] = {}
        for field in sorted({field for name in selected for field in self._sources[name].omits}):
            of_each = (self._omitted_of(name, field) for name in selected)
            found[field] = frozenset.intersection(*(actions for actions in of_each if actions is not None))
        return found

    def _omitted_of(self, name: str, field: str) -> frozenset[str] | None:
        """The actions of which no event of a source has a field; None for all there are."""
        mapped = _mapping(self._raw_sources[name].get("map"))
        if field not in mapped and field in self._adapters[name].never:
            return None
        unknown = field in mapped or "action" in mapped
        return frozenset() if unknown else self._sources[name].omits.get(field, frozenset())

    def _never_told_apart(self, place: Path, raw: Mapping[str, Any], never: frozenset[str]) -> None:
        """Lanes and windows by what none of the route's sources ever says."""
        if raw.get("order") in ("entry", "latest") and "entry_id" in never:
            message = "no event of this route's sources has an entry_id: those of a source all wait for each other"
            self._warning((*place, "order"), message)
        by = _mapping(raw.get("debounce")).get("by")
        for number, name in enumerate(by if isinstance(by, list) else [by]):
            if isinstance(name, str) and name in never:
                where: Path = (*place, "debounce", "by", number) if isinstance(by, list) else (*place, "debounce", "by")
                self._warning(where, f"no event of this route's sources has {unmatchable.named(name)}")

    def _windows_and_order(self, place: Path, raw: Mapping[str, Any]) -> None:
        """What a route may not say together."""
        windows = [key for key in ("debounce", "batch") if raw.get(key) is not None]
        if len(windows) == 2:
            self._problem((*place, "batch"), "batch and debounce exclude each other", UNKNOWN_KEY)
        if raw.get("order") == "latest" and windows:
            self._problem((*place, "order"), f"order: latest and {windows[0]} exclude each other")
        by = _mapping(raw.get("debounce")).get("by")
        if raw.get("order") == "entry" and windows and "entry_id" not in (by if isinstance(by, list) else [by]):
            message = f"a window holds several entries and keeps the order of its first one only ({windows[0]})"
            cure = ": add by: [entry_id]" if windows[0] == "debounce" else ""
            self._warning((*place, "order"), message + cure)
        name = _mapping(raw.get("to")).get("preset")
        if not isinstance(name, str) or name not in preset.names() or not issubclass(preset.model(name), IndexPreset):
            return
        if raw.get("order") == "none":
            message = f"{name} needs an order, or an older state of an entry could come last (leave it out for latest)"
            self._problem((*place, "order"), message)
        for key in windows:
            self._problem((*place, key), f"{name} takes one entry a request, which excludes {key}", UNKNOWN_KEY)

    def _type(self, name: str) -> str | None:
        """The source's type by its own name, not an alias."""
        kind = _mapping(self._raw_sources[name]).get("type")
        module = source.types().get(kind) if isinstance(kind, str) else None
        return module.__name__.rpartition(".")[2] if module is not None else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)
    else:
        yield value


def _with_alternatives(place: Path, match: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if "type" in match:
        yield place, match
    alternatives = match.get("any")
    for number, entry in enumerate(alternatives if isinstance(alternatives, list) else ()):
        if "type" in _mapping(entry):
            yield (*place, "any", number), entry
