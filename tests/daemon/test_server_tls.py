"""The public side over TLS: the newest certificate for each new connection, and never a broken one."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from tests.certificates import write_certificate
from tests.harness import Relay, relay_here


async def served(relay: Relay) -> str:
    """The common name of the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = urlsplit(relay.public)
    _, writer = await asyncio.open_connection(address.hostname, address.port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    name = x509.load_der_x509_certificate(found).subject.rfc4514_string()
    return name.removeprefix("CN=")


async def test_a_reload_serves_the_new_certificate_and_keeps_the_old_one_if_it_is_broken(tmp_path: Path) -> None:
    (first, first_key), (second, second_key) = (
        write_certificate(tmp_path, "first"),
        write_certificate(tmp_path, "second"),
    )
    cert, key = tmp_path / "cert.pem", tmp_path / "cert.key"
    cert.write_bytes(first.read_bytes())
    key.write_bytes(first_key.read_bytes())
    text = (
        f'server: {{listen: "127.0.0.1:0", tls: {{cert: {cert}, key: {key}}}}}\nadmin: {{listen: "127.0.0.1:0"}}\n'
        "sources: {any: {type: generic, verify: none}}\n"
    )
    async with relay_here(tmp_path, text) as relay:
        assert await served(relay) == "first"
        cert.write_bytes(second.read_bytes())
        status, answer = await relay.ask("POST", "/reload")  # the key is still the first one's
        assert status == 422
        assert "server.tls: the certificate" in answer["errors"][0]
        assert await served(relay) == "first"
        key.write_bytes(second_key.read_bytes())
        assert (await relay.ask("POST", "/reload"))[0] == 200
        assert await served(relay) == "second"
