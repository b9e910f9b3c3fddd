"""Which headers a route may set, pass on and sign into: none that is relay's own, belongs to one connection, proves the
sender, or is written by the route's auth and signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from relay import signschema
from relay.destination import HOP_BY_HOP, OWN_HEADERS, SIGNATURE_HEADER, TELLING_HEADERS
from relay.fields import UNKNOWN_KEY
from relay.problems import Note, Path
from relay.schema import Route
from relay.source import SourceAdapter

_AUTHORIZATION = frozenset({"authorization"})
_NONE: frozenset[str] = frozenset()


class HeaderCheck:
    """Notes the headers of a config that are not a route's to write."""

    def __init__(self, problem: Note) -> None:
        self._problem = problem

    def of_defaults(self, raw: Mapping[str, Any], routes: Sequence[Any]) -> None:
        """Those of `defaults`, which every route has."""
        signed = frozenset().union(*(_signature_headers(_mapping(route)) for route in routes))
        for name in _strings(raw.get("headers")):
            self._own(("defaults", "headers", name), name, signed, UNKNOWN_KEY)

    def of_route(
        self, place: Path, raw: Mapping[str, Any], route: Route | None, adapters: Mapping[str, SourceAdapter]
    ) -> None:
        """A route's, as it is written and, if it could be, as it was read; `adapters` are those of its sources."""
        to = _mapping(raw.get("to"))
        by_auth = isinstance(to.get("auth"), dict) or (
            route is not None and route.to.auth is not None
        )  # or the preset's
        others = _AUTHORIZATION if by_auth else _NONE
        self._signatures(place, raw, route, others)
        signed = _signature_headers(raw) | others
        for name in _strings(to.get("headers")):
            self._own((*place, "to", "headers", name), name, signed, UNKNOWN_KEY)
        passed = to.get("pass_headers")
        for number, name in enumerate(passed if isinstance(passed, list) else ()):
            if isinstance(name, str):
                self._passed((*place, "to", "pass_headers", number), name, signed, adapters)

    def _passed(self, place: Path, name: str, signed: frozenset[str], adapters: Mapping[str, SourceAdapter]) -> None:
        """A header of the sender's that is to be carried on."""
        if self._own(place, name, signed):
            return
        if name.lower() == "content-encoding":
            self._problem(place, f"{name} is never carried: the body is sent on decoded")
        proven = next((source for source, adapter in adapters.items() if name.lower() in adapter.proof_headers), None)
        if proven is not None:
            self._problem(place, f"{name} carries a proof of source '{proven}': it is never sent on")

    def _signatures(self, place: Path, raw: Mapping[str, Any], route: Route | None, others: frozenset[str]) -> None:
        """Schemes that write over each other, over relay's own headers, or into a body that has no place for it."""
        own = {name.lower() for name in _strings(_mapping(raw.get("to")).get("headers"))}
        of_preset = {name.lower() for name in route.to.headers} - own if route is not None else _NONE
        written: set[str] = set()
        filled = False
        for number, entry in enumerate(_signs(raw)):
            here = (*place, "sign", number)
            header = signschema.header_of(entry)
            if header in written:
                self._problem(here, f"another scheme already writes {header}", UNKNOWN_KEY)
            elif header is not None and entry["scheme"] == "hmac":
                self._signed((*here, "header"), entry["header"], others, of_preset)
            if header is not None:
                written.add(header)
            if not signschema.fills_body(entry):
                continue
            if filled:
                self._problem(here, "another scheme already puts a secret into the body", UNKNOWN_KEY)
            elif (what := _never_an_object(raw, route)) is not None:
                message = f"prismic puts its secret into a JSON object, which {what} is not"
                self._problem((*here, "scheme"), message)
            filled = True

    def _signed(self, place: Path, name: str, others: frozenset[str], of_preset: Set[str]) -> None:
        """A header that a signature would write over."""
        if name.lower() != SIGNATURE_HEADER and self._own(place, name, others):
            return
        if name.lower() in of_preset:
            self._problem(place, f"{name} is written by the route's preset")
        elif name.lower() in TELLING_HEADERS:
            self._problem(place, f"{name} has a meaning of its own (choose another header for the signature)")

    def _own(self, place: Path, name: str, signed: frozenset[str], kind: str = "") -> bool:
        """Whether a header is not a route's to write; it has been said then."""
        lower = name.lower()
        if lower in OWN_HEADERS:
            message = f"{name} is written by relay alone"
        elif lower in HOP_BY_HOP:
            message = f"{name} belongs to one connection and is never carried"
        elif lower in signed:
            message = f"{name} is written by the route's {'auth' if lower == 'authorization' else 'sign'}"
        elif lower == SIGNATURE_HEADER:
            message = f"{name} signs the webhook-id, which is relay's own (see sign: standard)"
        else:
            return False
        self._problem(place, message, kind)
        return True


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _signs(raw: Mapping[str, Any]) -> list[Any]:
    signs = raw.get("sign")
    return signs if isinstance(signs, list) else []


def _never_an_object(raw: Mapping[str, Any], route: Route | None) -> str | None:
    """What is sent, if it certainly is no JSON object that a secret could be put into."""
    if route is not None and route.to.aim() is not None:
        return "the deletion of a document"
    if "payload" in raw or route is None or route.to.payload is None:
        return signschema.never_an_object(raw.get("payload"), batched="batch" in raw)
    what = signschema.never_an_object(route.to.payload)
    return f"{what} (that of the preset)" if what is not None else None


def _signature_headers(raw: Mapping[str, Any]) -> frozenset[str]:
    headers = (signschema.header_of(entry) for entry in _signs(raw))
    return frozenset(header for header in headers if header is not None)


def _strings(value: object) -> list[str]:
    return [key for key in _mapping(value) if isinstance(key, str)]
