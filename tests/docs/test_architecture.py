"""`docs/architecture.md` knows every module of relay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import relay

CODE = Path(relay.__file__).parent
PAGE = (CODE.parent / "docs" / "architecture.md").read_text()
PLURAL = ("cli", "destinations", "imports", "notifiers", "sources")  # one file for each way: told together


def modules() -> Iterator[str]:
    """By the words that stand for them on the page."""
    for path in CODE.rglob("*.py"):
        parts = path.relative_to(CODE).with_suffix("").parts
        if parts[0] in PLURAL:
            yield f"{parts[0]}/"
        elif parts[-1] != "__init__":
            yield parts[-1]


def test_every_module_is_in_the_map() -> None:
    _, _, table = PAGE.partition("| module | duty |")
    words = set(re.findall(r"`([^`\n]+)`", table.partition("\n## ")[0]))
    assert set(modules()) - words == set()
