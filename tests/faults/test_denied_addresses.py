"""Where attempts may never connect: no spelling of an address, no detour and no open connection leads there."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.problems import ConfigError
from tests.certificates import Authority, write_authority, write_certificate
from tests.faults.names import Names
from tests.faults.peers import FINE, OK, keeps, peer, server, status
from tests.faults.routes import config, ended, one_route
from tests.harness import Relay, relay_here

DENY = "egress: {deny: [loopback, private, link-local, metadata]}"
ELSEWHERE = "127.0.0.66"  # an address of this machine that is denied, where others are not
DENY_ELSEWHERE = f"egress: {{deny: [metadata, link-local, {ELSEWHERE}/32]}}"

DENIED = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "0.0.0.0": "loopback",
    "0.0.0.1": "loopback",
    "localhost": "loopback",
    "LOCALHOST": "loopback",
    "１２７。0。0。１": "loopback",
    "[::1]": "loopback",
    "[0:0:0:0:0:0:0:1]": "loopback",
    "[::1%25lo]": "loopback",
    "[::]": "loopback",
    "[::ffff:127.0.0.1]": "loopback",
    "[::ffff:7f00:1]": "loopback",
    "[::ffff:0.0.0.0]": "loopback",
    "[::127.0.0.1]": "loopback",
    "[::ffff:0:127.0.0.1]": "loopback",
    "[64:ff9b::127.0.0.1]": "loopback",
    "[64:ff9b:1::127.0.0.1]": "loopback",
    "[2002:7f00:1::]": "loopback",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]": "loopback",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "192.168.0.1": "private",
    "100.64.0.1": "private",
    "[fc00::1]": "private",
    "[::ffff:10.0.0.1]": "private",
    "[64:ff9b::10.0.0.1]": "private",
    "[2002:a00:1::]": "private",
    "169.254.1.1": "link-local",
    "[fe80::1%25lo]": "link-local",
    "[::ffff:169.254.1.1]": "link-local",
    "169.254.169.254": "link-local",
    "[::ffff:169.254.169.254]": "link-local",
    "[64:ff9b::169.254.169.254]": "link-local",
    "[2002:a9fe:a9fe::]": "link-local",
    "100.100.100.200": "private",
    "[fd00:ec2::254]": "private",
    "168.63.129.16": "metadata",
    "224.0.0.1": "multicast",
    "255.255.255.255": "multicast",
    "[ff02::1]": "multicast",
    "inside.test": "private",
}


async def test_no_spelling_of_a_denied_address_is_connected_to(
    tmp_path: Path, names: Names, connected: list[tuple[str, int]]
) -> None:
    names.answers["inside.test"] = [["10.0.0.1", "::ffff:10.0.0.2"]]
    async with peer(FINE) as target:
        routes = [
            f"name: r{number}, to: {{url: 'http://{host}:{target.port}/'}}, retry: none"
            for number, host in enumerate(DENIED)
        ]
        async with relay_here(tmp_path, config(*routes, server=DENY)) as relay:
            await relay.post("/in/any", b"{}")
            items = await relay.logs_when(lambda items: len(items) == len(DENIED), "?status=failed&limit=1000")
            errors = {item["route"]: item["error"] for item in items}
            for number, (host, rule) in enumerate(DENIED.items()):
                error = errors[f"r{number}"]
                assert error["code"] == "blocked_address", host
                assert error["message"].endswith(f"is denied by server.egress ({rule})"), host
            assert target.connections == 0
            assert [address for address in connected if address[1] == target.port] == []


async def test_by_default_this_machine_is_allowed_and_the_metadata_service_is_not(
    tmp_path: Path, connected: list[tuple[str, int]]
) -> None:
    async with peer(FINE) as local:
        routes = (
            f"name: local, to: {{url: '{local.url}'}}, retry: none",
            "name: metadata, to: {url: 'http://169.254.169.254/latest/meta-data/'}, retry: none",
        )
        async with relay_here(tmp_path, config(*routes)) as relay:
            await relay.post("/in/any", b"{}")
            [delivered] = await relay.logs_when(len, "?status=delivered")
            [failed] = await relay.logs_when(len, "?status=failed")
            assert (delivered["route"], local.requests) == ("local", 1)
            assert (failed["route"], failed["error"]["code"]) == ("metadata", "blocked_address")
            assert "169.254.169.254" not in {address for address, _ in connected}


URLS = {
    "decimal": "http://2130706433/",
    "short": "http://127.1/",
    "octal": "http://0177.0.0.1/",
    "octal in one": "http://017700000001/",
    "hex": "http://0x7f.0.0.1/",
    "hex in one": "http://0x7f000001/",
    "zero": "http://0/",
    "leading zeros": "http://127.00.0.01/",
    "as user": "http://example.com@127.0.0.1/",
    "as host behind a user": "http://127.0.0.1@example.com/",
    "user and password": "http://example.com:80@127.0.0.1/",
    "behind a fragment": "http://example.com#@127.0.0.1/",
    "behind a backslash": "http://example.com\\@127.0.0.1/",
    "two ports": "http://127.0.0.1:80:8080/",
    "white space": "http://127.0.0.1 /",
    "a dot at its end": "http://127.0.0.1.:80/",
    "no host": "http:///127.0.0.1/",
    "no scheme": "//127.0.0.1/",
    "IPv4 in brackets": "http://[127.0.0.1]/",
    "unix socket": "unix:/run/relay/admin.sock",
    "unix socket as a URL": "unix:///run/relay/admin.sock",
    "unix socket under http": "http+unix://%2Frun%2Frelay%2Fadmin.sock/",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1/",
}


KEYS = ("url", "token_url", "proxy")


@pytest.mark.parametrize(
    ("key", "url"),
    [
        pytest.param(key, url, id=f"{key}-{what}")
        for key in KEYS
        for what, url in URLS.items()
        if key != "proxy" or "@" not in url  # the user name and password of a proxy go into its URL
    ],
)
async def test_an_address_in_disguise_is_a_mistake_in_the_config(tmp_path: Path, key: str, url: str) -> None:
    to = {
        "url": f"url: '{url}'",
        "proxy": f"url: 'https://example.com/', proxy: '{url}'",
        "token_url": "url: 'https://example.com/', auth: {type: oauth2, client_id: relay, client_secret: "
        f"0123456789abcdef, token_url: '{url}'}}",
    }[key]
    with pytest.raises(ConfigError) as caught:
        async with relay_here(tmp_path, config(f"name: r, to: {{{to}}}")):
            pass
    [problem] = caught.value.problems
    assert problem.path.endswith(key)


# --- detours ----------------------------------------------------------------------------------------------------------


async def test_a_redirect_does_not_lead_to_a_denied_address(tmp_path: Path) -> None:
    async with peer(FINE, ELSEWHERE) as target, peer(status("307 Away", f"Location: {target.url}")) as destination:
        async with relay_here(tmp_path, one_route(destination.url, server=DENY_ELSEWHERE)) as relay:
            assert (await ended(relay))["delivery"]["code"] == 307
            assert (destination.requests, target.connections) == (1, 0)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_at_a_denied_address_is_not_asked(tmp_path: Path, scheme: str) -> None:
    async with peer(FINE) as proxy:
        text = one_route(f"{scheme}://example.com/", f"proxy: '{proxy.url}'", server=DENY)
        async with relay_here(tmp_path, text) as relay:
            assert (await ended(relay))["delivery"]["error"]["code"] == "blocked_address"
            assert proxy.connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[fe80::1%25lo]",
        ELSEWHERE,
        f"[::ffff:{ELSEWHERE}]",
    ],
)
async def test_a_proxy_is_not_told_to_connect_to_a_denied_address(tmp_path: Path, scheme: str, host: str) -> None:
    async with peer(FINE) as proxy:
        text = one_route(f"{scheme}://{host}/", f"proxy: '{proxy.url}'", server=DENY_ELSEWHERE)
        async with relay_here(tmp_path, text) as relay:
            assert (await ended(relay))["delivery"]["error"]["code"] == "blocked_address"
            assert proxy.connections == 0


@pytest.mark.parametrize("host", ["localhost", "LocalHost.", "relay.localhost", "ip6-localhost"])
async def test_a_proxy_is_not_told_to_connect_to_itself_where_loopback_is_denied(
    tmp_path: Path, names: Names, host: str
) -> None:
    # The proxy has an address that is allowed; nobody is there, nor asked.
    names.answers["proxy.test"] = [["203.0.113.1"]]
    text = one_route(f"http://{host}/", "proxy: 'http://proxy.test:3128'", server=DENY)
    async with relay_here(tmp_path, text) as relay:
        assert (await ended(relay))["delivery"]["error"]["code"] == "blocked_address"
        assert names.asked == []


@pytest.mark.parametrize("host", [ELSEWHERE, f"[::ffff:{ELSEWHERE}]", "turns.test"])
async def test_no_token_is_asked_for_at_a_denied_address(tmp_path: Path, names: Names, host: str) -> None:
    names.answers["turns.test"] = [[ELSEWHERE]]
    async with peer(FINE) as destination, peer(FINE, ELSEWHERE) as tokens:
        auth = (
            f"auth: {{type: oauth2, token_url: 'http://{host}:{tokens.port}/', client_id: relay, "
            "client_secret: 0123456789abcdef}"
        )
        async with relay_here(tmp_path, one_route(destination.url, auth, server=DENY_ELSEWHERE)) as relay:
            error = (await ended(relay))["delivery"]["error"]
            assert error["code"] == "blocked_address"
            assert "is denied by server.egress" in error["message"]
            assert (destination.connections, tokens.connections) == (0, 0)


# --- connections that are open ----------------------------------------------------------------------------------------


def _egress(text: str, folder: Path, authority: Authority) -> str:
    return text.replace("/32]", "/32, 203.0.113.0/24]")


def _other_file(text: str, folder: Path, authority: Authority) -> str:
    other = write_authority(folder, "other")
    both = folder / "both.pem"
    both.write_bytes(authority.path.read_bytes() + other.path.read_bytes())
    return text.replace(str(authority.path), str(both))


def _other_content(text: str, folder: Path, authority: Authority) -> str:
    write_authority(folder, "ca")
    return text


def _as_whom(text: str, folder: Path, authority: Authority) -> str:
    cert, key = write_certificate(folder, "client", by=authority)
    return text.replace("ca.pem'", f"ca.pem', cert: '{cert}', key: '{key}'")


def _nothing(text: str, folder: Path, authority: Authority) -> str:
    return text + "# the same\n"


@pytest.mark.parametrize(
    ("change", "connections", "code"),
    [
        (_egress, 2, None),
        (_other_file, 2, None),
        (_other_content, 2, "tls_error"),
        (_as_whom, 2, None),
        (_nothing, 1, None),
    ],
    ids=["egress", "tls: another ca", "tls: the ca's file renewed", "tls: as another", "nothing"],
)
async def test_an_open_connection_serves_until_egress_or_tls_change(
    tmp_path: Path, change: Callable[[str, Path, Authority], str], connections: int, code: str | None
) -> None:
    authority = write_authority(tmp_path, "ca")
    context: ssl.SSLContext = server(*write_certificate(tmp_path, "server", by=authority))
    async with peer(keeps(OK + b"Content-Length: 0\r\n\r\n"), tls=context) as destination:
        text = one_route(destination.url, f"tls: {{ca: '{authority.path}'}}", server=DENY_ELSEWHERE)
        async with relay_here(tmp_path, text) as relay:
            for _ in range(2):
                await _delivered(relay)
            assert destination.connections == 1
            path = tmp_path / "config.yaml"
            path.write_text(change(path.read_text(), tmp_path, authority))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            error = (await ended(relay))["delivery"]["error"]
            assert (error["code"] if error else None) == code
            if code is None:
                assert destination.connections == connections


async def _delivered(relay: Relay) -> None:
    assert (await ended(relay))["delivery"]["status"] == "delivered"
