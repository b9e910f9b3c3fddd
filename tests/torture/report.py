"""Put what a run of the catalogue gave into docs/reliability.md, and its soak into a picture.

    python -m tests.torture.report RESULTS

RESULTS is the folder that `--results` named. The table is put between the two comments that mark its place, where it
has all rows.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.torture.catalogue import ROWS
from tests.torture.row import TOP

PAGE = TOP / "docs" / "reliability.md"
PICTURE = TOP / "docs" / "images" / "soak.svg"
BEGIN, END = "<!-- the catalogue begins -->", "<!-- the catalogue ends -->"
SERIES = (
    ("rss", "memory (RSS), MiB", 1 / 2**20),
    ("log", "SQLite's log, MiB", 1 / 2**20),
    ("files", "descriptors", 1.0),
    ("tasks", "tasks", 1.0),
    ("objects", "objects, thousands", 1 / 1000),
)
_FOLDER = re.compile(r"/\S*relay-torture-[^/]*/(?:\S*/)?")  # where a row writes is of interest to nobody else
_WIDTH, _HEIGHT, _LEFT = 720, 90, 150


def table(results: list[dict[str, Any]]) -> str:
    """The catalogue as a table in Markdown."""
    lines = [
        "| | promise | fault | how it is brought about | what must hold | what was seen | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results:
        cells = [row[key] for key in ("id", "promise", "fault", "injected", "must", "figure", "result")]
        cells[5] = _FOLDER.sub("…/", cells[5])
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |")
    return "\n".join(lines)


def picture(looks: list[dict[str, Any]]) -> str:
    """A curve for each thing that a soak looked at, in SVG."""
    end = looks[-1]["at"]
    parts = []
    for place, (key, title, scale) in enumerate(SERIES):
        values = [look[key] * scale for look in looks]
        top, base = max(values) * 1.15 or 1.0, (place + 1) * _HEIGHT
        points = " ".join(
            f"{_LEFT + look['at'] / end * (_WIDTH - _LEFT - 20):.1f},{base - 14 - value / top * (_HEIGHT - 26):.1f}"
            for look, value in zip(looks, values, strict=True)
        )
        parts.append(f'<text x="8" y="{base - 40}">{title}</text>')
        parts.append(f'<text x="8" y="{base - 24}" opacity=".7">{min(values):.1f} to {max(values):.1f}</text>')
        parts.append(f'<path d="M{_LEFT} {base - 14}H{_WIDTH - 20}" stroke="#8888" fill="none"/>')
        parts.append(f'<polyline points="{points}" fill="none" stroke="#2a78c2" stroke-width="1.6"/>')
    height = len(SERIES) * _HEIGHT + 20
    parts.append(f'<text x="{_LEFT}" y="{height - 6}">0</text>')
    parts.append(f'<text x="{_WIDTH - 20}" y="{height - 6}" text-anchor="end">{end / 60:.0f} min</text>')
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
        f' font-size="12" fill="#777">\n{inside}\n</svg>\n'
    )


def main() -> None:
    """Renew the page and, where there was a soak, the picture."""
    results = Path(sys.argv[1])
    found = json.loads((results / "torture.json").read_text())
    if [row["id"] for row in found] == [row.id for row in ROWS]:
        before, rest = PAGE.read_text().split(BEGIN)
        _, after = rest.split(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}")
        print(PAGE.relative_to(TOP))
    else:
        print(f"{len(found)} rows of {len(ROWS)}: the table stays as it is")
    soak = results / "soak.json"
    if soak.exists():
        PICTURE.write_text(picture(json.loads(soak.read_text())))
        print(PICTURE.relative_to(TOP))


if __name__ == "__main__":
    main()
