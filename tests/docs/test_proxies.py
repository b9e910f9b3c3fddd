"""`docs/proxies.md`: its nginx, with real requests through it, and its deploy hook for certbot."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.certificates import write_certificate
from tests.cli.running import free_ports
from tests.docs.pages import blocks
from tests.harness import answered, relay_here

PAGE = "docs/proxies.md"
SECRET = "a-secret-for-tests"
TOKEN = "an-admin-token-for-tests"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


def block(begins: str) -> str:
    [found] = [block.text for block in blocks(PAGE) if block.text.startswith(begins)]
    return found


class Proxy:
    """nginx, as the page has it; by the address of the machine that a request is to come from."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(
        self, name: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, by: str = ""
    ) -> int:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=context, local_addr=(by or "127.0.0.1", 0))
        url, host = f"https://127.0.0.1:{self.port}{path}", f"{name}:{self.port}"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                "GET" if body is None else "POST",
                url,
                data=body and io.BytesIO(body),
                headers={"Host": host, **(headers or {})},
            ) as answer,
        ):
            await answer.read()
            return answer.status

    async def send(self, source: str, body: bytes, by: str = "", headers: dict[str, str] | None = None) -> int:
        signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        signed = {"X-Hub-Signature-256": signature, "X-GitHub-Event": "push", "Content-Type": "application/json"}
        return await self.ask("hooks.example.com", f"/in/{source}", body, signed | (headers or {}), by)


@asynccontextmanager
async def proxy(folder: Path) -> AsyncIterator[Proxy]:
    if not os.access(NGINX, os.X_OK):
        pytest.skip("nginx is not installed (package nginx-light)")
    public, admin, port = free_ports(3)
    text = "".join(one.text for one in blocks(PAGE) if one.section == "Behind a proxy")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{public}").replace("127.0.0.1:8081", f"127.0.0.1:{admin}")
    assert "${RELAY_ADMIN_TOKEN}" in text
    text = text.replace("${RELAY_ADMIN_TOKEN}", TOKEN)
    text += f"""\
sources:
  any: {{type: github, secret: {SECRET}}}
  near: {{type: github, secret: {SECRET}, allow_ips: [127.0.0.2/32]}}
"""
    snippet = block("# nginx: ").replace("127.0.0.1:8080", f"127.0.0.1:{public}")
    snippet = snippet.replace("127.0.0.1:8081", f"127.0.0.1:{admin}").replace("listen 443", f"listen 127.0.0.1:{port}")
    cert, key = write_certificate(folder, "proxy")
    for name in ("hooks", "relay"):
        snippet = snippet.replace(f"/etc/letsencrypt/live/{name}.example.com/fullchain.pem", str(cert))
        snippet = snippet.replace(f"/etc/letsencrypt/live/{name}.example.com/privkey.pem", str(key))
    assert "/etc/letsencrypt" not in snippet
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; {user} worker_processes 1; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off; {temporary}\n{snippet}}}\n"
    )
    command = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(config)]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr
    async with relay_here(folder, text):
        with (folder / "nginx.log").open("wb") as log:
            running = subprocess.Popen(command, stderr=log)
        try:
            await _listening(port, running)
            yield Proxy(port)
        finally:
            running.terminate()
            running.wait(20)


async def _listening(port: int, running: subprocess.Popen[bytes]) -> None:
    async def looked() -> bool:
        assert running.poll() is None, "nginx has ended"
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/"):
                return True
        except aiohttp.ClientError:
            return False

    await answered(looked, bool)


async def test_what_goes_through_nginx_is_what_was_sent_and_proves_itself(tmp_path: Path) -> None:
    async with proxy(tmp_path) as nginx:
        odd = b'{ "a" : "\xc3\xa9\\u00e9" ,\r\n\t"b":1.0e2 }\n'
        assert await nginx.send("any", odd) == 200
        assert await nginx.send("any", b'{"a": "' + b"x" * (3 << 19) + b'"}') == 200, "more than nginx takes by itself"


async def test_behind_nginx_relay_knows_whose_address_it_was(tmp_path: Path) -> None:
    async with proxy(tmp_path) as nginx:
        assert await nginx.send("near", b"{}", by="127.0.0.2") == 200
        assert await nginx.send("near", b"{}", by="127.0.0.3") == 403
        assert await nginx.send("near", b"{}", by="127.0.0.3", headers={"X-Forwarded-For": "127.0.0.2"}) == 403


async def test_the_admin_side_is_reached_by_its_name_and_with_a_token_alone(tmp_path: Path) -> None:
    async with proxy(tmp_path) as nginx:
        token = {"Authorization": f"Bearer {TOKEN}"}
        assert await nginx.ask("relay.example.com", "/routes", headers=token) == 200
        assert await nginx.ask("relay.example.com", "/routes") == 401
        assert await nginx.ask("hooks.example.com", "/routes", headers=token) == 404
        for origin, status in (("relay.example.com", 200), ("hooks.example.com", 403)):
            headers = {**token, "Origin": f"https://{origin}:{nginx.port}"}
            assert await nginx.ask("relay.example.com", "/reload", b"", headers) == status


def test_the_deploy_hook_copies_the_pair_of_its_name_and_reloads(tmp_path: Path) -> None:
    hook = block("install -D -m 0755 /dev/stdin").partition("<<'END'\n")[2].removesuffix("END\n")
    lineage = tmp_path / "live" / "hooks.example.com"
    lineage.mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (lineage / name).write_text(name)
    said = tmp_path / "said"
    stub = tmp_path / "systemctl"
    stub.write_text(f'#!/bin/sh\necho "$*" >> {said}\n')
    stub.chmod(0o755)
    script = hook.replace("/etc/relay", str(tmp_path / "etc")).replace("-g relay", f"-g {os.getgid()}")
    for named, reloads in (("other.example.com", 0), ("hooks.example.com", 1)):
        environ = {"RENEWED_LINEAGE": str(lineage.with_name(named)), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-c", script], env=environ, check=True)
        assert said.exists() == bool(reloads)
    assert said.read_text() == "reload relay\n"
    kept = {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in (tmp_path / "etc").iterdir()}
    assert kept == {"tls.pem": ("fullchain.pem", 0o640), "tls.key": ("privkey.pem", 0o640)}
