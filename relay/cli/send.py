"""`relay send`: a genuine, correctly signed sample, to see that a source works before its sender is connected."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from relay.cli import term


@click.command("send")
@click.argument("source")
@click.option("--event", help="which of the type's samples ('relay sources' lists them)")
@click.option("--file", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="send this body")
@click.option("--to", "to", help="the address of the source (default: this config's public side)")
@term.config_option
@term.config_errors
def command(source: str, event: str | None, file: Path | None, to: str | None, config: Path | None) -> None:
    """Post a sample to SOURCE, signed with the secrets of the config as its sender would."""
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.runtime import build
    from relay.sending import Unsendable, post, public_url, request_for

    if event is not None and file is not None:
        raise click.UsageError("--event and --file exclude each other")
    clock = SystemClock()
    runtime = build(config_file.load(config_file.find_config(config)), 1, clock.now())
    found = runtime.sources.get(source)
    if found is None:
        term.fail(f"there is no source '{source}' in the config: there are {', '.join(runtime.sources) or 'none'}", 2)
    try:
        inbound = request_for(found, event, file.read_bytes() if file else None, clock.now())
        status, answer = asyncio.run(post(to or public_url(runtime.config.server) + found.path, inbound))
    except Unsendable as error:
        term.fail(str(error))
    click.echo(f"{status} {json.dumps(answer) if not isinstance(answer, str) else answer}")
    if status not in (200, 202):
        term.fail(f"the source did not take it (HTTP {status})")
