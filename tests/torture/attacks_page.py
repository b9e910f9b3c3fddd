"""docs/attacks.md, from the results of one run.

python -m tests.torture --only I1,I2,…,S11 --results FOLDER
python -m tests.torture.attacks_page FOLDER/torture.json
make attacks    both
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import relay
from tests.torture.catalogue import ingest, security
from tests.torture.row import TOP

PAGE = TOP / "docs" / "attacks.md"
ROWS = (*ingest.ROWS, *security.ROWS)

_HEAD = """# Attacks, and what relay answered

Written by `make attacks` from one run of the trials in `tests/torture/` against a real daemon: each form of each attack
of the catalogue, with the answer that was observed. Rows that tests of the suite prove show the tests' names, which are
the promises they prove. Run it again after an upgrade of anything underneath.

relay {relay}, aiohttp {aiohttp}, Python {python}, {system}.

| row | attack | what must hold | result | figure |
|---|---|---|---|---|
"""


def page(results: list[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    by_id = {result["id"]: result for result in results}
    missing = [row.id for row in ROWS if row.id not in by_id]
    if missing:
        raise SystemExit(f"the results have no {', '.join(missing)}")
    text = _HEAD.format(
        relay=relay.__version__,
        aiohttp=version("aiohttp"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )
    for row in ROWS:
        result = by_id[row.id]
        cells = (f"[{row.id}](#{_anchor(row.id, row.fault)})", row.fault, row.must, result["result"], result["figure"])
        text += _line(cells)
    for row in ROWS:
        result = by_id[row.id]
        text += f"\n## {row.id} {row.fault}\n\nHow: {row.injected}. Must: {row.must}. Promise: {row.promise}.\n"
        if result["seen"]:
            text += "\n| form | observed |\n|---|---|\n"
        for one in result["seen"]:
            text += _line((one["form"], one["answer"] if one["held"] else f"**not held off**: {one['answer']}"))
    return text


def _anchor(*words: str) -> str:
    kept = "".join(letter for letter in " ".join(words).lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"


def _cell(text: str) -> str:
    """A form may hold anything, also what Markdown and browsers would obey."""
    shown = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
    for special, instead in (
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("<", "&lt;"),
        ("*", "\\*"),
        ("_", "\\_"),
        ("`", "\\`"),
        ("[", "\\["),
    ):
        if not text.startswith(("[I", "[S", "**")):
            shown = shown.replace(special, instead)
    return shown


def main() -> int:
    """Write it."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    PAGE.write_text(page(json.loads(Path(sys.argv[1]).read_text())))
    print(PAGE.relative_to(TOP))
    return 0


if __name__ == "__main__":
    sys.exit(main())
