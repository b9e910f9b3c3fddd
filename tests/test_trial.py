"""Payloads tried on samples, as `relay check` does it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.config import load

PROVEN = {"type": "strapi", "token": "0123456789abcdef"}
SAMPLE = "tried on the sample entry.publish of strapi"


def warned(template: str, sources: dict[str, dict[str, Any]]) -> list[str]:
    route = {"name": "r", "to": {"url": "https://example.com/"}, "payload": {"template": template}}
    text = json.dumps({"sources": sources, "routes": [route]})
    return [warning.message for warning in load(text.encode(), try_samples=True).warnings]


@pytest.mark.parametrize("mapped", ["first", "second"])
def test_sources_of_one_type_that_describe_it_differently_are_each_tried(mapped: str) -> None:
    sources = {"first": PROVEN, "second": PROVEN}
    template = "{{ {'article': 1}[event.model] }}"
    assert warned(template, sources) == []
    said = warned(template, sources | {mapped: PROVEN | {"map": {"model": "'page'"}}})
    reason = "the template fails: line 1: 'dict object' has no attribute 'page'"
    assert said == [f"warning: {reason} ({SAMPLE}, as {mapped} describes it)"]


def test_sources_that_describe_it_alike_are_one() -> None:
    sources = dict.fromkeys(("a", "b", "c"), PROVEN) | {"d": PROVEN | {"map": {"action": "'publish'"}}}
    assert warned("{{ body.nothing }}", sources) == [
        f"warning: the template fails: line 1: 'dict object' has no attribute 'nothing' ({SAMPLE})"
    ]
