"""JMESPath as the config uses it: compiled once, refused at load where it could only fail, one error for all failures.

JMESPath itself finds out about an unknown function or a wrong number of arguments when the first event comes. And it
reads `!a.b` as `(!a).b`, which is never true: who writes that means `!(a.b)`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any

# jmespath itself is imported by what needs it: most configs hold no expression.

_LONGEST = 4096
# What ends the operand of `!` in `!operand`, outside of brackets.
_ENDS = frozenset(
    {"and", "or", "pipe", "eq", "ne", "lt", "lte", "gt", "gte", "comma", "colon", "rparen", "rbracket", "rbrace", "eof"}
)
_OPENING = frozenset({"lparen", "lbracket", "lbrace", "filter"})
_CLOSING = frozenset({"rparen", "rbracket", "rbrace"})
# What reaches into its left side; `!` binds more tightly than these.
_REACHING = frozenset({"subexpression", "value_projection", "filter_projection", "flatten", "index_expression"})


class QueryError(ValueError):
    """An expression that cannot be compiled, or that failed on an event."""


class Query:
    """A compiled expression."""

    __slots__ = ("_parsed", "path", "text")

    def __init__(self, text: str, parsed: Any) -> None:
        self.text = text
        self._parsed = parsed
        self.path = _path(parsed.parsed)
        """The keys that it names, where it does no more than that, as most do: `body.data.id`. JMESPath's interpreter
        takes many times as long over them."""

    def search(self, data: Any) -> Any:
        """What the expression selects. Raises QueryError."""
        try:
            if self.path is not None:
                return _at(data, self.path)
            return self._parsed.search(data)
        except Exception as error:  # noqa: BLE001  # of JMESPath and of Python: recursion, numbers too large, odd types
            raise QueryError(f"{type(error).__name__}: {error}") from None

    def may_see(self, keys: Container[str]) -> bool:
        """Whether what it selects may depend on one of these keys: it names one, or takes all there are."""
        for node in _nodes(self._parsed.parsed):
            if node["type"] == "field" and node["value"] in keys:
                return True
            if node["type"] == "current" or (
                node["type"] == "value_projection" and node["children"][0]["type"] == "identity"
            ):
                return True
        return False

    def __repr__(self) -> str:
        return f"Query({self.text!r})"


def compile(text: str) -> Query:  # noqa: A001  # read as `query.compile`
    """The expression, checked as far as that is possible without an event. Raises QueryError."""
    if len(text) > _LONGEST:
        raise QueryError(f"the expression is longer than {_LONGEST} characters")
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        parsed = jmespath.compile(text)
    except JMESPathError as error:
        raise QueryError(_one_line(error)) from None
    except RecursionError:
        raise QueryError("the expression is nested too deeply") from None
    except Exception as error:  # noqa: BLE001  # its lexer also lets errors of int() and json through
        raise QueryError(f"not a JMESPath expression: {error}") from None
    for node in _nodes(parsed.parsed):
        if node["type"] == "function_expression":
            _check_call(node["value"], len(node["children"]))
        elif node["type"] in _REACHING and node["children"][0].get("type") == "not_expression":
            raise QueryError(_trap(text))
    return Query(text, parsed)


def _at(data: Any, path: tuple[str, ...]) -> Any:
    try:
        for key in path:
            data = data.get(key)
    except AttributeError:
        return None
    return data


def _path(node: Any) -> tuple[str, ...] | None:
    parts = node["children"] if node["type"] == "subexpression" else [node]
    return tuple([part["value"] for part in parts]) if all(part["type"] == "field" for part in parts) else None


def truthy(value: object) -> bool:
    """Whether a result is true in JMESPath's sense: not false, null, or an empty string, list or object. 0 is true."""
    return not (value is None or value is False or value == "" or value == [] or value == {})


def headers_object(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers as expressions see them: names in lower case, repeated ones joined by `, `."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def headers_named(text: str) -> Iterator[str]:
    """The headers that an expression over `{body, headers}` names, in lower case. Raises QueryError."""
    for node in _nodes(compile(text)._parsed.parsed):
        if node["type"] == "subexpression":
            whole, part = node["children"][:2]
            if whole == {"type": "field", "children": [], "value": "headers"} and part["type"] == "field":
                yield part["value"].lower()


def _nodes(root: Any) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict) and "type" in node:
            yield node
            waiting.extend(node["children"])


def _check_call(name: str, given: int) -> None:
    from jmespath.functions import Functions

    function = Functions.FUNCTION_TABLE.get(name)
    if function is None:
        raise QueryError(f"unknown function {name}()")
    signature = function["signature"]
    wanted = len(signature)
    arguments = "1 argument" if wanted == 1 else f"{wanted} arguments"
    if signature and signature[-1].get("variadic"):
        if given < wanted:
            raise QueryError(f"{name}() takes at least {arguments}, got {given}")
    elif given != wanted:
        raise QueryError(f"{name}() takes {arguments}, got {given}")


def _trap(text: str) -> str:
    mended = _mended(text)
    advice = f"write {mended}" if mended is not None else "write !(a.b)"
    return f"'!' binds more tightly than '.', so that !a.b means (!a).b and is never true: {advice}"


def _mended(text: str) -> str | None:
    """The text with brackets around what its `!` was meant for; None where the `!` has brackets of its own."""
    from jmespath import lexer

    tokens = list(lexer.Lexer().tokenize(text))
    edits: list[tuple[int, int]] = []
    for place, token in enumerate(tokens):
        if token["type"] != "not" or tokens[place + 1]["type"] == "not":
            continue
        depth, reaches, end = 0, False, place + 1
        while end < len(tokens) - 1:
            kind = tokens[end]["type"]
            if depth == 0 and kind in _ENDS:
                break
            reaches = reaches or (depth == 0 and kind in ("dot", "filter", "flatten"))
            depth += (kind in _OPENING) - (kind in _CLOSING)
            end += 1
        if reaches:
            edits.append((tokens[place]["start"] + 1, tokens[end]["start"]))
    if not edits:
        return None
    for opening, closing in reversed(edits):
        operand = text[opening:closing]
        kept = operand.rstrip()
        text = f"{text[:opening]}({kept}){operand[len(kept) :]}{text[closing:]}"
    return text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
