"""What the daemon does not use, it does not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CONFIG = b"""
sources: {blog: {type: strapi, token: my-very-secured-token}}
routes: [{name: r, to: {url: 'https://a.test/'}}]
"""
SCRIPT = f"""
import json, os, sys
os.environ["SSL_CERT_FILE"] = "as-it-was"
from relay import lean
lean.imports()
import relay.daemon, relay.stores.sqlite
from datetime import UTC, datetime
from relay.config import load
from relay.runtime import build
build(load({CONFIG!r}), 1, datetime.now(UTC))
import aiohttp.connector
trusts = len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs())
variables = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
print(json.dumps([list(sys.modules), trusts, variables]))
"""


def test_the_daemon_imports_nothing_that_its_config_does_not_need() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT")}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environ)
    modules, trusts, variables = json.loads(done.stdout)
    unwanted = {"rich", "cryptography", "aiosmtplib", "relay.checkup", "relay.imports", "relay.sandbox", "jinja2"}
    assert {"aiohttp", "structlog", "relay.sources.strapi"} <= set(modules)
    assert not unwanted & set(modules)
    assert trusts == 0, "aiohttp's own context, which nobody uses, has read the authorities of this machine"
    assert variables == ["as-it-was", None], "what OpenSSL is told is as it was"
