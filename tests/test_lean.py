"""What the daemon does not use, it does not import."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

from tests.certificates import write_certificate
from tests.faults.peers import tls_peer
from tests.harness import PATIENCE, relay_process, sink
from tests.torture.wire import exchange, post

NEEDED = {"aiohttp", "pydantic", "uvloop", "relay.sources.strapi", "relay.stores.sqlite"}
# Each with what it takes along: of most that is more than the module itself.
UNWANTED = {
    *("aiosmtplib", "cryptography", "jinja2", "jmespath", "prometheus_client", "rich", "structlog"),
    *("argparse", "difflib", "html.entities"),
    "frozenlist._frozenlist",  # and the library of C++
    *("importlib.metadata", "zipfile"),  # pydantic asks by them who is installed
    *("psycopg", "psycopg_binary"),
    *("relay.checkup", "relay.imports", "relay.sandbox", "relay.sources.contentstack"),
}
SCRIPT = """
import json, os
os.environ["SSL_CERT_FILE"] = "as-it-was"
import mimetypes
lists = len(mimetypes.knownfiles)
mimetypes.knownfiles.append("types.of.this.machine")
open("types.of.this.machine", "w").write("application/x-of-this-machine ofthismachine")
from relay import lean
lean.imports()
import aiohttp.connector, argparse, html
argparse.ArgumentParser()
assert html.unescape("&eacute;&amp;&notit;&nosuch;") == "é&¬it;&nosuch;"
import html.entities
assert type(html.entities.html5) is dict
known = [mimetypes.guess_type(name)[0] for name in ("a.html", "a.ofthismachine")]
known.append(len(mimetypes.knownfiles) - lists)
trusts = len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs())
variables = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "FROZENLIST_NO_EXTENSIONS")]
print(json.dumps([trusts, variables, known]))
"""


async def test_a_relay_at_rest_has_imported_nothing_that_its_config_does_not_need(tmp_path: Path) -> None:
    text = (
        "sources: {blog: {type: strapi, token: my-very-secured-token}}\n"
        "routes: [{name: r, match: {action: publish}, to: {url: 'https://a.test/'}}]\n"
    )
    # Python itself says on standard error what it imports.
    async with relay_process(tmp_path, text, environ={"PYTHONVERBOSE": "1"}) as relay:
        said = relay.log.read_text()
    imported = set(re.findall(r"^import '([^']+)' #", said, re.MULTILINE))
    missed, unwanted = NEEDED - imported, imported & UNWANTED
    assert not missed
    assert not unwanted


def test_what_imports_are_told_is_told_to_nobody_else(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT")}
    environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environ, cwd=tmp_path
    )
    trusts, variables, known = json.loads(done.stdout)
    assert trusts == 0, "aiohttp's own context, which nobody uses, has read the authorities of this machine"
    assert variables == ["as-it-was", None, None]
    assert known == ["text/html", None, 1], "what a file is called depends on no list of this machine"


def test_a_library_that_takes_more_than_it_used_to_gets_it() -> None:
    script = """
import sys
from relay import lean
with lean._stand_in("colorsys", rgb_to_hsv=None):
    from colorsys import rgb_to_hsv
    assert rgb_to_hsv is None
    from colorsys import rgb_to_hls
with lean._stand_in("colorsys", rgb_to_hsv=None):
    import colorsys
assert colorsys.rgb_to_hls is rgb_to_hls and colorsys.rgb_to_hsv is not None
lean._without_plugins()
from pydantic.plugin._loader import get_plugins
assert get_plugins() == ()
from pydantic.plugin._loader import PYDANTIC_ENTRY_POINT_GROUP
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)


async def test_a_notifier_without_tls_settings_still_trusts_whom_the_machine_trusts(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "chat", hosts=["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with sink(lambda request: 410) as destination, tls_peer(tls) as chat:
        text = (
            "sources: {open: {type: generic, verify: none}}\n"
            f"notifiers: {{chat: {{type: webhook, url: '{chat.url}/'}}}}\n"
            f"routes: [{{name: r, to: {{url: '{destination.url}'}}, notify: [chat]}}]\n"
        )
        async with relay_process(tmp_path, text, environ={"SSL_CERT_FILE": str(certificate)}) as relay:
            assert (await exchange(relay.public, post("/in/open", b"{}"))).statuses == (200,)
            async with asyncio.timeout(PATIENCE):
                while not [line for line in relay.lines() if line["event"].startswith("notice_")]:
                    await asyncio.sleep(0.05)
            told = {line["event"] for line in relay.lines() if line["event"].startswith("notice_")}
        assert told == {"notice_sent"}
        assert chat.requests
