"""`relay completion`: what makes a shell complete verbs, options and names."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script by which a shell completes verbs, options, and the names of routes and sources of the config.

    \b
    Examples:
      relay completion bash > /etc/bash_completion.d/relay
      relay completion zsh > "${fpath[1]}/_relay"
      relay completion fish > ~/.config/fish/completions/relay.fish
    """
    from click.shell_completion import get_completion_class

    from relay.cli import relay

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(relay, {}, "relay", "_RELAY_COMPLETE").source())
