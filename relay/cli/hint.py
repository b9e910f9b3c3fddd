"""What a person probably meant where filters find nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relay.cli import ask, term

_PATIENCE = 2.0  # seconds: a hint is not worth more


def unknown_routes(
    query: Mapping[str, str], config: Path | None, daemon: ask.Daemon, logs: Callable[[Mapping[str, str]], Any]
) -> None:
    """Nothing was found: say which of the routes that were named are neither in the config nor in the log, which
    `logs` searches."""
    from relay.problems import did_you_mean

    named = [name for name in query.get("route", "").split(",") if name]
    known = _known(config, daemon) if named else None
    if known is None:
        return
    for name in dict.fromkeys(named):
        if name not in known and not logs({"route": name, "limit": "1"})["items"]:
            term.complain(f"no route is called '{name}'{did_you_mean(name, known)}")


def _known(config: Path | None, daemon: ask.Daemon) -> list[str] | None:
    """The routes that the daemon has, or where none answers, those of the config; None where nobody says."""
    from relay.config import ConfigError

    try:
        status, answer = daemon.get("/routes", patience=_PATIENCE)
        if status == 200 and isinstance(answer, dict) and "routes" in answer:
            return [route["name"] for route in (*answer["routes"], *answer.get("removed", ()))]
    except (ask.Unreachable, ConfigError):
        pass
    try:
        return [route.name for route in ask.load(config).config.routes]
    except ConfigError:
        return None
