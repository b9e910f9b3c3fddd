"""Prints relay(1), out of what the verbs say of themselves."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator

import click

from relay import __version__
from relay.cli import VERBS, relay


def page() -> str:
    """The manual page, in man(7)."""
    top = click.Context(relay, info_name="relay")
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0"))))
    lines = [
        f'.TH RELAY 1 "{day}" "relay {__version__}" "User Commands"',
        ".SH NAME",
        r"relay \- webhook relay for headless content systems",
        ".SH SYNOPSIS",
        r".B relay",
        r"\fIVERB\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        *_text(relay.help),
        ".SH VERBS",
    ]
    for name, duty in VERBS.items():
        lines += [".TP", rf"\fB{_safe(name)}\fR", _safe(duty)]
    for name in VERBS:
        command = relay.get_command(top, name)
        assert command is not None
        lines += _command(command, click.Context(command, info_name=name, parent=top))
    return "\n".join([*lines, *_END]) + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    arguments = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    yield f'.SH "{_safe(context.command_path.upper())}"'
    yield rf"\fB{_safe(context.command_path)}\fR [\fIOPTION\fR]... {_safe(arguments)}".rstrip()
    yield ".PP"
    yield from _text(command.help)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield from (".TP", rf"\fB{_safe(record[0])}\fR", _safe(record[1]))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _command(below, click.Context(below, info_name=name, parent=context))


def _text(text: str | None) -> Iterator[str]:
    """A help text; what click is told not to wrap (\b) stays as it is written."""
    for number, paragraph in enumerate(inspect.cleandoc(text or "").split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b\n"):
            yield ".nf"
            yield from map(_safe, paragraph.removeprefix("\b\n").split("\n"))
            yield ".fi"
        else:
            yield _safe(" ".join(paragraph.split()))


def _safe(text: str) -> str:
    """Text that roff takes for nothing else; every dash can be copied to a shell."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


_END = (
    ".SH EXIT STATUS",
    "0 done, 1 failed, 2 wrong usage, 78 an operator must act: the config or the store is at fault, and a restart will",
    "not help.",
    ".SH FILES",
    r".TP",
    r"\fI/etc/relay/config.yaml\fR",
    r"The config, unless \fB\-\-config\fR, $RELAY_CONFIG or a config.yaml in the current folder says another one.",
    r".TP",
    r"\fI/var/lib/relay\fR",
    "The store of the system's service.",
    ".SH SEE ALSO",
    r"\fBsystemctl\fR(1), \fBjournalctl\fR(1)",
)


if __name__ == "__main__":
    print(page(), end="")
