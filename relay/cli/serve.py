"""`relay serve`: the daemon."""

from __future__ import annotations

import faulthandler
from collections.abc import Coroutine
from pathlib import Path

import click

from relay.cli import term


@click.command("serve")
@term.config_option
@click.option("--held", is_flag=True, help="Pause all routes before anything is sent: 'relay resume' lets them go.")
@term.config_errors
def command(config: Path | None, held: bool) -> None:
    """Run the daemon in the foreground until SIGTERM; SIGHUP reloads the config.

    A store that was restored from a backup of 'relay db backup' starts held by itself.

    Exits with 78 when an operator must act and a restart would not help: a wrong config, a store that is foreign,
    newer or corrupt, an address that it has no right to listen on.

    \b
    Examples:
      relay serve --config /etc/relay/config.yaml
      relay serve --held
    """
    from relay import heap, lean

    heap.share()
    lean.imports()
    from relay import ceilings, daemon, journal
    from relay.config import find_config
    from relay.handover import BadHandOver
    from relay.store import Locked, Unavailable, Unusable
    from relay.web.listener import CannotListen, MayNotListen

    # Should the watchdog end it, the log says what each thread was at.
    if not faulthandler.is_enabled():
        faulthandler.enable(2)
    ceilings.settle()
    try:
        run(daemon.run(find_config(config), held=held))
    except (Unusable, BadHandOver, MayNotListen) as error:
        term.fail(journal.redaction.redact(str(error)), term.OPERATOR)
    except (Locked, Unavailable, CannotListen) as error:
        term.fail(journal.redaction.redact(str(error)))


def run(coroutine: Coroutine[object, object, None]) -> None:
    """Run a coroutine on uvloop where there is one."""
    import asyncio

    try:
        import uvloop
    except ImportError:
        asyncio.run(coroutine)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(coroutine)
