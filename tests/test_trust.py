"""Whom relay trusts is read where somebody asks for it, and once."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay import authorities
from relay.config import load
from relay.runtime import build


class Reading(ssl.SSLContext):
    """One that knows what it was told to read."""

    read: list[object]

    def load_verify_locations(self, cafile: object = None, capath: object = None, cadata: object = None) -> None:
        self.read.append(cafile)

    def set_default_verify_paths(self) -> None:
        self.read.append("default")


def reading() -> Reading:
    context = Reading(ssl.PROTOCOL_TLS_CLIENT)
    context.read = []
    return context


@pytest.mark.parametrize(
    ("to", "trusts"),
    [
        ("url: http://127.0.0.1/", False),
        ("url: https://127.0.0.1/", True),
        ("url: http://127.0.0.1/, tls: {verify: false}", True),
        ("url: http://127.0.0.1/, auth: {type: oauth2, token_url: TOKENS, client_id: me, client_secret: mine}", True),
    ],
)
def test_a_context_is_made_for_what_may_lead_to_tls(to: str, trusts: bool) -> None:
    to = to.replace("TOKENS", '"https://127.0.0.1/token"')
    text = f"sources: {{any: {{type: generic, verify: none}}}}\nroutes: [{{name: r, to: {{{to}}}}}]\n"
    runtime = build(load(text.encode(), environ={}), 1, datetime.now(UTC))
    [route] = runtime.routing.routes.values()
    assert (route.destination.wire.tls is not None) is trusts


def test_a_place_that_openssl_knows_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "ca.pem"
    place.write_text("certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(place))
    monkeypatch.setattr(authorities, "ELSEWHERE", (str(place),))
    context = reading()
    authorities.trust(context)
    assert context.read == ["default"]


def test_where_openssl_knows_of_nothing_the_usual_places_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "ca.pem"
    place.write_text("certificates")
    known = ssl.get_default_verify_paths()
    missing = str(tmp_path / "missing")
    for name in (known.openssl_cafile_env, known.openssl_capath_env):
        monkeypatch.delenv(name, raising=False)
    nowhere = ssl.DefaultVerifyPaths(missing, missing, known[2], known[3], known[4], known[5])
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setattr(authorities, "ELSEWHERE", (missing, str(place), str(place)))
    context = reading()
    authorities.trust(context)
    assert context.read == ["default", str(place)]
