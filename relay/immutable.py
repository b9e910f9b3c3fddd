"""Values: dataclasses that nobody changes, made by the dozen for every event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(made: type[T]) -> type[T]:
    """A dataclass with slots that is frozen for the type checker alone. To have Python refuse changes as well costs
    three times as much whenever one is made, which is one part in twenty of all that an event costs.

    Values are compared, hashed and shown as those of any dataclass. But what does that is not written and compiled for
    each class: with a hundred of them that was a tenth of the start.
    """
    made = dataclass(slots=True, eq=False, repr=False)(made)
    described = fields(made)  # type: ignore[arg-type]  # a dataclass by now
    compared = _values([each.name for each in described if each.compare])
    shown = [each.name for each in described if each.repr]

    def __eq__(self: object, other: object) -> bool:  # noqa: N807 - what the class has by that name
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(compared(self))

    def __repr__(self: object) -> str:  # noqa: N807
        said = ", ".join([f"{name}={getattr(self, name)!r}" for name in shown])
        return f"{self.__class__.__qualname__}({said})"

    own = vars(made)
    for method in (__eq__, __hash__, __repr__):
        if own.get(method.__name__) is None:  # Python itself marks as None that who says what is equal has no hash
            setattr(made, method.__name__, method)
    return made


def _values(names: list[str]) -> Callable[[object], Any]:
    """All that is called so of an object, for a comparison."""
    return attrgetter(*names) if names else lambda _: ()
