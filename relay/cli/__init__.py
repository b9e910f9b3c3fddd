"""The command line: one module for each verb, loaded when it is used."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "serve": "run the daemon",
    "check": "check the config and say every mistake in it",
    "routes": "list the routes of the config",
    "sources": "list the source types built in",
    "explain": "say what would happen to an event, and why",
    "send": "post a genuine, signed sample to a source",
    "sink": "be a destination: print and check what arrives",
    "demo": "run the example config with a sink and real samples",
    "logs": "list deliveries",
    "show": "show everything about a delivery, an event or a rejected request",
    "retry": "send a failed or cancelled delivery again",
    "reload": "make the running daemon read its config again",
    "version": "say the version",
}


class _Verbs(click.Group):
    """Imports a verb's module only when it is called: `relay version` should not wait for aiohttp."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"relay.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
def relay() -> None:
    """A webhook relay for headless content systems: proves, stores, filters and delivers every event."""
