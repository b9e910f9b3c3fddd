"""Whom relay trusts is read where somebody asks for it, and once."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay import authorities
from relay.config import load
from relay.runtime import Runtime, build
from tests.certificates import write_authority


class Reading(ssl.SSLContext):
    """One that knows what it was told to read."""

    read: list[object]

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        self.read.append(cafile)
        super().load_verify_locations(cafile, capath, cadata)

    def set_default_verify_paths(self) -> None:
        self.read.append("default")
        super().set_default_verify_paths()


def reading() -> Reading:
    context = Reading(ssl.PROTOCOL_TLS_CLIENT)
    context.read = []
    return context


def built(*routes: str) -> Runtime:
    text = "sources: {any: {type: generic, verify: none}}\nroutes:\n"
    text += "".join(f"  - {{name: r{n}, to: {{{to}}}}}\n" for n, to in enumerate(routes))
    return build(load(text.encode(), environ={}), 1, datetime.now(UTC))


def oauth(scheme: str) -> str:
    return (
        f'auth: {{type: oauth2, token_url: "{scheme}://127.0.0.1/t", client_id: me, client_secret: a-secret-of-mine}}'
    )


@pytest.mark.parametrize(
    ("to", "trusts"),
    [
        ("url: http://127.0.0.1/", [False]),
        ("url: https://127.0.0.1/", [True]),
        ("url: http://127.0.0.1/, tls: {verify: false}", [True]),
        (f"url: http://127.0.0.1/, {oauth('https')}", [False, True]),
        (f"url: https://127.0.0.1/, {oauth('http')}", [True, False]),
    ],
)
def test_a_context_is_made_for_what_may_lead_to_tls(to: str, trusts: list[bool]) -> None:
    runtime = built(to)
    [route] = runtime.routing.routes.values()
    wires = [route.destination.wire, *(wire for _, wire, _ in runtime.tokens._made)]
    assert [wire.tls is not None for wire in wires] == trusts


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_routes_with_and_without_tls_share_tokens(scheme: str) -> None:
    runtime = built(f"url: http://127.0.0.1/, {oauth(scheme)}", f"url: https://127.0.0.1/, {oauth(scheme)}")
    one, other = runtime.routing.routes.values()
    assert one.destination.exchange == other.destination.exchange


def test_a_place_that_openssl_knows_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_authority(tmp_path, "ours").path
    monkeypatch.setenv("SSL_CERT_FILE", str(place))
    monkeypatch.setattr(authorities, "ELSEWHERE", (str(place),))
    context = reading()
    authorities.trust(context)
    assert context.read == ["default"]


def test_where_openssl_knows_of_nothing_the_usual_places_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_authority(tmp_path, "ours").path
    known = ssl.get_default_verify_paths()
    missing = str(tmp_path / "missing")
    for name in (known.openssl_cafile_env, known.openssl_capath_env):
        monkeypatch.delenv(name, raising=False)
    nowhere = ssl.DefaultVerifyPaths(missing, missing, known[2], known[3], known[4], known[5])
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setattr(authorities, "ELSEWHERE", (missing, str(place), str(place)))
    monkeypatch.setattr(Reading, "set_default_verify_paths", lambda context: context.read.append("default"))
    context = reading()
    authorities.trust(context)
    assert context.read == ["default", str(place)]


def test_a_place_with_no_certificate_in_it_trusts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "empty.crt"
    place.write_text("# none\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(place))
    monkeypatch.setattr(authorities, "ELSEWHERE", (str(place),))
    context = reading()
    authorities.trust(context)
    assert context.read == ["default", str(place)]
    assert context.cert_store_stats()["x509"] == 0
