"""A page: its template, what every page knows, and the headers that keep strangers' content from running."""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from relay.immutable import immutable
from relay.web import auth, logquery
from relay.web.dashboard import wording
from relay.web.dashboard.receipt import Receipt
from relay.web.desk import Desk

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Server": "relay",
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # a button leads back to where it was pressed
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_YEAR = 31_536_000


@immutable
class Visit:
    """Somebody looks at a page."""

    request: web.Request
    desk: Desk
    now: datetime
    operates: bool
    """Whether they may act: else no buttons are shown."""
    receipt: Receipt | None

    def respond(self, template: str, status: int = 200, **known: Any) -> web.Response:
        """The page, made from its template."""
        text = environment().get_template(template).render(visit=self, now=self.now, **known)
        return web.Response(status=status, text=text, content_type="text/html", charset="utf-8", headers=HEADERS)


def visit(request: web.Request, desk: Desk, receipt: Receipt | None = None) -> Visit:
    """What a request for a page comes to."""
    operates = auth.operates(request, desk.reloader.runtime.gate)
    return Visit(request, desk, desk.clock.now(), operates, receipt)


@cache
def environment() -> Environment:
    """The templates, compiled. Whatever they print is escaped, and shows what is invisible."""
    made = Environment(
        loader=PackageLoader("relay.web.dashboard"),
        autoescape=True,
        finalize=wording.finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for filtering in (
        wording.cut, wording.when, wording.clock, wording.due, wording.timed, wording.short, wording.number,
        wording.size, wording.count, wording.address, wording.lines, wording.what, wording.result, wording.span,
        wording.iso, wording.held,
    ):  # fmt: skip
        made.filters[filtering.__name__] = filtering
    made.globals |= {"static": static_url, "all_statuses": ",".join(logquery.STATUSES)}
    for name in made.list_templates():
        made.get_template(name)
    return made


@immutable
class _Asset:
    content: bytes
    type: str


@cache
def _assets() -> tuple[dict[str, str], dict[str, _Asset]]:
    """The static files: by their names the hashed ones, and by these their content."""
    names, assets = {}, {}
    for path in (files("relay.web.dashboard") / "static").iterdir():
        stem, _, kind = path.name.rpartition(".")
        content = path.read_bytes()
        hashed = f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{kind}"
        names[path.name] = hashed
        assets[hashed] = _Asset(content, _TYPES[kind])
    return names, assets


def static_url(name: str) -> str:
    """Where a static file is found as long as it stays as it is."""
    return f"/ui/static/{_assets()[0][name]}"


def static(name: str) -> web.Response:
    """A static file by its hashed name: one that changes gets another, so that this may be kept for a year."""
    found = _assets()[1].get(name)
    if found is None:
        raise web.HTTPNotFound
    lasting = {"Cache-Control": f"private, max-age={_YEAR}, immutable", "Content-Type": found.type}
    return web.Response(body=found.content, headers={**HEADERS, **lasting})
