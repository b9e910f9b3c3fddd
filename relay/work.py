"""How much work one payload may be: a budget that is spent by the size of what is touched.

It counts work and not time, so that what works once works always: a busy machine does not make it fail.
"""

from __future__ import annotations

MOST_TEXT = 4 << 20
"""Characters that any one text may have, and bytes of what is rendered."""
MOST_WORK = 150_000
_DEEPEST = 200


class TooMuch(Exception):
    """The template does more than it may; the text says what."""


class Work:
    """What a rendering may still do."""

    __slots__ = ("_left",)

    def __init__(self, units: int = MOST_WORK) -> None:
        self._left = units

    def spend(self, units: int) -> None:
        """Take from the budget. Raises TooMuch."""
        self._left -= units
        if self._left < 0:
            raise TooMuch("it does too much: too many steps, or steps that are too large")

    def weigh(self, value: object, times: int = 1) -> None:
        """Spend what it takes to walk through a value, to the last leaf of every branch, `times` over.

        A list that holds one other list twice, and so on, is small in memory and endless to print or compare.
        """
        text = 0
        waiting: list[tuple[object, int]] = [(value, 0)]
        while waiting:
            branch, depth = waiting.pop()
            if isinstance(branch, str):
                text += len(branch)
            elif isinstance(branch, dict):
                self.spend((1 + (len(branch) >> 2)) * times)
                for key, child in branch.items():
                    text += len(key) if isinstance(key, str) else 1
                    if isinstance(child, str):
                        text += len(child)
                    elif isinstance(child, (dict, list, tuple)):
                        waiting.append((child, depth + 1))
            elif isinstance(branch, (list, tuple)):
                self.spend((1 + (len(branch) >> 3)) * times)
                for child in branch:
                    if isinstance(child, str):
                        text += len(child)
                    elif isinstance(child, (dict, list, tuple)):
                        waiting.append((child, depth + 1))
            if text > MOST_TEXT:
                raise TooMuch("a value is larger than 4 MiB")
            if depth > _DEEPEST:
                raise TooMuch("a value is nested too deeply")
        self.spend((1 + (text >> 10)) * times)
