"""Colours for a person at a terminal; elsewhere, and where NO_COLOR is set (https://no-color.org), the text as it is.

Foreign text goes through `term.printable` before it gets here, so the only escape sequences that reach a terminal are
the ones made below.
"""

from __future__ import annotations

import os
import sys

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}

OF_WORD = {
    "delivered": "green",
    "pending": "yellow",
    "held": "magenta",
    "failed": "red",
    "rejected": "red",
    "merged": "dim",
    "cancelled": "dim",
    "unmatched": "dim",
    "healthy": "green",
    "unhealthy": "red",
    "paused": "yellow",
    "disabled": "dim",
    "ok": "green",
    "warning": "yellow",
}
"""What is good, what waits, what is wrong and what is over looks the same in every verb."""


def wanted() -> bool:
    """Whether standard output shows colours to somebody who wants them."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str | None) -> str:
    """The text in a style such as `green` or `bold`."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style is not None and text and wanted() else text


def word(text: str) -> str:
    """A state in its colour."""
    return paint(text, OF_WORD.get(text))


def styled(text: str, style: str) -> str:
    """The text in a style, or as the state of this name is shown: see `logtext.Paint`."""
    return paint(text, OF_WORD.get(style, style if style in _CODES else None))
