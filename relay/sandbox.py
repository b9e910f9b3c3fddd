"""Where templates run: Jinja2's immutable sandbox, with a bound on how much work one rendering may do.

Jinja's sandbox keeps templates away from Python's internals, not from the processor: `{{ 'a' * 300000000 }}` is safe in
its eyes. Here every loop, call, operator, filter and test spends from a budget before it begins, by the size of what it
is about to touch, and no text may grow past 4 MiB. One unit is about a microsecond of an ordinary machine. It counts
work and not time, so that a template that works once works always: a busy machine does not make it fail. What no count
can tell beforehand, such as a search that is quadratic for one text in a million, `relay.rendering` ends.

What has no cost that could be told beforehand is left out: filters and tests are those named here, of Python's methods
those in `_METHODS`, and there is no other template to include.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import BuiltinMethodType
from typing import Any, cast
from urllib.parse import quote_plus

from jinja2 import StrictUndefined, TemplateAssertionError, filters, nodes, pass_context, pass_environment, tests
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from relay import jsontext
from relay.problems import did_you_mean
from relay.work import MOST_TEXT, TooMuch, Work

_MOST_BITS = 4096  # of a whole number

work: ContextVar[Work] = ContextVar("work")


def _fits(size: int) -> None:
    if size > MOST_TEXT:
        raise TooMuch("a text would be larger than 4 MiB")


def _checked(value: Any) -> Any:
    """A result, if it is not too large; an iterator so that each of its items costs."""
    if isinstance(value, str):
        _fits(len(value))
        return str(value) if isinstance(value, Markup) else value
    if isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise TooMuch("a number is too large")
    elif isinstance(value, Iterator):
        return _Each(value)
    return value


class _Each:
    """An iterator, each step of which costs."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> _Each:
        return self

    def __next__(self) -> Any:
        work.get().spend(1)
        return next(self._items)


def _each(value: Any) -> Any:
    """What a loop runs over."""
    return value if isinstance(value, (Undefined, _Each)) else _Each(iter(value))


def _sized(value: Any) -> Any:
    """A value that can be weighed: what an iterator still holds, as a list."""
    return list(value) if isinstance(value, _Each) else value


# --- operators --------------------------------------------------------------------------------------------------------

_SCALARS = (int, float, type(None))
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


def _compare(left: Any, *rest: Any) -> Any:
    """`a < b < c`."""
    result = True
    for word, right in zip(rest[::2], rest[1::2], strict=True):
        result = _compared(word, left, right)
        if not result:
            return result
        left = right
    return result


def _compared(word: str, left: Any, right: Any) -> Any:
    spent = work.get()
    spent.spend(1)
    if not (isinstance(left, _SCALARS) and isinstance(right, _SCALARS)):
        spent.weigh(left)
        if isinstance(right, range):
            spent.spend(0 if isinstance(left, int) else len(right) >> 3)
        elif not (word in ("in", "notin") and isinstance(right, dict)):
            spent.weigh(right)
    return _COMPARE[word](left, right)


def _concat(values: list[Any]) -> str:
    """`a ~ b`."""
    texts = [_text(value) for value in values]
    _fits(sum(map(len, texts)))
    return "".join(texts)


def _slice(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`a[1:2]`. Not weighed in depth: what is in the list is not touched."""
    size = len(value)
    work.get().spend(1 + (size >> 10 if isinstance(value, str) else size >> 3))
    return value[slice(start, stop, step)]


def _text(value: Any) -> str:
    """A value as it is printed."""
    if type(value) is str:
        work.get().spend(1 + (len(value) >> 10))
        return value
    if isinstance(value, Undefined):
        return str(value)  # raises
    if not isinstance(value, (str, *_SCALARS, dict, list, tuple)):
        raise TypeError(f"a {_kind(value)} cannot be printed (did you mean to add '| list' or '| join'?)")
    work.get().weigh(value)
    _seen_through(value)
    return str(_checked(str(value)))


def _seen_through(value: Any) -> None:
    """Refuse what would print something of Python's, or an undefined value, inside of it. It has been weighed."""
    waiting = [value]
    while waiting:
        branch = waiting.pop()
        if isinstance(branch, (str, *_SCALARS)):
            continue
        if isinstance(branch, dict):
            parts = [*branch, *branch.values()]
        elif isinstance(branch, (list, tuple)):
            parts = list(branch)
        else:
            _text(branch)  # raises
            continue
        waiting.extend(part for part in parts if not isinstance(part, (str, *_SCALARS)))


def _kind(value: object) -> str:
    return "sequence that is worked out step by step" if isinstance(value, (_Each, range)) else type(value).__name__


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        _fits(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        work.get().spend((len(left) + len(right)) >> 3)
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    many, times = (right, left) if isinstance(left, int) else (left, right)
    if isinstance(many, str) and isinstance(times, int):
        _fits(len(many) * times)
    elif isinstance(many, (list, tuple)) and isinstance(times, int):
        work.get().spend(max(0, len(many) * times))
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MOST_BITS:
        raise TooMuch("a number is too large")
    return left**right


_FORMAT = re.compile(r"%(?:\([^()]*\))?[-#0 +]*([0-9]*|\*)(?:\.([0-9]*|\*))?[a-zA-Z%]")


def _modulo(left: Any, right: Any) -> Any:
    if not isinstance(left, str):
        return left % right
    size = len(left)
    for number, match in enumerate(_FORMAT.finditer(left), 1):
        work.get().weigh(right)
        _seen_through(right)
        for width in match.groups():
            if width == "*" or len(width or "") > 7:
                raise TooMuch("a text would be larger than 4 MiB")
            size += int(width or 0)
        _fits(size)
        if number > 1000:
            raise TooMuch("a format has more than 1,000 places")
    return left % right


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": _add,
    "-": operator.sub,
    "*": _multiply,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": _power,
    "%": _modulo,
}

# --- methods ----------------------------------------------------------------------------------------------------------

_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        {"capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii"}
        | {"isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust", "lower"}
        | {"lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition"}
        | {"rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"}
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
_SPLITTING = frozenset({"rsplit", "split", "splitlines"})
_OBJECTS = (Macro, LoopContext, BlockReference, Cycler, Joiner)
_MAKERS = (safe_range, dict, Cycler, Joiner, Namespace)


def _method(method: BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method of a text, mapping or list."""
    owner, name, spent = cast(Any, method.__self__), method.__name__, work.get()
    if isinstance(owner, dict):
        spent.spend(2 if name == "get" else 2 + (len(owner) >> 3))
        found = method(*args, **kwargs)
        return found if name == "get" else list(found)
    spent.weigh(owner)
    if name == "join" and args:
        args = (_sized(args[0]), *args[1:])
        _fits(len(owner) * len(args[0]))
    for arg in (*args, *kwargs.values()):
        spent.weigh(arg)
    if name in _PADDING and args and isinstance(args[0], int):
        _fits(args[0])
    elif name == "replace" and len(args) > 1:
        _fits(_replaced(owner, args[0], args[1]))
    elif name in _SPLITTING:
        spent.spend(len(owner) >> 3)
    return _checked(method(*args, **kwargs))


def _replaced(text: str, old: str, new: str) -> int:
    """How long a text can be after a replacement."""
    return len(text) + text.count(old) * max(0, len(new) - len(old))


# --- filters ----------------------------------------------------------------------------------------------------------


def _batch(value: Any, linecount: int, fill_with: Any = None) -> Any:
    work.get().spend(max(0, linecount))
    return filters.do_batch(value, linecount, fill_with)


def _center(value: Any, width: int = 80) -> str:
    _fits(width)
    return str(value).center(width)


def _format(value: Any, *args: Any, **kwargs: Any) -> Any:
    return _modulo(str(value), kwargs or args)


def _html(value: Any) -> str:
    return str(escape(str(value)))


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = str(s)
    step = len(width) if isinstance(width, str) else width
    _fits(step)
    _fits(len(text) + (text.count("\n") + 1) * step)
    return filters.do_indent(text, width, first, blank)


@pass_environment
def _join(environment: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    items = list(value)
    if attribute is not None:
        items = [filters.make_attrgetter(environment, attribute)(item) for item in items]
    d = _text(d)
    _fits(len(d) * len(items))
    texts = [_text(item) for item in items]
    _fits(sum(map(len, texts)) + len(d) * len(items))
    return d.join(texts)


def _list(value: Any) -> list[Any]:
    if isinstance(value, (str, range)):
        work.get().spend(len(value))
    elif isinstance(value, (list, tuple, dict)):
        work.get().spend(len(value) >> 3)
    return list(value)


_MARKDOWN = re.compile(r"([\\`*_~|<>\[\](){}#+\-.!:@])")


def _markdown(value: Any) -> str:
    """A text without a meaning in Markdown: every mark is escaped."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def _replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(s), _text(old), _text(new)
    _fits(_replaced(text, old, new))
    return text.replace(old, new, -1 if count is None else count)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > 20:
        raise TooMuch("a precision is larger than 20")
    if method == "common":
        return round(value, precision)
    if method not in ("ceil", "floor"):
        raise ValueError("round: expected common, ceil or floor")
    return (math.ceil if method == "ceil" else math.floor)(value * (10**precision)) / (10**precision)


_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def _slack(value: Any) -> str:
    """A text as Slack wants it: https://docs.slack.dev/messaging/formatting-message-text#escaping"""
    return str(value).translate(_SLACK)


@pass_environment
def _sum(environment: Any, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    get = filters.make_attrgetter(environment, attribute) if attribute is not None else None
    total = start
    for item in iterable:
        work.get().spend(1)
        total = _checked(_add(total, item if get is None else get(item)))
    return total


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON as it is, without HTML's escapes."""
    return jsontext.dumps(value, indent=indent is not None).decode()


def _urlencode(value: Any) -> str:
    """Text for a URL's query or a form; a mapping or pairs as `a=1&b=2`."""
    if not isinstance(value, (dict, list, tuple)):
        return quote_plus(_text(value), errors="replace")
    pairs = value.items() if isinstance(value, dict) else value
    return "&".join(f"{_urlencode(_text(name))}={_urlencode(_text(content))}" for name, content in pairs)


_OWN: dict[str, Callable[..., Any]] = {
    "batch": _batch,
    "center": _center,
    "e": _html,
    "escape": _html,
    "forceescape": _html,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "list": _list,
    "markdown": _markdown,
    "replace": _replace,
    "round": _round,
    "slack": _slack,
    "sum": _sum,
    "tojson": _tojson,
    "urlencode": _urlencode,
}
_JINJAS = frozenset(
    {"abs", "capitalize", "count", "d", "default", "dictsort", "filesizeformat", "first", "float", "groupby", "int"}
    | {"items", "last", "length", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select"}
    | {"selectattr", "slice", "sort", "string", "title", "trim", "truncate", "unique", "upper"}
)
_SHALLOW = frozenset(
    {"batch", "count", "d", "default", "first", "items", "join", "last", "length", "list", "map", "reject"}
    | {"rejectattr", "select", "selectattr", "slice", "sum"}
)
"""They do not look into what they are given, or count as they go."""
_TEXTUAL = frozenset(
    {"capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "markdown", "replace", "slack"}
    | {"string", "title", "trim", "truncate", "upper"}
)
"""They look at the text that a value prints."""
_HEAVY = {"dictsort": 16, "groupby": 16, "max": 4, "min": 4, "sort": 16, "title": 64, "unique": 4, "urlencode": 64}
"""How many times they look at it, or how much more slowly."""

_TESTS = frozenset(
    {"boolean", "defined", "divisibleby", "eq", "even", "false", "float", "ge", "gt", "in", "integer", "iterable", "le"}
    | {"lower", "lt", "mapping", "ne", "none", "number", "odd", "sequence", "string", "true", "undefined", "upper"}
    | {"==", "!=", ">", ">=", "<", "<=", "equalto", "greaterthan", "lessthan"}
)
_COMPARING = {
    "==": "eq",
    "!=": "ne",
    ">": "gt",
    ">=": "gteq",
    "<": "lt",
    "<=": "lteq",
    "equalto": "eq",
    "lessthan": "lt",
    "greaterthan": "gt",
    "eq": "eq",
    "ne": "ne",
    "gt": "gt",
    "ge": "gteq",
    "lt": "lt",
    "le": "lteq",
    "in": "in",
}


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that spends before it works and whose result is looked at."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    shallow, textual, times = name in _SHALLOW, name in _TEXTUAL, _HEAVY.get(name, 1)

    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        spent = work.get()
        spent.spend(2)
        if not shallow:
            value = _sized(value)
            spent.weigh(value, times)
            for arg in (*args, *kwargs.values()):
                spent.weigh(arg, times)
        if textual and not isinstance(value, str):
            value = _text(value)
        match passed:
            case "context":
                args = (context, value, *args)
            case "eval_context":
                args = (context.eval_ctx, value, *args)
            case "environment":
                args = (context.environment, value, *args)
            case _:
                args = (value, *args)
        return _checked(function(*args, **kwargs))

    return pass_context(run)


def _tested(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A test that spends before it looks."""
    word = _COMPARING.get(name)

    def run(context: Context, value: Any, *args: Any) -> Any:
        if word is not None:
            return _compared(word, value, *args)
        work.get().spend(1 + (len(value) >> 10 if isinstance(value, str) else 0))
        return function(value, *args)

    return pass_context(run)


# --- the environment --------------------------------------------------------------------------------------------------


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 for what operators write into configs."""

    intercepted_binops = frozenset(_BINARY)

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, optimized=False, finalize=pass_context(_final))
        del self.globals["lipsum"]
        steps: dict[str, Callable[..., Any]] = {
            "%each": _each,
            "%concat": _concat,
            "%compare": _compare,
            "%slice": _slice,
            "%step": _step,
        }
        every = {name: filters.FILTERS[name] for name in _JINJAS} | _OWN
        self.filters = {name: _guarded(name, function) for name, function in every.items()}
        # What the templates' own steps are turned into: no template can write a name with a %.
        self.filters |= {name: pass_context(_without_context(step)) for name, step in steps.items()}
        known = cast(dict[str, Callable[..., Any]], tests.TESTS)
        self.tests = {name: _tested(name, known[name]) for name in _TESTS}
        self.binop_table = dict(_BINARY)
        self.concat = _concat  # type: ignore[assignment]  # also joins what blocks and macros collect

    def guard(self, template: nodes.Template) -> nodes.Template:
        """The parsed template with the steps that count put in. Raises TemplateAssertionError."""
        guarded = _Guard(self).visit(template)
        assert isinstance(guarded, nodes.Template)
        return guarded.set_environment(self)  # type: ignore[return-value]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`a.b`: the key first, so that `releases.update` is data; then a method, if it is one of those allowed."""
        work.get().spend(1)
        if isinstance(obj, dict):
            if attribute in obj:
                return obj[attribute]
        elif isinstance(obj, Undefined) or not isinstance(obj, (str, int, float, list, type(None))):
            return super().getattr(obj, attribute)
        if attribute in _METHODS.get(type(obj), ()):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`a['b']`, `a[0]`: a key or a place, never a method."""
        work.get().spend(1)
        if isinstance(obj, Undefined):
            return obj[argument]
        if isinstance(obj, (dict, list, tuple, str, range)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                return self.undefined(obj=obj, name=argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`a + b`."""
        work.get().spend(1)
        return _checked(self.binop_table[operator](left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja
        """`a(b)`."""
        spent = work.get()
        spent.spend(5)
        for name in ("_loop_vars", "_block_vars"):  # Jinja's own, for what takes the context: nothing here does
            kwargs.pop(name, None)
        if isinstance(__obj, BuiltinMethodType):
            if __obj.__name__ in _METHODS.get(type(__obj.__self__), ()):
                return _method(__obj, args, kwargs)
        elif isinstance(__obj, _OBJECTS) or any(__obj is maker for maker in _MAKERS):
            if __obj is dict:
                spent.weigh(args)
            if isinstance(__obj, LoopContext) and args:  # a recursive loop goes down
                args = (_each(args[0]), *args[1:])
            return _checked(__context.call(__obj, *args, **kwargs))
        elif isinstance(getattr(__obj, "__self__", None), (LoopContext, Cycler)):  # loop.cycle, loop.changed, c.next
            for arg in args:
                spent.weigh(arg)
            return __context.call(__obj, *args, **kwargs)
        elif isinstance(__obj, Undefined):
            return __obj()
        raise SecurityError(f"a {_kind(__obj)} cannot be called")


def _without_context(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda context, *args: step(*args)


def _final(context: Context, value: Any) -> str:
    """What `{{ … }}` prints."""
    return _text(value)


def _step(units: int) -> None:
    """What the body of a loop or a macro costs each time, beside what its parts cost by themselves."""
    work.get().spend(units)


class _Guard(NodeTransformer):
    """Turns what Jinja would compile to bare Python into calls that count."""

    def __init__(self, environment: Sandbox) -> None:
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
