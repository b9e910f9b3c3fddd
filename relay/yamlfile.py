"""YAML without surprises, with the place of every key and value, and with `${…}` worked out.

YAML 1.2 core: `no`, `on` and `1:30` are strings; so is `0123`, which people mean as digits. UTF-8, one document, no
duplicate keys, no `<<`, no tags but the core ones. It is built from the parser's events, so that depth, aliases and
duplicates are judged as they arrive: nothing is expanded before it is counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.reader import Reader

from relay.fields import Unresolved
from relay.immutable import immutable
from relay.interpolation import LARGEST, Lookup
from relay.problems import Path
from relay.yamlscalar import CORE, NO_TAG, QUOTE, scalar

_DEEPEST = 50
_MOST_EXPANDED = 10_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_UNUSED = f"this anchor is not used, and is no part of the value {QUOTE['anchor']}"
_NAMED = re.compile(r"\b(?:alias|anchor|tag)\b(?! directive)")  # in the parser's words
_HANDLE = re.compile(r"(tag handle) .*", re.DOTALL)  # shown by PyYAML's own parser, which stands in for libyaml
_WORD = re.compile(r"[-+.~\w]+")


@immutable
class Fault:
    """A mistake in the file itself; `line` and `col` count from 1."""

    line: int
    col: int
    path: Path
    message: str


class NotYaml(Exception):
    """The file cannot be read any further."""

    def __init__(self, line: int, col: int, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(line, col, (), message)


Mark = tuple[int, int]
"""Line and column, from 1."""


@dataclass(slots=True)
class Node:
    """A value of the document and where it begins."""

    mark: Mark
    value: Any = None
    items: list[Node] | dict[str, tuple[Mark, Node]] | None = None
    size: int = 1
    done: bool = True
    broken: bool = False
    """Whether what stands there could not be read, as `faults` say: nothing more is to be said of its value."""


class Marks:
    """Where keys and values stand."""

    def __init__(self, root: Node) -> None:
        self._root = root

    def value(self, path: Path) -> Mark:
        """Where the value at a path begins; for a path that leaves the document, its last part that exists."""
        return self._find(path)[1].mark

    def key(self, path: Path) -> Mark:
        """Where the key of a path stands; an item of a list has none, and stands where its value does."""
        key, node = self._find(path)
        return key or node.mark

    def existing(self, path: Path) -> Path:
        """The path, as far as the document has it."""
        node: Node | None = self._root
        for depth, part in enumerate(path):
            node = _child(node, part)
            if node is None:
                return path[:depth]
        return path

    def broken(self, path: Path) -> bool:
        """Whether something on the way to a path could not be read."""
        node: Node | None = self._root
        for part in path:
            if node is None or node.broken:
                break
            node = _child(node, part)
        return node is not None and node.broken

    def _find(self, path: Path) -> tuple[Mark | None, Node]:
        key, node = None, self._root
        for part in path:
            child = _child(node, part)
            if child is None:
                break
            key = node.items[part][0] if isinstance(node.items, dict) and isinstance(part, str) else None
            node = child
        return key, node


def _child(node: Node | None, part: str | int) -> Node | None:
    items = node.items if node is not None else None
    if isinstance(items, dict) and isinstance(part, str) and part in items:
        return items[part][1]
    if isinstance(items, list) and isinstance(part, int) and part < len(items):
        return items[part]
    return None


@dataclass(slots=True)
class Document:
    """What a file says, and everything that is wrong with it as a file."""

    value: Any
    marks: Marks
    faults: list[Fault] = field(default_factory=list)
    doubts: list[Fault] = field(default_factory=list)
    """What is valid but probably not meant."""
    secrets: set[str] = field(default_factory=set)
    """Values that came by `file:` or `credential:`."""
    secret_paths: set[Path] = field(default_factory=set)
    """Where they went."""
    unresolved: set[str] = field(default_factory=set)
    """Texts that were not looked up, or led nowhere: no secrets."""


def read(
    data: bytes, environ: Mapping[str, str] = os.environ, *, no_secrets: bool = False, no_credentials: bool = False
) -> Document:
    """The document in a file. Raises NotYaml where nothing can be made of it; all else is in `faults`.

    With `no_secrets` nothing is looked up: a value with `${…}` becomes `Unresolved`. With `no_credentials` that is so
    for `${credential:…}` alone.
    """
    text = _decoded(data)
    composer = _Composer(text)
    root = composer.compose()
    document = Document(None, Marks(root), composer.faults, composer.doubts())
    lookup = Lookup(environ, no_secrets, no_credentials)
    document.value = _Builder(document, lookup).build(root, ())
    document.secrets = lookup.secrets
    document.faults.sort(key=lambda fault: (fault.line, fault.col))
    return document


def _decoded(data: bytes) -> str:
    if len(data) > LARGEST:
        raise NotYaml(1, 1, "the file is larger than 1 MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise NotYaml(*_place(before), "the file is not UTF-8") from None
    text = text.removeprefix("\ufeff")
    odd = Reader.NON_PRINTABLE.search(text)
    if odd is not None:
        raise NotYaml(*_place(text[: odd.start()]), f"the character U+{ord(odd[0]):04X} is not allowed in YAML")
    return text


def _place(before: str) -> Mark:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


# --- structure --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    node: Node
    anchor: str | None
    path: Path
    key: str | None = None
    key_mark: Mark = (0, 0)
    has_key: bool = False


class _Composer:
    """Makes nodes of the parser's events."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._anchors: dict[str, Node] = {}
        self._unused: dict[int, tuple[Node, Fault]] = {}
        self._open: list[_Open] = []
        self._expanded = 0
        self._root: Node | None = None
        self.faults: list[Fault] = []

    def compose(self) -> Node:
        loader = _Loader(self._text)
        try:
            while not isinstance(event := loader.get_event(), StreamEndEvent):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from None
        finally:
            loader.dispose()
        if self._root is None:
            raise NotYaml(1, 1, "the file is empty (an empty config is {})")
        return self._root

    def doubts(self) -> list[Fault]:
        """Anchors that nobody wanted to be one, by all that is known."""
        return [doubt for _, doubt in self._unused.values()]

    def _take(self, event: Any) -> None:
        mark = (event.start_mark.line + 1, event.start_mark.column + 1)
        match event:
            case DocumentStartEvent():
                if self._root is not None:
                    raise NotYaml(*mark, "a second document begins here: one file holds one")
                if event.version is not None and tuple(event.version) != (1, 2):
                    raise NotYaml(*mark, "expected YAML 1.2")
            case AliasEvent():
                self._put(self._aliased(event, mark), None, mark)
            case ScalarEvent():
                node = Node(mark)
                try:
                    node.value = scalar(event)
                except ValueError as error:
                    self._fault(mark, str(error))
                    node.broken = True
                if event.anchor is not None and not event.value and event.implicit[0]:
                    self._fault(mark, f"this anchor has no value {QUOTE['anchor']}")
                    node.broken = True
                elif event.anchor is not None and event.implicit[0]:
                    self._unused[id(node)] = node, Fault(*mark, self._path(), _UNUSED)
                self._put(node, event.anchor, mark, plain=event.implicit[0])
            case MappingStartEvent() | SequenceStartEvent():
                self._begin(event, mark)
            case CollectionEndEvent():
                ended = self._open.pop()
                ended.node.done = True
                self._put(ended.node, None, ended.node.mark)

    def _begin(self, event: Any, mark: Mark) -> None:
        kind = "map" if isinstance(event, MappingStartEvent) else "seq"
        if event.tag not in (None, "!", CORE + kind):
            self._fault(mark, NO_TAG)
        if len(self._open) >= _DEEPEST:
            raise NotYaml(*mark, f"nested more than {_DEEPEST} levels deep")
        node = Node(mark, items={} if kind == "map" else [], done=False)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._open.append(_Open(node, event.anchor, self._path()))

    def _aliased(self, event: AliasEvent, mark: Mark) -> Node:
        node = self._anchors.get(str(event.anchor))
        self._unused.pop(id(node), None)
        if node is None:
            self._fault(mark, f"this alias has no anchor before it {QUOTE['alias']}")
            return Node(mark, broken=True)
        if not node.done:
            self._fault(mark, "this alias contains itself")
            return Node(mark, broken=True)
        self._expanded += node.size
        if self._expanded > _MOST_EXPANDED:
            raise NotYaml(*mark, f"the aliases expand to more than {_MOST_EXPANDED:,} nodes")
        return node

    def _put(self, node: Node, anchor: str | None, mark: Mark, *, plain: bool = False) -> None:
        """Give a finished node to what contains it: as the root, an item, a key or a key's value."""
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        items = parent.node.items
        if isinstance(items, list):
            items.append(node)
        elif not parent.has_key:
            parent.key, parent.key_mark, parent.has_key = self._key(node, mark, plain), mark, True
            parent.node.size += 1
            return
        else:
            assert isinstance(items, dict)
            if parent.key is not None:
                items.setdefault(parent.key, (parent.key_mark, node))
            parent.key, parent.has_key = None, False
        parent.node.size += node.size

    def _key(self, node: Node, mark: Mark, plain: bool) -> str | None:
        """The key that a node is, or None and a fault."""
        path, items = self._open[-1].path, self._open[-1].node.items
        assert isinstance(items, dict)
        if node.broken:
            return None  # what is wrong with it has been said
        if node.items is not None:
            self.faults.append(Fault(*mark, path, "a key cannot be a list or a mapping"))
        elif not isinstance(node.value, str):
            shown = _WORD.match(self._text.splitlines()[mark[0] - 1], mark[1] - 1)
            quoted = f': "{shown[0]}"' if shown is not None else ""
            self.faults.append(Fault(*mark, path, f"a key must be a string (quote it{quoted})"))
        elif node.value == "<<" and plain:
            self.faults.append(Fault(*mark, path, "merge keys (<<) are not supported"))
        elif node.value in items:
            first = items[node.value][0][0]
            self.faults.append(Fault(*mark, (*path, node.value), f"duplicate key (the first is in line {first})"))
        else:
            return node.value
        return None

    def _path(self) -> Path:
        if not self._open:
            return ()
        parent = self._open[-1]
        if isinstance(parent.node.items, list):
            return (*parent.path, len(parent.node.items))
        return (*parent.path, parent.key) if parent.key is not None else parent.path

    def _fault(self, mark: Mark, message: str) -> None:
        self.faults.append(Fault(*mark, self._path(), message))

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> NotYaml:
        place = error.problem_mark or error.context_mark
        line, col = (place.line, place.column) if place is not None else (0, 0)
        lines = self._text.splitlines()
        here = lines[line] if line < len(lines) else ""
        what = _HANDLE.sub(r"\1", error.problem or "it ends too early")
        if error.context:
            what += f" {error.context}"
        named = _NAMED.search(what)
        if named is not None:
            what += f" {QUOTE[named[0]]}"
        if here[col : col + 1] == "\t":
            what += " (a tab cannot indent: use spaces)"
        elif "${" in here:
            what += ' (inside { } and [ ] a value with ${…} needs quotes: "${NAME}")'
        return NotYaml(line + 1, col + 1, f"not YAML: {what}")


# --- values ----------------------------------------------------------------------------------------------------------


class _Builder:
    """Makes plain values of nodes, with `${…}` worked out."""

    def __init__(self, document: Document, lookup: Lookup) -> None:
        self._document = document
        self._lookup = lookup
        self._texts: dict[int, tuple[str, bool]] = {}

    def build(self, node: Node, path: Path) -> Any:
        if isinstance(node.items, list):
            return [self.build(item, (*path, place)) for place, item in enumerate(node.items)]
        if isinstance(node.items, dict):
            return {key: self.build(value, (*path, key)) for key, (_, value) in node.items.items()}
        if not isinstance(node.value, str) or "${" not in node.value:
            return node.value
        known = self._texts.get(id(node))
        if known is None:  # what an alias repeats is looked up, and complained about, once
            value, errors, secret = self._lookup.text(node.value)
            self._document.faults.extend(Fault(*node.mark, path, error) for error in errors)
            known = self._texts[id(node)] = (value, secret)
        if isinstance(known[0], Unresolved):
            self._document.unresolved.add(node.value)
        if known[1]:
            self._document.secret_paths.add(path)
        return known[0]
