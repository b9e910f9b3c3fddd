"""Which paths a source may have of its own."""

from __future__ import annotations

import re
from urllib.parse import unquote

_PATH = re.compile(r"/(?!/)(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}|/(?!/))*")
_DOTS = re.compile(r"/\.\.?(?:/|$)")
ADMIN = frozenset(
    (
        "",
        "config",
        "events",
        "health",
        "logs",
        "metrics",
        "openapi.json",
        "reload",
        "routes",
        "sources",
        "store",
        "ui",
        "windows",
    )
)
"""How paths of the admin side begin."""


def fault(path: str, one_address: bool) -> str | None:
    """Why no source can have this path; `one_address` says that the admin side is asked at the same address."""
    if not _PATH.fullmatch(path) or _DOTS.search(path):
        return "expected a path such as /hooks/www"
    if path == "/health" or path.startswith("/health/"):
        return f"{path} is relay's own"
    if one_address and is_admins(path):
        first = _first(path)
        whose = f"what begins with /{first}" if first else "/"
        return f"{whose} is the admin side's, which has the same address (choose another path, or admin.listen)"
    return None


def is_admins(path: str) -> bool:
    """Whether a path is one of the admin side's, by how it begins."""
    return _first(path) in ADMIN


def _first(path: str) -> str:
    return unquote(path.split("/")[1])
