"""Taking proofs out of bodies: the value at a path of keys becomes `null`, and no other byte changes.

A body is not parsed and written again for this, because that would change it (number formats, escapes, key order) and
with it whatever the receiver checks. So the bytes are read token by token; the body is known to be valid JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

from multidict import CIMultiDict

from relay.event import Inbound
from relay.jsontext import Malformed

Paths = tuple[tuple[str, ...], ...]

# A string, a punctuation mark, or a number or word. Possessive, so that no input makes it try twice.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]|[^\s"{}\[\],:]++', re.DOTALL)
_VALUE = re.compile(rb'\s*+:\s*+("[^"\\]*+(?:\\.[^"\\]*+)*+"|null\b)', re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_\-]+")

Node = dict[str, Any]
_BLANK: Any = None  # a leaf of the tree of paths


def blank(body: bytes, paths: Paths) -> bytes:
    """The body with `null` at each path, at every occurrence, however its keys are escaped.

    The same object if there is nothing to replace. `body` is valid JSON.
    """
    wanted = [path for path in paths if path and _may_hold(body, path)]
    if not wanted:
        return body
    spans = _values_at(body, _tree(wanted))
    if not spans:
        return body
    pieces: list[bytes] = []
    kept = 0
    for start, end in spans:
        pieces.append(body[kept:start])
        kept = end
    pieces.append(body[kept:])
    return b"null".join(pieces)


def without_proofs(inbound: Inbound, paths: Paths) -> Inbound:
    """The request with `null` at each path of its body and of its document; the same one if nothing had to change."""
    if not paths:
        return inbound
    try:
        document = inbound.document()
    except Malformed:
        return inbound
    body = inbound.body
    if not _leads(document, paths):
        return inbound
    if len(paths) == 1 and (span := _sole_value(body, paths[0], document)) is not None:
        start, end = span
        if body[start:end] != b"null":
            body = b"%snull%s" % (body[:start], body[end:])
    else:
        body = blank(body, paths)
    if body is inbound.body:
        return inbound
    for path in paths:
        if path:
            document = _blanked(document, path)
    return Inbound(inbound.headers, body, document)


def _leads(document: Any, paths: Paths) -> bool:
    """Whether any path may lead to something: however its first key is written, the document has it by its name."""
    if isinstance(document, dict):
        for path in paths:
            if not path or path[0] in document:
                return True
    return False


def _sole_value(body: bytes, path: tuple[str, ...], document: Any) -> tuple[int, int] | None:
    """Where the value at a path lies, for the common case: its last key, which the document is known to have, is
    written once in the whole body and cannot be there in escapes. None where it takes a closer look."""
    if not path or _PLAIN.fullmatch(path[-1]) is None or b"\\u00" in body:
        return None
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return None
        document = document[key]
    key_token = b'"%s"' % path[-1].encode()
    place = body.find(key_token)
    if place < 0 or body.find(key_token, place + 1) >= 0:
        return None
    value = _VALUE.match(body, place + len(key_token))
    return value.span(1) if value is not None else None


def put(body: bytes, key: str, value: str) -> bytes:
    """The body, a JSON object, with a string at one of its keys: at every occurrence of it, else as its first member.

    No other byte changes. Raises Malformed for a body that is no JSON object.
    """
    Inbound(CIMultiDict(), body).object()
    text = json.dumps(value).encode()
    spans = _values_at(body, _tree([(key,)]), nulls=True)
    if not spans:
        start = body.index(b"{") + 1
        rest = body[start:]
        comma = b"" if rest.lstrip().startswith(b"}") else b","
        return body[:start] + json.dumps(key).encode() + b":" + text + comma + rest
    pieces: list[bytes] = []
    kept = 0
    for start, end in spans:
        pieces += (body[kept:start], text)
        kept = end
    return b"".join([*pieces, body[kept:]])


def _may_hold(body: bytes, path: tuple[str, ...]) -> bool:
    # Letters and digits can only be escaped as \u00XX; other characters have short escapes too.
    for key in path:
        if key.encode("utf-8", "surrogatepass") in body:
            continue
        if (b"\\u00" if _PLAIN.fullmatch(key) else b"\\") not in body:
            return False
    return True


def _tree(paths: list[tuple[str, ...]]) -> Node:
    tree: Node = {}
    for path in sorted(paths, key=len):  # a shorter path takes all that lies below it
        node = tree
        for key in path[:-1]:
            below = node.setdefault(key, {})
            if below is _BLANK:
                break
            node = below
        else:
            node[path[-1]] = _BLANK
    return tree


def _values_at(body: bytes, tree: Node, *, nulls: bool = False) -> list[tuple[int, int]]:
    """Where the values lie that are to be replaced, in order; those that are null already only with `nulls`."""
    spans: list[tuple[int, int]] = []
    open_nodes: list[Node | None] = []  # for each open container: the part of the tree that applies to its keys
    node: Node | None = None  # the same for the innermost one
    below: Any = tree  # the part that applies to the value that comes next, if that is an object
    key_next = False
    depth = 0  # inside a value that is being replaced, or that no path leads into: how deep
    start = -1  # where the value being replaced began
    for match in _TOKEN.finditer(body):
        token = match[0]
        mark = token[0]
        if depth:
            if mark in b"{[":
                depth += 1
            elif mark in b"}]":
                depth -= 1
                if not depth and start >= 0:
                    spans.append((start, match.end()))
                    start = -1
            continue
        if mark in b"}]":
            node = open_nodes.pop() if open_nodes else None
            key_next = False
        elif mark == 0x2C:  # a comma: the next key of an object that a path leads into
            key_next = True
        elif mark == 0x3A:
            continue
        elif key_next:
            below = (node or {}).get(_key(token), _MISSING)
            key_next = False
        elif below is _BLANK:
            below = _MISSING
            if mark in b"{[":
                depth, start = 1, match.start()
            elif nulls or token != b"null":
                spans.append((match.start(), match.end()))
        elif mark == 0x7B and below is not _MISSING:
            open_nodes.append(node)
            node, below, key_next = below, _MISSING, True
        elif mark in b"{[":
            depth = 1  # no path leads in here
    return spans


_MISSING: Any = object()


def _key(token: bytes) -> Any:
    if b"\\" not in token:
        return token[1:-1].decode("utf-8", "replace")
    try:
        return json.loads(token)
    except ValueError:
        return None


def _blanked(document: Any, path: tuple[str, ...]) -> Any:
    """A copy of the document, as far as the path leads, with None at its end."""
    if not isinstance(document, dict) or path[0] not in document:
        return document
    copy = dict(document)
    copy[path[0]] = _blanked(copy[path[0]], path[1:]) if len(path) > 1 else None
    return copy
