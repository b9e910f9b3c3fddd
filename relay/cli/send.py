"""`relay send`: a genuine, correctly signed sample, to see that a source works before its sender is connected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from relay.cli import completing, term


@click.command("send")
@click.argument("source", shell_complete=completing.sources)
@click.option("--event", metavar="NAME", help="Which of the type's samples: 'relay sources' lists them.")
@click.option(
    "--file",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Send this body, or this request as 'relay explain' takes it; it is signed anew.",
)
@click.option("--to", "to", metavar="URL", help="Where relay takes events (default: the config's server.listen).")
@term.json_option
@term.config_option
@term.config_errors
def command(
    source: str, event: str | None, file: Path | None, to: str | None, as_json: bool, config: Path | None
) -> None:
    """Post a sample to SOURCE, signed with the secrets of the config as its sender would.

    \b
    Examples:
      relay send blog
      relay send blog --event entry.delete
      relay send blog --file body.json --to https://hooks.example.com
    """
    import asyncio

    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.runtime import build
    from relay.samples import UnknownSample
    from relay.schema import TcpAddress
    from relay.sending import Unsendable, post, public_url, request_for

    if event is not None and file is not None:
        raise click.UsageError("--event and --file exclude each other")
    clock = SystemClock()
    runtime = build(config_file.load(config_file.find_config(config)), 1, clock.now())
    found = runtime.sources.get(source)
    if found is None:
        term.fail(term.one_of("source", source, runtime.sources), term.USAGE)
    server = runtime.config.server
    if to is None and isinstance(server.listen, TcpAddress) and server.listen.port == 0:
        term.fail("server.listen has port 0, so only the running relay knows its port: say --to", term.USAGE)
    try:
        inbound = request_for(found, event, file.read_bytes() if file else None, clock.now())
        status, answer = asyncio.run(post(to or public_url(server), found.path, inbound))
    except UnknownSample as error:
        term.fail(str(error), term.USAGE)
    except Unsendable as error:
        term.fail(runtime.redact(str(error)))
    except OSError as error:
        term.fail(f"{file}: {error.strerror}", term.USAGE)
    if as_json:
        click.echo(json.dumps({"status": status, "answer": answer}))
    elif status in (200, 202):
        click.echo(f"{status} {_said(answer)}")
    if status not in (200, 202):
        hint = ": 'relay logs --status rejected' says why" if status in (400, 401, 403) else ""
        term.fail(f"{found.name} answered {status} {_word(answer)}{hint}")


def _said(answer: Any) -> str:
    """The answer in a line: `evt_… to rebuild-www, search`."""
    if not isinstance(answer, dict) or "routes" not in answer:
        return term.printable(str(answer))
    if answer.get("ignored"):
        return term.printable(f"ignored: {answer['ignored']}")
    routes = ", ".join(answer["routes"])
    from relay.sending import DUPLICATE

    repeat = DUPLICATE if answer.get("duplicate") else ""
    return term.printable(f"{answer['id']} {f'to {routes}' if routes else 'to no route'}{repeat}")


def _word(answer: Any) -> str:
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        detail = answer.get("detail")
        return f"{answer['error']} ({detail})" if detail else answer["error"]
    return term.cut(str(answer).strip(), 100)
