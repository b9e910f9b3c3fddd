"""Proofs are compared in constant time, and by bytes: the code itself is looked at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import relay
from relay.source import types

PACKAGE = Path(relay.__file__).parent
PROVING = (
    *(PACKAGE / name for name in ("proof.py", "source.py", "web/auth.py")),
    *sorted((PACKAGE / "sources").glob("*.py")),
)
_SECRET_WORDS = {"code", "digest", "given", "password", "secret", "secrets", "signature", "token", "tokens"}
_REVEALING = {"digest", "hexdigest", "reveal"}


def compared(tree: ast.AST) -> Iterator[ast.Compare]:
    """Comparisons for equality, or for being among some, with a proof in them, by its name or origin."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) for side in sides) or any(_counts(side) for side in sides):
            continue  # with what is written here, or the length of it
        if any(_of_a_proof(side) for side in sides) and not _looks_up(node):
            yield node


def _looks_up(node: ast.Compare) -> bool:
    """`name in given`: whether a header has a part of this name."""
    return isinstance(node.ops[0], ast.In | ast.NotIn) and ast.unparse(node.comparators[0]) == "given"


def _counts(side: ast.expr) -> bool:
    return isinstance(side, ast.Call) and isinstance(side.func, ast.Name) and side.func.id == "len"


def _of_a_proof(side: ast.expr) -> bool:
    match side:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _SECRET_WORDS
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in _REVEALING
        case ast.Subscript(value=value):
            return _of_a_proof(value)
        case ast.BinOp(left=left, right=right):
            return _of_a_proof(left) or _of_a_proof(right)
    return False


def shown(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"


def test_no_proof_is_compared_but_in_constant_time() -> None:
    found = [shown(path, node) for path in PROVING for node in compared(ast.parse(path.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    "text", ["secret == given", "mac.digest() != x", "x in tokens", "self.secret.reveal() == text", "a == b.signature"]
)
def test_a_comparison_that_stops_early_is_found(text: str) -> None:
    assert len(list(compared(ast.parse(text)))) == 1


def test_what_compares_in_constant_time_is_given_bytes() -> None:
    """Of text that is not ASCII it raises, which would be a 503 for a wrong signature."""
    calls = 0
    for path in PROVING:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("compare_digest"):
                calls += 1
                assert ast.unparse(node.func) == "hmac.compare_digest", shown(path, node)
                assert not any(isinstance(one, ast.Constant | ast.JoinedStr) for one in node.args), shown(path, node)
    assert calls >= 3


def test_every_type_of_source_is_looked_at() -> None:
    assert {module.__file__ for module in types().values()} <= {str(path) for path in PROVING}
