"""Variables that stand in a config for values that are nobody's business."""

from __future__ import annotations

import re

from relay.immutable import immutable
from relay.yamltext import reference

_ODD = re.compile(r"[^A-Z0-9]+")


@immutable
class Variable:
    """A `${NAME}` that has to be set before a config can be used."""

    name: str
    meaning: str
    lack: str | None = None
    """Why the value cannot be taken from what the config was made of, where it cannot."""

    @property
    def reference(self) -> str:
        """How the config refers to it."""
        return reference(f"${{{self.name}}}")


class Variables:
    """The variables of one config, each with a name of its own."""

    def __init__(self, taken: set[str] | None = None) -> None:
        self._taken = taken or set()
        self.made: list[Variable] = []

    def new(self, name: str, meaning: str, lack: str | None = None) -> str:
        """A reference to a new variable, named after `name`."""
        base = _ODD.sub("_", name.upper()).strip("_")
        if not base[:1].isalpha():
            base = f"VALUE_{base}".rstrip("_")
        number, found = 1, base
        while found in self._taken:
            number += 1
            found = f"{base}_{number}"
        self._taken.add(found)
        self.made.append(Variable(found, meaning, lack))
        return self.made[-1].reference
