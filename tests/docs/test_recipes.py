"""The routes of recipes take of what servers really sent all that their pages promise, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from multidict import CIMultiDict

from relay.config import load
from relay.event import Description, Inbound
from relay.pattern import Subject
from relay.source import types
from tests.docs.pages import ROOT, blocks

CAPTURED = ROOT / "tests" / "samples" / "captured-strapi"
SEEN = [
    ("v4.26.0-007-entry.publish", True),
    ("v5.54.0-006-entry.publish", True),
    ("v5.54.0-016-entry.delete", True),
    ("v5.54.0-002-entry.create", True),  # of a type without draft and publish
    ("v4.26.0-011-entry.delete", True),
    ("v4.26.0-005-entry.update", False),
    ("v5.54.0-004-entry.create", False),
    ("v5.54.0-007-entry.update", False),
    ("v5.54.0-008-entry.draft-discard", False),
    ("v4.26.0-003-entry.update", False),  # of such a type under Strapi 4, which has to be named
]


@pytest.mark.parametrize(("name", "taken"), SEEN)
def test_strapis_recipe_builds_for_all_that_visitors_can_see(name: str, taken: bool) -> None:
    [block] = [block for block in blocks("docs/recipes/strapi-github-actions.md") if block.file == "config.yaml"]
    config = load(block.text.encode(), environ={}).config
    [route] = config.routes
    strapi = types()["strapi"]
    description = strapi.Adapter(strapi.Config(type="strapi", token="t")).describe(sent(CAPTURED / f"{name}.json"))
    assert isinstance(description, Description)
    assert route.filter().matches(Subject(description, "strapi", "blog")) is taken


def sent(path: Path) -> Inbound:
    told = json.loads(path.read_text())
    return Inbound(CIMultiDict([(name, value) for name, value in told["headers"]]), told["body"].encode())
