"""The pages of the documentation as tests see them: blocks of code, spans of code, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent.parent
SHELL = ("sh", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    section: str
    language: str
    text: str
    not_run: str
    """Why it is not run, out of an HTML comment before it: `<!-- not run: why (tests/file.py::test) -->`."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the page asks its reader to write: its first line is a comment with the name."""
        found = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return found[1] if found and self.language not in SHELL else None


def pages() -> list[str]:
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


@cache
def tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text())


def blocks(page: str) -> list[Block]:
    found, section, before, heading = list[Block](), "", "", False
    for token in tokens(page):
        if token.type == "inline" and heading:
            section = token.content
        if token.type == "fence":
            why = re.match(r"<!-- not run: (.*?) -->", before, re.DOTALL)
            line = token.map[0] + 2 if token.map else 0
            found.append(Block(page, line, section, token.info.strip(), token.content, why[1] if why else ""))
        heading = token.type == "heading_open"
        before = token.content if token.type == "html_block" else ""
    return found


def commands(text: str) -> Iterator[tuple[int, str]]:
    """The commands of a shell block with their lines: what is continued, or a here-document, is one."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        first, taken = at, [lines[at]]
        here = re.search(r"<<-?'?(\w+)'?", lines[at])
        while taken[-1].endswith("\\") or (here and taken[-1] != here[1]):
            at += 1
            taken.append(lines[at])
        at += 1
        command = "\n".join(taken).removeprefix("$ ")
        if command.strip() and not command.lstrip().startswith("#"):
            yield first, command


def spans(page: str) -> list[tuple[str, str]]:
    """The code in running text and tables, with its place."""
    return [
        (f"{page}:{token.map[0] + 1 if token.map else 0}", child.content.replace(r"\|", "|"))
        for token in tokens(page)
        for child in token.children or ()
        if child.type == "code_inline"
    ]


def anchors(page: str) -> set[str]:
    """The headings of a page, as the forge names them: in lower case, without marks, blanks as hyphens."""
    seen: dict[str, int] = {}
    found = tokens(page)
    for opened, inline in pairwise(found):
        if opened.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            name = re.sub(r"[^\w\- ]", "", text.lower().strip()).replace(" ", "-")
            seen[name] = seen.get(name, -1) + 1
            seen[f"{name}-{seen[name]}" if seen[name] else name] = 0
    return set(seen)


def links(page: str) -> list[tuple[str, str]]:
    """Where links and pictures lead, with their places."""
    return [
        (f"{page}:{token.map[0] + 1 if token.map else 0}", str(child.attrs.get("href") or child.attrs.get("src")))
        for token in tokens(page)
        for child in token.children or ()
        if child.type in ("link_open", "image")
    ]
