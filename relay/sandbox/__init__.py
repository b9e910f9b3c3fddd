"""Where templates run: Jinja2's immutable sandbox, with a bound on how much work one rendering may do.

Jinja's sandbox keeps templates away from Python's internals, not from the processor: `{{ 'a' * 300000000 }}` is safe in
its eyes. Here every loop, call, operator, filter and test spends from a budget before it begins, by the size of what it
is about to touch, and no text may grow past 4 MiB. One unit is about a microsecond of an ordinary machine. It counts
work and not time, so that a template that works once works always: a busy machine does not make it fail. What no count
can tell beforehand, such as a search that is quadratic for one text in a million, `relay.rendering` ends.

What has no cost that could be told beforehand is left out: filters and tests are those named in `filters`, of Python's
methods those in `methods`, and there is no other template to include.
"""

from __future__ import annotations

from relay.sandbox.costs import work
from relay.sandbox.environment import Sandbox

__all__ = ["Sandbox", "work"]
