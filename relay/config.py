"""From a file to a Config: every mistake at once, each with its place and what was probably meant.

Two passes. The first reads each section, source and route by itself, so that a mistake in one hides none in another.
The second compares them with each other; it always runs, on whatever there is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from pydantic import ValidationError

from relay import notifier, source, yamlfile
from relay.crosscheck import CrossCheck
from relay.effective import effective, hidden_texts, secrets_in
from relay.fields import MISSING_KEY, UNKNOWN_KEY, Section, Unresolved, got, shown, strangers
from relay.immutable import immutable
from relay.interpolation import LARGEST
from relay.notifier import NotifierConfig
from relay.problems import ConfigError, Problem, did_you_mean, path_text
from relay.problems import Path as Place
from relay.schema import SECTIONS, Config, Defaults, Route
from relay.secret import Redactor
from relay.source import SourceConfig

__all__ = ["Config", "ConfigError", "Loaded", "Problem", "effective", "find_config", "load"]

_ETC = Path("/etc/relay/config.yaml")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@immutable
class Loaded:
    """A config that can be taken."""

    config: Config
    warnings: tuple[Problem, ...]
    secrets: frozenset[str]
    """Values that may not be seen, for a Redactor."""
    words: frozenset[str]
    """Those of them that may be ordinary words."""
    sha256: str
    """Of the file, in hex."""
    file: str
    """The file, as messages name it."""
    marks: yamlfile.Marks
    complete: bool = True
    """Whether every value was looked up, so that it can be run."""

    def place(self, path: Place) -> yamlfile.Mark:
        """Line and column of the value at a path."""
        return self.marks.value(path)


def find_config(option: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file to read: what `--config` says, else $RELAY_CONFIG, ./config.yaml or /etc/relay/config.yaml.

    Raises ConfigError when there is none.
    """
    named = option or environ.get("RELAY_CONFIG")
    if named:
        return Path(named)
    here = Path("config.yaml")
    for path in (here, _ETC):
        if path.exists():
            return path
    message = f"no config: there is neither ./{here} nor {_ETC} (name one with --config or $RELAY_CONFIG)"
    raise ConfigError([Problem("relay", 0, 0, "", message)])


def load(
    origin: Path | bytes,
    *,
    name: str | None = None,
    environ: Mapping[str, str] = os.environ,
    no_secrets: bool = False,
    no_credentials: bool = False,
    try_samples: bool = False,
) -> Loaded:
    """The config in a file, or in bytes; `name` is the file as messages show it. Raises ConfigError.

    With `no_secrets` no variable, file or credential is looked up, and what they would say is not judged; with
    `no_credentials` no credential. With `try_samples` payloads are tried on the samples of the sources, and warned of
    where they fail.
    """
    file = name or (str(origin) if isinstance(origin, Path) else "config.yaml")
    data = origin if isinstance(origin, bytes) else contents(origin, file)
    try:
        document = yamlfile.read(data, environ, no_secrets=no_secrets, no_credentials=no_credentials)
    except yamlfile.NotYaml as error:
        fault = error.fault
        raise ConfigError([Problem(file, fault.line, fault.col, "", fault.message)]) from None
    return _Reading(file, document).result(sha256(data).hexdigest(), try_samples)


def contents(path: Path, file: str) -> bytes:
    """What a config file holds; `file` is its name in messages. Raises ConfigError."""
    try:
        with path.open("rb") as opened:
            return opened.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(file, 0, 0, "", f"cannot be read: {reason}")]) from None


class _Reading:
    """One document on its way to a Config."""

    def __init__(self, file: str, document: yamlfile.Document) -> None:
        self._file = file
        self._document = document
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def result(self, digest: str, try_samples: bool) -> Loaded:
        for fault in self._document.faults:
            self._add(self._problems, (fault.line, fault.col), fault.path, fault.message)
        for doubt in self._document.doubts:
            self._add(self._warnings, (doubt.line, doubt.col), doubt.path, f"warning: {doubt.message}")
        raw = self._top()
        sections = {key: self._section(key, raw.get(key)) for key in SECTIONS}
        # What a module of these packages calls Config is one of those: the contract tests hold them to it.
        sources = cast(dict[str, SourceConfig], self._typed("sources", raw.get("sources"), source.types()))
        notifiers = cast(dict[str, NotifierConfig], self._typed("notifiers", raw.get("notifiers"), notifier.types()))
        routes = self._routes(raw.get("routes"))
        CrossCheck(raw, sections, sources, notifiers, routes, self.problem, self.warning).run()
        if try_samples:
            self._try(sources, routes)
        named = [*sources.values(), *notifiers.values(), *routes.values()]
        secrets, words = self._secrets([*(section for section in sections.values() if section is not None), *named])
        redact = Redactor(secrets)
        problems = _in_order(self._problems, redact)
        warnings = _in_order(self._warnings, redact)
        if problems:
            raise ConfigError(problems, warnings)
        defaults = sections["defaults"]
        assert isinstance(defaults, Defaults)
        config = Config.model_validate(
            {
                **sections,
                "sources": sources,
                "notifiers": notifiers,
                "routes": tuple(map(defaults.applied, routes.values())),
            }
        )
        config._secret_paths = frozenset(self._document.secret_paths)
        config._secrets = frozenset(self._document.secrets)
        complete = not self._document.unresolved
        return Loaded(config, tuple(warnings), secrets, words, digest, self._file, self._document.marks, complete)

    # --- the first pass ---

    def _top(self) -> dict[str, Any]:
        raw = self._document.value
        if not isinstance(raw, dict):
            self.problem((), f"expected a mapping with keys such as sources and routes, got {got(raw)}")
            return {}
        for key in raw.keys() - Config.model_fields.keys():
            self.problem((key,), Config.unknown(key), UNKNOWN_KEY)
        return raw

    def _section(self, key: str, value: object) -> Section | None:
        return self._checked(SECTIONS[key], {} if value is None else value, (key,))

    def _typed(self, key: str, raw: object, types: Mapping[str, ModuleType]) -> dict[str, Section]:
        """The sections of a mapping of names, each by the model that its `type` names."""
        if raw is not None and not isinstance(raw, dict):
            self.problem((key,), f"expected a mapping of names to {key}, got {got(raw)}")
        found: dict[str, Section] = {}
        for name, value in raw.items() if isinstance(raw, dict) else ():
            place = (key, name)
            if not _NAME.fullmatch(name):
                message = f"expected a name of letters, digits, '-', '_' and '.', got {got(name)}"
                self.problem(place, message, UNKNOWN_KEY)
            if not isinstance(value, dict):
                self.problem(place, f"expected a mapping with a type, got {got(value)}")
                continue
            model = self._model(key.removesuffix("s"), value, place, types)
            section = self._checked(model, value, place) if model is not None else None
            if section is not None:
                found[name] = section
        return found

    def _model(
        self, what: str, value: dict[str, Any], place: Place, types: Mapping[str, ModuleType]
    ) -> type[Section] | None:
        kind = value.get("type")
        if isinstance(kind, str) and not isinstance(kind, Unresolved) and kind in types:
            model: type[Section] = types[kind].Config
            return model
        if "type" not in value:
            self.problem(place, "missing key 'type'", MISSING_KEY)
        elif not isinstance(kind, str):
            self.problem((*place, "type"), f"expected a {what} type, got {shown(kind)}")
        elif not isinstance(kind, Unresolved):
            self.problem((*place, "type"), f"unknown {what} type {got(kind)}{did_you_mean(kind, types)}")
        for key, message in strangers(value, kind, {name: module.Config for name, module in types.items()}):
            self.problem((*place, key), message, UNKNOWN_KEY)
        return None

    def _routes(self, raw: object) -> dict[int, Route]:
        if raw is not None and not isinstance(raw, list):
            self.problem(("routes",), f"expected a list of routes, got {got(raw)}")
        found = {}
        for place, value in enumerate(raw if isinstance(raw, list) else ()):
            route = self._checked(Route, value, ("routes", place))
            if isinstance(route, Route):
                found[place] = route
        return found

    def _checked(self, model: type[Section], value: object, place: Place) -> Section | None:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for line in error.errors():
                self.problem((*place, *line["loc"]), line["msg"], line["type"])
            return None

    def _try(self, sources: Mapping[str, SourceConfig], routes: Mapping[int, Route]) -> None:
        from relay.trial import Trial

        trial = Trial(sources)
        for place, route in routes.items():
            key = "payload" if "payload" in route.model_fields_set else "to"
            for message in trial.failures(route):
                self.warning(("routes", place, key), message)

    # --- problems ---

    def problem(self, path: Place, message: str, kind: str = "") -> None:
        """Note a mistake."""
        self._place(self._problems, path, message, kind)

    def warning(self, path: Place, message: str, kind: str = "") -> None:
        """Note what is valid but probably not meant."""
        self._place(self._warnings, path, f"warning: {message}", kind)

    def _place(self, to: list[Problem], path: Place, message: str, kind: str) -> None:
        marks = self._document.marks
        if path and path[-1] == "[key]":  # pydantic's way to speak of a mapping's key
            path, kind = path[:-1], UNKNOWN_KEY
        if marks.broken(path):
            return  # it stands in the file, and what is wrong with it has been said
        path = marks.existing(path)
        mark = marks.key(path) if kind in (UNKNOWN_KEY, MISSING_KEY) else marks.value(path)
        self._add(to, mark, path, message)

    def _add(self, to: list[Problem], mark: yamlfile.Mark, path: Place, message: str) -> None:
        to.append(Problem(self._file, *mark, path_text(path), message))

    def _secrets(self, read: Sequence[Section]) -> tuple[frozenset[str], frozenset[str]]:
        """All that may not be seen, and what of it may be an ordinary word, being hidden for its place alone."""
        hidden = [each for section in read for each in hidden_texts(section)]
        found = set(self._document.secrets).union(text for section in read for _, text in secrets_in(section))
        found.update(text for text, may_be_word in hidden if not may_be_word)
        words = {text for text, may_be_word in hidden if may_be_word} - found
        # Also what a filter asks for is a word, wherever it came from: what is masked no filter finds.
        words.update(found.intersection(_matched(self._document.value)))
        none = self._document.unresolved | {""}
        return frozenset((found | words) - none), frozenset(words - none)


def _matched(document: object) -> Iterator[str]:
    """The texts in what routes match."""
    routes = document.get("routes") if isinstance(document, dict) else None
    for route in routes if isinstance(routes, list) else ():
        if isinstance(route, dict):
            yield from _texts(route.get("match"))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)


def _in_order(problems: Iterable[Problem], redact: Redactor) -> list[Problem]:
    """By place; what an alias repeats is said once, and no secret is."""
    seen: dict[tuple[int, int, str], Problem] = {}
    for found in sorted(problems, key=lambda problem: (problem.line, problem.col)):
        message = redact(found.message)
        clean = Problem(found.file, found.line, found.col, found.path, message)
        seen.setdefault((found.line, found.col, message), clean)
    return list(seen.values())
