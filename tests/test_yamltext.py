"""Config data as text: what is written is read as the same."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay import yamlfile
from relay.yamltext import literal, reference, written

ODD = ("no", "null", "~", "0123", "1e3", "0o17", "1:30", "2024-01-01", "200-299", "5s", "true", "${A}", "$${A}", "$$${")
MARKS = ("<<", "{a}", "[a]", "*a", "&a", "!a", "@a", "%a", "a:b", "a:", ":a", "'a'", '"', "\\", "*", "\ufeff", "a\r\nb")
SPACED = (
    "",
    " a",
    "a ",
    "a\nb",
    "a\nb\n",
    "\na",
    "a\n\n",
    "a\n b",
    "a \nb",
    "\t",
    "a: b",
    "a #b",
    "- a",
    "\x85",
    "\u2028",
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from((*ODD, *MARKS, *SPACED))
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=20,
)


def read(text: str, **variables: str) -> Any:
    document = yamlfile.read(text.encode(), variables)
    assert document.faults == []
    return document.value


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "on", "b c"]), DATA, min_size=1, max_size=3))
@example({"a": ["x", {"b": [{"c": [1, "2"]}, []]}, [["y"]]]})
def test_what_is_written_is_read_as_the_same_data(data: dict[str, Any]) -> None:
    text = written(data)
    assert read(text) == data
    assert written(read(text)) == text


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_other_readers_find_the_same_text(text: str) -> None:
    assert yaml.safe_load(written({"a": text})) == {"a": text.replace("${", "$${")}


def test_references_are_written_as_they_stand_and_worked_out_when_read() -> None:
    data = {"url": reference(literal("https://example.com/${x}?key=") + "${KEY}"), "other": "${KEY}"}
    text = written(data)
    assert text == 'url: "https://example.com/$${x}?key=${KEY}"\nother: "$${KEY}"\n'
    assert read(text, KEY="k") == {"url": "https://example.com/${x}?key=k", "other": "${KEY}"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"a": {"b": "c d", "n": 5}}, "a:\n  b: c d\n  n: 5\n"),
        ({"a": ["x", "5s", "*"]}, 'a: [x, 5s, "*"]\n'),
        ({"routes": [{"name": "r", "to": {"url": "https://example.com/a"}}]},
         "routes:\n  - name: r\n    to:\n      url: https://example.com/a\n"),
        ({"template": "a\n\nb\n"}, "template: |\n  a\n\n  b\n"),
        ({"a": {}, "b": [], "c": None, "d": True}, "a: {}\nb: []\nc: null\nd: true\n"),
        ({"a": "no", "b": "0123", "c": ""}, 'a: "no"\nb: "0123"\nc: ""\n'),
    ],
)  # fmt: skip
def test_it_looks_as_people_write_it(data: dict[str, Any], text: str) -> None:
    assert written(data) == text
