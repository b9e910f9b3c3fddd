"""`relay import`: another system's webhooks as a config."""

from __future__ import annotations

from typing import BinaryIO

import click

from relay.cli import term


@click.command("import")
@click.argument("system", type=click.Choice(["contentstack"]))
@click.argument("file", type=click.File("rb"))
def command(system: str, file: BinaryIO) -> None:
    """Print a config made from another system's webhook export: a route for each destination.

    FILE is the JSON that Contentstack's API answers for one webhook or for all of them, or its export of one; - is
    standard input. No secret is copied: the config names variables instead, and they are listed on standard error,
    with what could not be translated.

    \b
    Examples:
      relay import contentstack webhooks.json > config.yaml
      relay check --no-secrets config.yaml
    """
    from relay import jsontext
    from relay.imports import contentstack

    name = term.printable(getattr(file, "name", "<stdin>"))
    try:
        document = jsontext.parse(file.read().removeprefix(b"\xef\xbb\xbf"))
        imported = contentstack.read(document)
    except jsontext.Malformed as error:
        term.fail(f"{name}: {str(error).replace('the body', 'the file', 1)}")
    except contentstack.NotAnExport as error:
        term.fail(f"{name} is not a webhook export of Contentstack: {error}")
    except OSError as error:
        term.fail(f"{name}: cannot be read: {error.strerror or error}")
    click.echo(imported.text, nl=False)
    for note in imported.notes:
        term.complain(note)
    for variable in imported.variables.made:
        where = variable.lack or "take it from the export"
        term.complain(f"to be set: {variable.name}, {variable.meaning} ({where})")
