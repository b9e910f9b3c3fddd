"""`relay sources`: the source types built in."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import click

from relay.cli import colour, term


@click.command("sources")
@term.json_option
def command(as_json: bool) -> None:
    """List the source types built in, the keys that each has of its own, and the samples that `relay send` knows.

    \b
    Example:
      relay sources
      relay send blog --event entry.publish
    """
    rows = known()
    click.echo(json.dumps(rows, indent=2) if as_json else "\n".join(line for row in rows for line in _lines(row)))


def known() -> list[dict[str, Any]]:
    """Every type with its aliases, its own keys and its samples."""
    from relay import samples
    from relay.source import SourceConfig, types

    common = SourceConfig.model_fields.keys()
    rows: dict[str, dict[str, Any]] = {}
    for name, module in sorted(types().items()):
        own = module.__name__.rpartition(".")[2]
        keys = [key for key in module.Config.model_fields if key not in common]
        row = rows.setdefault(own, {"type": own, "aliases": [], "keys": keys, "samples": samples.names(own)})
        if name != own:
            row["aliases"].append(name)
    return sorted(rows.values(), key=lambda row: str(row["type"]))


def _lines(row: dict[str, Any]) -> list[str]:
    also = f" (also {', '.join(row['aliases'])})" if row["aliases"] else ""
    lines = [colour.paint(row["type"], "bold") + also]
    for name in ("keys", "samples"):
        lines += textwrap.wrap(
            ", ".join(row[name]),
            width=term.width() or 100,
            initial_indent=f"  {name:<8} ",
            subsequent_indent=" " * 11,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return lines
