"""Which headers are meant is remembered by their names, and never for others."""

from __future__ import annotations

import pytest

from relay.headernames import Chosen


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), ()),
        (("Host", "Authorization", "X"), (1,)),
        (("authorization", "X", "AUTHORIZATION"), (0, 2)),
        (("a\nb", "Authorization"), (1,)),
        (("a\nauthorization", "b"), ()),
        (("x" * 2000, "Authorization"), (1,)),
    ],
)
def test_places_are_those_of_the_names_themselves(names: tuple[str, ...], expected: tuple[int, ...]) -> None:
    chosen = Chosen(lambda name: name.lower() == "authorization")
    chosen.places(("a", "b", "Authorization"))  # remembered: as names with line breaks would be joined
    assert chosen.places(names) == expected
    assert chosen.places(names) == expected
