"""`relay schema`: the config's JSON Schema, for editors."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Print the JSON Schema (2020-12) of the config. Editors complete keys by it, and mark what is wrong, as one types.

    It knows what can be said by shape. 'relay check' knows all the rest.

    \b
    Example:
      relay schema > config.schema.json
    """
    from relay.configschema import config_schema

    click.echo(json.dumps(config_schema(), indent=2, ensure_ascii=False))
