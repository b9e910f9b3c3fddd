"""What a person probably meant where filters find nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relay.cli import ask, completing, term

_PATIENCE = 2.0  # seconds: a hint is not worth more


def unknown_names(
    query: Mapping[str, str], config: Path | None, daemon: ask.Daemon, logs: Callable[[Mapping[str, str]], Any]
) -> None:
    """Nothing was found: say which of the routes and sources that were named are neither in the config nor in the log,
    which `logs` searches."""
    from relay.problems import did_you_mean

    for noun in ("route", "source"):
        named = [name for name in query.get(noun, "").split(",") if name]
        known = _known(f"{noun}s", config, daemon) if named else None
        if known is None:
            continue
        for name in dict.fromkeys(named):
            if name not in known and not logs({noun: name, "status": _ANY, "limit": "1"})["items"]:
                term.complain(f"no {noun} is called '{name}'{did_you_mean(name, known)}")


_ANY = ",".join(completing.STATUSES)
"""Of a source there may be nothing but what no route wanted, or what was refused."""


def _known(kind: str, config: Path | None, daemon: ask.Daemon) -> list[str] | None:
    """The routes, or sources, that the daemon has, or where none answers, those of the config; None where nobody
    says."""
    from relay.config import ConfigError

    try:
        status, answer = daemon.get(f"/{kind}", patience=_PATIENCE)
        if status == 200 and isinstance(answer, dict) and kind in answer:
            return [each["name"] for each in (*answer[kind], *answer.get("removed", ()))]
    except (ask.Unreachable, ConfigError):
        pass
    try:
        read = ask.load(config).config
    except ConfigError:
        return None
    return [route.name for route in read.routes] if kind == "routes" else list(read.sources)
