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
    if one_address and (first := unquote(path.split("/")[1])) in ADMIN:
        whose = f"what begins with /{first}" if first else "/"
        return f"{whose} is the admin side's, which has the same address (choose another path, or admin.listen)"
    return None
