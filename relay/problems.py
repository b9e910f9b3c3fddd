"""What is wrong with a config, where, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from relay.immutable import immutable


@immutable
class Problem:
    """One mistake. `line` and `col` count from 1; 0 where there is no place, as for a file that cannot be read."""

    file: str
    line: int
    col: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.col}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class ConfigError(Exception):
    """A config that cannot be taken, with all of its mistakes."""

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)


Path = tuple[str | int, ...]
"""Where in the document: keys and list indexes."""


class Note(Protocol):
    """Notes a problem or a warning at a path."""

    def __call__(self, path: Path, message: str, kind: str = "") -> None: ...


def path_text(path: Path) -> str:
    """`routes[0].match.action`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that was probably meant."""
    import difflib  # only for those who mistyped something

    folded = {known.casefold(): known for known in words}
    found = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """` (did you mean 'action'?)`, or nothing."""
    near = nearest(word, words) if isinstance(word, str) else None
    return f" (did you mean '{near}'?)" if near is not None else ""
