"""The Debian package: what lintian says of it, and its whole life on a Debian 12 that boots."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay import __version__
from tests.packaging.cache import TOP
from tests.packaging.debian import debian
from tests.systemd.namespace import Machine, booted, missing

SINK = "127.0.0.1:9099"
LATER = "99.0-1"
CONFIG = "/etc/relay/config.yaml"


@pytest.fixture(scope="module")
def deb() -> Path:
    found = sorted((TOP / "dist").glob(f"relay_{__version__}-*.deb"))
    if not found:
        pytest.skip("there is no package in dist/: build it with make deb")
    return found[-1]


def build(to: Path, version: str) -> Path:
    """The package of another version, from the bundle that is in dist/."""
    stamp = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=TOP, capture_output=True, text=True).stdout.strip()
    environment = os.environ | {"DEB_TO": str(to), "DEB_VERSION": version, "SOURCE_DATE_EPOCH": stamp}
    environment |= {"DPKG_DEB_COMPRESSOR_TYPE": "none", "DPKG_DEB_COMPRESSOR_LEVEL": "0"}
    said = subprocess.run([TOP / "packaging/deb"], env=environment, capture_output=True, text=True)
    if "debhelper is missing" in said.stderr:
        pytest.skip("debhelper is not installed (package debhelper)")
    assert said.returncode == 0, said.stderr
    [made] = to.glob("*.deb")
    return made


@pytest.fixture(scope="module")
def later(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program as a later version."""
    return build(tmp_path_factory.mktemp("later"), LATER)


def field(deb: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", deb, name], capture_output=True, text=True, check=True).stdout.strip()


def test_lintian_has_nothing_to_say(deb: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed (package lintian)")
    command = ["lintian", "--no-cfg", "--allow-root", "--fail-on=error,warning", "--tag-display-limit=5", str(deb)]
    said = subprocess.run(command, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, ""), said.stdout + said.stderr


def test_it_needs_no_python_and_no_library_but_libc_of_the_system(deb: Path) -> None:
    names = {re.split(r"[ |(]", part)[0] for part in field(deb, "Depends").split(", ")}
    assert names == {"ca-certificates", "libc6", "systemd"}


def test_its_units_run_what_it_installs(deb: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", deb, tmp_path], check=True)
    for unit in tmp_path.glob("usr/lib/systemd/system/*"):
        assert "/opt/" not in unit.read_text(), unit.name
    service = (tmp_path / "usr/lib/systemd/system/relay.service").read_text()
    assert "ExecStart=/usr/bin/relay serve" in service
    said = subprocess.run([tmp_path / "usr/bin/relay", "version"], capture_output=True, text=True)
    assert said.stdout == f"relay {__version__}\n"


def test_it_looks_at_a_config_before_it_is_installed(deb: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", deb, tmp_path / "relay-new"], check=True)
    config = tmp_path / "config.yaml"
    for text, code in (("admin: {hosts: [relay.example.com]}\n", 0), ("admin: {hosts: ['https://x']}\n", 78)):
        config.write_text(text)
        command = ["relay-new/usr/bin/relay", "check", "--no-credentials", "--config", str(config)]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == code


def test_the_same_source_makes_the_same_package(later: Path, tmp_path: Path) -> None:
    assert build(tmp_path, LATER).read_bytes() == later.read_bytes()


class Server:
    """A booted Debian with the package's folder at /packages."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def apt(self, *words: str) -> str:
        quiet = ("-o", "Dpkg::Use-Pty=0", "-qq", "-y")
        return self.machine.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *quiet, *words, timeout=120)

    def active(self) -> str:
        return self.machine.ask("systemctl", "is-active", "relay.service").stdout.strip()

    def get(self, path: str) -> tuple[int, Any]:
        """From the admin side: by this machine's Python, in that machine's network."""
        code = (
            "import http.client, sys\n"
            "connection = http.client.HTTPConnection('127.0.0.1', 8081, timeout=30)\n"
            "connection.request('GET', sys.argv[1])\n"
            "answer = connection.getresponse()\n"
            "print(answer.status, answer.read().decode())\n"
        )
        enter = ["nsenter", f"--target={self.machine.pid}", "--net", sys.executable, "-I", "-c", code, path]
        said = subprocess.run(enter, capture_output=True, text=True)
        assert said.returncode == 0, f"{said.stderr}{self.machine.journal('--unit=relay.service')}"
        status, _, body = said.stdout.partition(" ")
        return int(status), json.loads(body)

    def delivered(self) -> list[str]:
        """The ids of what was delivered, the newest first."""
        return [item["id"] for item in self.get("/logs?status=delivered")[1]["items"]]

    def owner(self, path: str) -> str:
        return self.machine.run("stat", "--format=%U:%G %a", path).strip()

    def there(self, *paths: str) -> list[str]:
        return [path for path in paths if self.machine.ask("test", "-e", path).returncode == 0]

    def processes(self) -> str:
        """Of the account relay; the test's own sink runs as root."""
        return self.machine.ask("ps", "-u", "relay", "-o", "pid=,args=").stdout.strip()


@pytest.fixture(params=["bookworm", pytest.param("trixie", marks=pytest.mark.soak)])
def root(request: pytest.FixtureRequest) -> Path:
    return debian(request.param)


def test_it_lives_on_a_server_from_install_to_purge(deb: Path, later: Path, root: Path) -> None:
    why = missing(root)
    if why:
        pytest.skip(why)
    with booted(root, binds={"/packages": deb.parent, "/later": later.parent}, keep_enabled=True) as machine:
        server = Server(machine)
        a_fresh_install_runs_at_once(server, deb)
        first = an_event_goes_in_and_out(server)
        an_upgrade_keeps_data_and_edited_config(server, later, first)
        one_that_refuses_the_config_leaves_the_old_relay_running(server, later)
        remove_keeps_data_and_config(server)
        an_install_after_that_goes_on_with_both(server, deb, first)
        the_sockets_are_the_operators_choice(server)
        an_upgrade_leaves_the_sockets_open(server, later)
        purge_takes_all(server)


def a_fresh_install_runs_at_once(server: Server, deb: Path) -> None:
    machine = server.machine
    assert machine.ask("python3", "--version").returncode != 0, "the point is a machine without Python"
    said = server.apt("install", f"/packages/{deb.name}")
    assert "edit /etc/relay/config.yaml" in said
    assert server.active() == "active"
    assert machine.ask("systemctl", "is-enabled", "relay.service").stdout.strip() == "enabled"
    assert server.get("/health/ready")[0] == 200
    assert server.get("/health")[1]["status"] == "ok"
    assert server.owner(CONFIG) == "root:relay 640"
    assert server.owner("/etc/relay") == "root:relay 750"
    assert server.owner("/var/lib/relay") == "relay:relay 700"
    assert server.owner("/var/lib/relay/relay.db") == "relay:relay 600"
    assert machine.run("getent", "passwd", "relay").strip().endswith(":/var/lib/relay:/usr/sbin/nologin")
    assert machine.run("relay", "version") == f"relay {__version__}\n"
    machine.run("relay", "check", "--config", "/usr/share/doc/relay/examples/config.example.yaml")


def an_event_goes_in_and_out(server: Server) -> str:
    machine = server.machine
    machine.run("systemd-run", "--unit=sink", "--quiet", "/usr/bin/relay", "sink", "--listen", SINK)
    machine.write("/etc/relay/strapi.secret", "a-token-for-tests\n", 0o640)
    machine.run("chgrp", "relay", "/etc/relay/strapi.secret")
    text = machine.read(CONFIG)
    text += 'sources:\n  blog: {type: strapi, token: "${file:/etc/relay/strapi.secret}"}\n'
    text += f'routes:\n  - {{name: www, to: {{url: "http://{SINK}/hook"}}}}\n'
    machine.path(CONFIG).write_text(text)
    machine.run("systemctl", "reload", "relay")
    machine.until(lambda: server.get("/health")[1]["config"]["generation"] == 2, "the config is reloaded")
    machine.run("relay", "send", "blog")
    machine.until(server.delivered, "the event is delivered")
    assert "POST /hook -> 200" in machine.journal("--unit=sink")
    return server.delivered()[0]


def an_upgrade_keeps_data_and_edited_config(server: Server, later: Path, first: str) -> None:
    machine = server.machine
    pid, config = machine.show("relay.service", "MainPID"), machine.read(CONFIG)
    said = server.apt("install", f"/later/{later.name}")
    assert "edit /etc/relay/config.yaml" not in said
    assert machine.run("dpkg-query", "-W", "-f", "${Version}", "relay") == LATER
    assert server.active() == "active"
    assert machine.show("relay.service", "MainPID") != pid, "the new program runs"
    assert machine.read(CONFIG) == config
    assert server.owner(CONFIG) == "root:relay 640"
    assert server.delivered() == [first]


def one_that_refuses_the_config_leaves_the_old_relay_running(server: Server, later: Path) -> None:
    machine = server.machine
    pid, config = machine.show("relay.service", "MainPID"), machine.read(CONFIG)
    machine.path(CONFIG).write_text(f"{config}nonsense: true\n")
    said = server.apt("install", "--reinstall", f"/later/{later.name}")
    assert "relay was NOT restarted" in said
    assert machine.show("relay.service", "MainPID") == pid, "what ran before runs on"
    assert server.get("/health/ready")[0] == 200
    machine.path(CONFIG).write_text(config)
    assert "NOT" not in server.apt("install", "--reinstall", f"/later/{later.name}")
    assert server.active() == "active"
    assert machine.show("relay.service", "MainPID") != pid


def remove_keeps_data_and_config(server: Server) -> None:
    server.apt("remove", "relay")
    assert server.active() != "active"
    assert server.processes() == ""
    assert server.there("/usr/bin/relay", "/usr/lib/relay", "/usr/lib/systemd/system/relay.service") == []
    kept = ["/var/lib/relay/relay.db", CONFIG, "/etc/relay/strapi.secret"]
    assert server.there(*kept) == kept


def an_install_after_that_goes_on_with_both(server: Server, deb: Path, first: str) -> None:
    server.apt("install", f"/packages/{deb.name}")
    assert server.active() == "active"
    assert server.delivered() == [first]
    server.machine.run("relay", "send", "blog")
    server.machine.until(lambda: len(server.delivered()) == 2, "the old config is in force")


def the_sockets_are_the_operators_choice(server: Server) -> None:
    machine = server.machine
    assert machine.ask("systemctl", "is-active", "relay.socket").stdout.strip() == "inactive"
    machine.run("systemctl", "stop", "relay.service")
    machine.run("systemctl", "enable", "--quiet", "--now", "relay.socket")
    machine.run("relay", "send", "blog")  # who connects starts relay
    machine.until(lambda: len(server.delivered()) == 3, "relay was started by its socket")


def an_upgrade_leaves_the_sockets_open(server: Server, later: Path) -> None:
    machine = server.machine
    before = {name: machine.show(name, "ActiveEnterTimestampMonotonic") for name in ("relay.socket", "relay.service")}
    server.apt("install", f"/later/{later.name}")
    after = {name: machine.show(name, "ActiveEnterTimestampMonotonic") for name in before}
    assert after["relay.service"] != before["relay.service"], "the new program runs"
    assert after["relay.socket"] == before["relay.socket"], "nobody was refused"
    assert machine.run("systemctl", "is-active", "relay.socket", "relay-admin.socket").split() == ["active"] * 2
    assert '"listen":"127.0.0.1:8080 (by systemd)"' in machine.journal("--unit=relay.service", "--lines=10")


def purge_takes_all(server: Server) -> None:
    machine = server.machine
    assert server.there("/var/cache/relay") != []
    data = "/var/lib/relay"
    machine.run("mount", "--bind", data, data)  # as a disk of its own: it is emptied
    server.apt("purge", "relay")
    machine.run("umount", data)
    machine.run("rmdir", data)
    taken = ("/etc/relay", "/var/cache/relay", "/run/relay", "/usr/lib/relay", "/usr/share/doc/relay")
    assert server.there(*taken) == []
    assert server.processes() == ""
    assert (
        machine.ask("systemctl", "is-active", "relay.socket", "relay-admin.socket").stdout.split() == ["inactive"] * 2
    )
    left = machine.run("find", "/etc/systemd", "/var/lib/systemd", "/usr/lib", "-name", "relay*").split()
    assert left == []
    assert machine.ask("dpkg-query", "-W", "relay").returncode != 0
