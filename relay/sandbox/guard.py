"""The steps that count, put into a parsed template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from jinja2 import TemplateAssertionError, nodes
from jinja2.environment import Environment
from jinja2.visitor import NodeTransformer

from relay.problems import did_you_mean


class Guard(NodeTransformer):
    """Turns what Jinja would compile to bare Python into calls that count."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def _filter(self, node: nodes.Node, on: nodes.Expr, name: str, args: list[nodes.Expr]) -> nodes.Filter:
        return nodes.Filter(on, name, args, [], None, None, lineno=node.lineno)

    def _body(self, node: nodes.Node, body: list[nodes.Node]) -> list[nodes.Node]:
        units = nodes.Const(1 + sum(map(_size, body)), lineno=node.lineno)
        return [nodes.ExprStmt(self._filter(node, units, "%step", []), lineno=node.lineno), *body]

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - as Jinja names them
        node.body = self._body(node, node.body)
        self.generic_visit(node)
        node.iter = self._filter(node, cast(nodes.Expr, node.iter), "%each", [])
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        node.body = self._body(node, node.body)
        return self.generic_visit(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        node.body = self._body(node, node.body)
        return self.generic_visit(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        node.body = self._body(node, node.body)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(node, nodes.List(node.nodes, lineno=node.lineno), "%concat", [])

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        args: list[nodes.Expr] = []
        for operand in node.ops:
            args += [nodes.Const(operand.op, lineno=node.lineno), operand.expr]
        return self._filter(node, node.expr, "%compare", args)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None, lineno=node.lineno) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return self._filter(node, node.node, "%slice", ends)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        self._known("filter", node, self._environment.filters)
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        self._known("test", node, self._environment.tests)
        return self.generic_visit(node)

    def _known(self, what: str, node: nodes.Filter | nodes.Test, known: Mapping[str, Any]) -> None:
        if node.name not in known:
            raise TemplateAssertionError(f"unknown {what} '{node.name}'{did_you_mean(node.name, known)}", node.lineno)

    def _alone(self, node: nodes.Node) -> nodes.Node:
        raise TemplateAssertionError("there is no other template to take in", node.lineno)

    visit_Extends = visit_Include = visit_Import = visit_FromImport = _alone  # noqa: N815


def _size(node: nodes.Node) -> int:
    """How many nodes there are below one, without the bodies that count for themselves."""
    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
        return 1
    return 1 + sum(map(_size, node.iter_child_nodes()))
