"""Jinja2's immutable sandbox, with all that templates do counted."""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinMethodType
from typing import Any

from jinja2 import StrictUndefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler

from relay.sandbox import methods
from relay.sandbox.costs import checked, each, work
from relay.sandbox.filters import every_filter, every_test
from relay.sandbox.guard import Guard
from relay.sandbox.operators import BINARY, compare, concat, cut, kind, printed


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 for what operators write into configs."""

    intercepted_binops = frozenset(BINARY)

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, optimized=False, finalize=pass_context(_final))
        del self.globals["lipsum"]
        steps: dict[str, Callable[..., Any]] = {
            "%each": each,
            "%concat": concat,
            "%compare": compare,
            "%slice": cut,
            "%step": _step,
        }
        self.filters = {**every_filter()}  # a dict of the type that Jinja says
        # What the templates' own steps are turned into: no template can write a name with a %.
        self.filters |= {name: pass_context(_without_context(step)) for name, step in steps.items()}
        self.tests = {**every_test()}
        self.binop_table = dict(BINARY)
        self.concat = concat  # type: ignore[assignment]  # also joins what blocks and macros collect

    def guard(self, template: nodes.Template) -> nodes.Template:
        """The parsed template with the steps that count put in. Raises TemplateAssertionError."""
        guarded = Guard(self).visit(template)
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
        if attribute in methods.METHODS.get(type(obj), ()):
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
        return checked(self.binop_table[operator](left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja
        """`a(b)`."""
        spent = work.get()
        spent.spend(5)
        for name in ("_loop_vars", "_block_vars"):  # Jinja's own, for what takes the context: nothing here does
            kwargs.pop(name, None)
        if isinstance(__obj, BuiltinMethodType):
            if __obj.__name__ in methods.METHODS.get(type(__obj.__self__), ()):
                return methods.run(__obj, args, kwargs)
        elif isinstance(__obj, methods.OBJECTS) or any(__obj is maker for maker in methods.MAKERS):
            if __obj is dict:
                spent.weigh(args)
            if isinstance(__obj, LoopContext) and args:  # a recursive loop goes down
                args = (each(args[0]), *args[1:])
            return checked(__context.call(__obj, *args, **kwargs))
        elif isinstance(getattr(__obj, "__self__", None), (LoopContext, Cycler)):  # loop.cycle, loop.changed, c.next
            for arg in args:
                spent.weigh(arg)
            return __context.call(__obj, *args, **kwargs)
        elif isinstance(__obj, Undefined):
            return __obj()
        raise SecurityError(f"a {kind(__obj)} cannot be called")


def _without_context(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda context, *args: step(*args)


def _final(context: Context, value: Any) -> str:
    """What `{{ … }}` prints."""
    return printed(value)


def _step(units: int) -> None:
    """What the body of a loop or a macro costs each time, beside what its parts cost by themselves."""
    work.get().spend(units)
