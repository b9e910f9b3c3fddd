"""`relay sources`: the source types built in."""

from __future__ import annotations

import json

import click

from relay.cli import term


@click.command("sources")
@term.json_option
def command(as_json: bool) -> None:
    """List the source types built in, how each proves itself, and the samples that `relay send` knows."""
    from relay import samples
    from relay.source import SourceConfig, types

    common = SourceConfig.model_fields.keys()
    rows = []
    for name, module in sorted(types().items()):
        keys = [key for key in module.Config.model_fields if key not in common]
        rows.append({"type": name, "keys": keys, "samples": samples.names(module.__name__.rpartition(".")[2])})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(term.table(("type", "keys", "samples"), [(r["type"], r["keys"], r["samples"]) for r in rows]))
