"""The command line: one module for each verb, loaded when it is used."""

from __future__ import annotations

import importlib
import keyword
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

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
    "retry": "send failed or cancelled deliveries again",
    "cancel": "give up deliveries that wait or are held",
    "replay": "route a stored event again, under today's config",
    "forget": "remove the body and headers of an event for good",
    "pause": "hold what routes would send, as for a content freeze",
    "resume": "let paused routes send again",
    "test": "send a marked test event and say what came back",
    "move": "give what is held for a removed route to another one",
    "windows": "list the windows being collected; send, hold or drop them",
    "doctor": "prove that all is as it must be, or say what is not",
    "db": "look at the store, back it up, move it, prune it",
    "reload": "make the running daemon read its config again",
    "import": "make a config of another system's webhooks",
    "schema": "print the config's JSON Schema, for editors",
    "export": "print one route as a config of its own",
    "completion": "print what makes a shell complete verbs, options and names",
    "version": "say the version",
}

INTERRUPTED = 130  # as shells say it of Ctrl-C


class _Verbs(click.Group):
    """Imports a verb's module only when it is called: `relay version` should not wait for aiohttp."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = importlib.import_module(f"relay.cli.{module}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, none of which is imported for that."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(name, help=text) for name, text in VERBS.items() if name.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            from relay.problems import did_you_mean

            ctx.fail(f"there is no verb '{args[0]}'{did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def main(  # type: ignore[override]  # one signature for click's two overloads
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; wrong usage is one line on standard error, as every other error is."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.ClickException as error:
            _refuse(error)
        except click.Abort:
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def _refuse(error: click.ClickException) -> NoReturn:
    from relay.cli import term

    if isinstance(error, term.Complaint):
        term.fail(error.message, error.code)
    if isinstance(error, click.NoSuchOption):
        from relay.problems import did_you_mean

        message = (
            f"there is no option '{error.option_name}'{did_you_mean(error.option_name, error.possibilities or ())}"
        )
    else:
        message = error.format_message().rstrip(".")
        message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        message += f" (see '{context.command_path} --help')"
    term.fail(message, error.exit_code)


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    subcommand_metavar="VERB …",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": lambda name: name.replace("_", "-"),  # filters are also known by the API's names
    },
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 78 an operator must act. 'relay VERB --help' has examples.",
)
@click.option("--version", is_flag=True, help="Say the version and exit.")
@click.pass_context
def relay(ctx: click.Context, version: bool) -> None:
    """A webhook relay for headless content systems: proves, stores, filters and delivers every event."""
    if version:
        from relay import __version__

        click.echo(f"relay {__version__}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
