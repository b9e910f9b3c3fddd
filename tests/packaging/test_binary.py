"""dist/relay, the bundle in one file: in an empty root, as one process, out of a cache that is nobody else's."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relay import __version__
from relay.cli.sources import known
from tests.certificates import write_authority, write_certificate
from tests.cli.running import free_ports
from tests.harness import PATIENCE

TOP = Path(__file__).parent.parent.parent
BINARY = TOP / "dist" / "relay"
STRANGER, SOMEBODY = 65534, 4321  # user ids; nobody needs to have them

pytestmark = [
    pytest.mark.skipif(not BINARY.is_file(), reason="there is no dist/relay: build it with make binary"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root of a process"),
]

MORE_ROUTES = """
  - name: template
    to: {url: "http://127.0.0.1:9099/template"}
    payload: {template: "{{ {'said': event.model | upper} | tojson }}"}
  - name: expression
    to: {url: "http://127.0.0.1:9099/expression"}
    payload: {jmespath: "{said: event.model}"}
"""


@dataclass
class Root:
    """A root folder with nothing in it but relay, and what a test puts there."""

    path: Path
    public: int = 0
    admin: int = 0
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.path / "var" / "cache" / "relay"

    @property
    def unpacked(self) -> list[Path]:
        """The versions in the cache."""
        return sorted(path for path in self.cache.iterdir() if not path.name.startswith("."))

    def start(
        self,
        *args: str,
        user: int = 0,
        environ: dict[str, str] | None = None,
        prepare: Callable[[], None] = lambda: None,
        own_pid: str | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start relay inside, with no environment but the given one; `own_pid` names a variable with its process id."""

        def enter() -> None:
            prepare()
            os.chroot(self.path)
            os.chdir("/")
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            pid = {own_pid: str(os.getpid())} if own_pid else {}
            os.execve("/relay", ["/relay", *args], {**(environ or {}), **pid})

        # What runs inside says nothing before it has become relay, and its descriptors are closed by then.
        process = subprocess.Popen(
            ["/relay"], preexec_fn=enter, close_fds=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.started.append(process)
        return process

    def run(self, *args: str, **how: Any) -> tuple[int, str, str]:
        """Run a verb inside to its end."""
        process = self.start(*args, **how)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out.decode(), err.decode()

    def get(self, path: str) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()

    def logs(self, query: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/logs?{query}", timeout=PATIENCE) as answer:
            found: list[dict[str, Any]] = json.load(answer)["items"]
            return found


@contextlib.contextmanager
def made(path: Path) -> Iterator[Root]:
    root = Root(path)
    path.mkdir(mode=0o755)
    shutil.copyfile(BINARY, path / "relay")
    (path / "relay").chmod(0o755)
    yield root
    for process in root.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)
    shutil.rmtree(path)  # it is 80 MB


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    with made(tmp_path / "root") as root:
        yield root


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    with made(tmp_path_factory.mktemp("binary") / "root") as root:
        assert root.run("version")[0] == 0
        yield root


@pytest.fixture
def warm(template: Root, root: Root) -> Root:
    """A root where relay has been unpacked already. Its files are links: they are not to be changed."""
    shutil.copytree(template.cache, root.cache, copy_function=os.link)
    return root


@pytest.fixture
def configured(warm: Root) -> Root:
    """The example config, on ports of its own, with payloads that helpers render."""
    root = warm
    root.public, root.admin, sink = free_ports(3)
    text = (TOP / "config.example.yaml").read_text() + MORE_ROUTES
    for example, ours in (("8080", root.public), ("8081", root.admin), ("9099", sink)):
        text = text.replace(f"127.0.0.1:{example}", f"127.0.0.1:{ours}")
    (root.path / "config.yaml").write_text(text)
    return root


def until(what: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    """What `what` gives, once it is something."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if found := what():
                return found
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes]) -> str:
    """End it as systemd does; what it said."""
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode()
    return out.decode() + err.decode()


@contextlib.contextmanager
def manager(root: Root) -> Iterator[Callable[[], tuple[str, int]]]:
    """A service manager's socket, in the root as /notify: what it is told, and by which process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(root.path / "notify"))
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        channel.settimeout(PATIENCE)

        def told() -> tuple[str, int]:
            text, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(12))
            [(_, kind, credentials)] = ancillary
            assert kind == socket.SCM_CREDENTIALS
            return text.decode(), struct.unpack("iII", credentials)[0]

        yield told


@contextlib.contextmanager
def https_server(context: ssl.SSLContext) -> Iterator[int]:
    """A destination that likes everything; its port."""

    class Yes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # a client that does not trust us goes away

    with Quiet(("127.0.0.1", 0), Yes) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# --- what it does in an empty root ------------------------------------------------------------------------------------


def test_it_runs_where_there_is_nothing_at_all(root: Root) -> None:
    assert [path.name for path in root.path.iterdir()] == ["relay"]
    assert root.run("version") == (0, f"relay {__version__}\n", "")
    code, out, err = root.run("sources", "--json")
    assert (code, json.loads(out), err) == (0, known(), "")


def test_it_checks_the_example_config(warm: Root) -> None:
    shutil.copyfile(TOP / "config.example.yaml", warm.path / "config.yaml")
    code, out, err = warm.run("check")
    assert code == 0, err
    assert "3 routes" in out


def test_the_demo_delivers(configured: Root) -> None:
    process = configured.start("demo", "--config", "/config.yaml")

    def done() -> bool:
        delivered = {(entry["route"], entry["source"]) for entry in configured.logs("status=delivered&limit=100")}
        return {
            (route, source)
            for route in ("audit", "search", "template", "expression")
            for source in ("storyblok", "strapi", "contentstack", "prismic", "hygraph")
        } <= delivered

    until(done, process)
    assert configured.logs("status=failed") == []
    status, page = configured.get("/")
    assert status == 200
    parts = re.findall(r'(?:src|href)="(/[^"]*\.(?:css|js|svg)[^"]*)"', page.decode())
    assert parts
    assert all(configured.get(part)[0] == 200 for part in parts)
    end(process)


def test_the_demo_knows_the_example_config(warm: Root) -> None:
    """Without --config. It ends at once, since somebody listens where it would."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 9099)):
        code, _, err = warm.run("demo")
        assert code == 1
        assert "the sink cannot listen on 127.0.0.1:9099" in err
        return
    pytest.skip("port 9099 is in use")


@pytest.mark.parametrize("system", ["no list at all", "etc/ssl/cert.pem", "etc/pki/tls/certs/ca-bundle.crt"])
def test_it_trusts_whom_the_machine_trusts(warm: Root, tmp_path: Path, system: str) -> None:
    """Wherever that is written down: the OpenSSL inside was built for one system alone."""
    [warm.admin] = free_ports(1)
    ca = write_authority(tmp_path, "Authority")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*write_certificate(tmp_path, "destination", by=ca))
    with https_server(context) as port:
        (warm.path / "config.yaml").write_text(
            f"server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:{warm.admin}'}}\n"
            "sources: {any: {type: generic, verify: none}}\n"
            f"routes: [{{name: out, to: {{url: 'https://127.0.0.1:{port}/'}}, retry: {{policy: none}}}}]\n"
        )
        if system != "no list at all":
            (warm.path / system).parent.mkdir(parents=True)
            shutil.copyfile(ca.path, warm.path / system)
        process = warm.start("serve")
        until(lambda: warm.get("/health/ready")[0] == 200, process)
        code, out, err = warm.run("test", "out", "--url", f"http://127.0.0.1:{warm.admin}")
        if system == "no list at all":
            assert code == 1
            assert "this machine trusts nobody: install its ca-certificates" in out + err
        else:
            assert code == 0, out + err
        end(process)


# --- one process ------------------------------------------------------------------------------------------------------


def test_systemd_hears_of_the_process_that_it_started(configured: Root) -> None:
    with manager(configured) as told:
        environ = {"NOTIFY_SOCKET": "/notify", "WATCHDOG_USEC": "200000"}
        process = configured.start("serve", environ=environ, own_pid="WATCHDOG_PID")
        heard = ""
        while not ("READY=1" in heard and "WATCHDOG=1" in heard):
            text, pid = told()
            assert pid == process.pid
            heard += text + "\n"
        [unpacked] = configured.unpacked
        assert Path(f"/proc/{process.pid}/exe").samefile(unpacked / "relay")
        assert Path(f"/proc/{process.pid}/comm").read_text() == "relay\n"
        assert Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"/relay\0serve\0"
        assert Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() == ""
        process.terminate()
        while "STOPPING=1" not in (said := told())[0]:
            pass
        assert said[1] == process.pid
        assert process.wait(PATIENCE) == 0


def test_sockets_are_handed_over(configured: Root) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hand_over() -> None:
            os.dup2(listening.fileno(), 3)
            os.set_inheritable(3, True)

        process = configured.start(
            "serve", environ={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "public"}, prepare=hand_over, own_pid="LISTEN_PID"
        )
        until(lambda: configured.get("/health/ready")[0] == 200, process)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{listening.getsockname()[1]}/health", timeout=PATIENCE
        ) as answer:
            assert answer.status == 200
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", configured.public)):
            pass
        end(process)


def test_a_killed_relay_leaves_nothing_running(configured: Root) -> None:
    process = configured.start("demo", "--config", "/config.yaml")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: configured.logs("route=template&status=delivered"), process)
    # Helpers are started by any of its threads.
    helpers = {int(pid) for task in children.parent.parent.iterdir() for pid in (task / "children").read_text().split()}
    assert helpers
    process.kill()
    process.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}/exe").exists() for pid in helpers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- the cache --------------------------------------------------------------------------------------------------------


def test_it_unpacks_once(warm: Root) -> None:
    [unpacked] = warm.unpacked
    before = {path: path.stat().st_ino for path in unpacked.rglob("*")}
    assert warm.run("version")[0] == 0
    assert {path: path.stat().st_ino for path in unpacked.rglob("*")} == before


def test_many_at_once_unpack_as_one(root: Root) -> None:
    processes = [root.start("version") for _ in range(5)]
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out.decode(), err) == (0, f"relay {__version__}\n", b"")
    assert len(root.unpacked) == 1
    assert len(list(root.cache.iterdir())) == 1


def test_an_unpacking_that_is_killed_leaves_no_broken_cache(root: Root) -> None:
    def die_at_the_first_large_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    process = root.start("version", prepare=die_at_the_first_large_file)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGXFSZ
    [left] = root.cache.iterdir()
    assert left.name.startswith(".unpacking-")
    os.utime(left, (0, 0))  # as if long ago: a younger one may be somebody's who is at it
    assert root.run("version")[:2] == (0, f"relay {__version__}\n")
    assert not left.exists()
    assert len(root.unpacked) == 1


def test_what_is_damaged_is_renewed(root: Root) -> None:
    root.run("version")
    [unpacked] = root.unpacked
    victim = unpacked / "_internal" / "relay" / "cli" / "version.pyc"
    whole = victim.read_bytes()
    for damage in ("cut short", "gone", "a link", "a folder", "writable by others", "somebody's"):
        match damage:
            case "cut short":
                os.truncate(victim, 10)
            case "writable by others":
                victim.chmod(0o666)
            case "somebody's":
                os.chown(victim, SOMEBODY, SOMEBODY)
            case _:
                victim.unlink()
                if damage == "a link":
                    victim.symlink_to("/relay")
                elif damage == "a folder":
                    (victim / "more").mkdir(parents=True)
        assert root.run("version") == (0, f"relay {__version__}\n", ""), damage
        found = victim.lstat()
        assert (found.st_uid, found.st_mode & 0o7777) == (0, 0o644), damage
        assert victim.read_bytes() == whole, damage


@pytest.mark.parametrize("damage", ["writable by others", "somebody's"])
def test_a_damaged_folder_is_renewed_with_all_that_is_in_it(root: Root, damage: str) -> None:
    root.run("version")
    [unpacked] = root.unpacked
    victim = unpacked / "_internal" / "json"
    before = sorted(victim.iterdir())
    (victim / "added.py").touch()
    if damage == "somebody's":
        os.chown(victim, SOMEBODY, SOMEBODY)
    else:
        victim.chmod(0o777)
    assert root.run("version") == (0, f"relay {__version__}\n", "")
    found = victim.stat()
    assert (found.st_uid, found.st_mode & 0o7777) == (0, 0o755)
    assert sorted(victim.iterdir()) == before


def test_a_damaged_executable_says_so(root: Root) -> None:
    executable = root.path / "relay"
    whole = executable.read_bytes()
    executable.write_bytes(whole[: len(whole) // 2] + bytes(4096) + whole[len(whole) // 2 + 4096 :])
    code, out, err = root.run("version")
    assert (code, out) == (1, "")
    assert "this executable is damaged" in err
    assert list(root.cache.iterdir()) == []


def test_other_versions_go_unless_something_runs_from_them(root: Root) -> None:
    old, used, foreign, other = (
        root.cache / name
        for name in (
            "relay-0.0.1-0123456789abcdef",
            "relay-0.0.2-0123456789abcdef",
            "relay-0.0.3-0123456789abcdef",
            "notes",
        )
    )
    for folder in (old, used, foreign, other):
        (folder / "_internal").mkdir(parents=True)
    os.chown(foreign, SOMEBODY, SOMEBODY)
    with opened(used) as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert root.run("version")[0] == 0
    assert not old.exists()
    assert used.exists()
    assert foreign.exists()
    assert other.exists()


def test_a_running_relay_keeps_its_version(configured: Root) -> None:
    process = configured.start("serve")
    until(lambda: configured.get("/health/ready")[0] == 200, process)
    [unpacked] = configured.unpacked
    with opened(unpacked) as held:
        with pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end(process)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- whose cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(root: Root) -> Path:
    """A folder as /tmp is."""
    made = root.path / "tmp"
    made.mkdir()
    made.chmod(0o1777)
    return made


def test_a_user_without_a_home_has_one_in_tmp(root: Root, shared: Path) -> None:
    assert root.run("version", user=SOMEBODY)[:2] == (0, f"relay {__version__}\n")
    own = shared / f"relay-{SOMEBODY}"
    assert (own.stat().st_uid, own.stat().st_mode & 0o7777) == (SOMEBODY, 0o700)


def test_verbs_draw_on_a_terminal(warm: Root) -> None:
    shutil.copyfile(TOP / "config.example.yaml", warm.path / "config.yaml")
    ours, theirs = pty.openpty()

    def on_a_terminal() -> None:
        os.dup2(theirs, 1)

    process = warm.start("routes", environ={"TERM": "xterm"}, prepare=on_a_terminal)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # so a terminal says that the other side is gone
        while some := os.read(ours, 4096):
            shown += some
    os.close(ours)
    assert process.wait(PATIENCE) == 0
    assert b"\x1b[1m" in shown
    assert b"rebuild-www" in shown


@pytest.mark.parametrize("trap", ["a folder", "a link", "open to all"])
def test_what_a_stranger_has_put_there_is_not_used(root: Root, shared: Path, trap: str) -> None:
    own = shared / f"relay-{SOMEBODY}"
    match trap:
        case "a folder":
            own.mkdir()
            os.chown(own, STRANGER, STRANGER)
        case "a link":
            home = root.path / "home"
            home.mkdir()
            os.chown(home, SOMEBODY, SOMEBODY)
            own.symlink_to("/home")
            os.chown(own, STRANGER, STRANGER, follow_symlinks=False)
        case "open to all":
            own.mkdir()
            os.chown(own, SOMEBODY, SOMEBODY)
            own.chmod(0o777)
    code, out, err = root.run("version", user=SOMEBODY)
    assert (code, out) == (1, "")
    assert err.startswith("relay: there is no place to unpack itself; name one with RELAY_CACHE=/path. Tried:\n")
    why = "a link that somebody else has made" if trap == "a link" else "others may write there"
    assert f"  /tmp/relay-{SOMEBODY}: {why}" in err
    assert {path.name for path in root.path.rglob("*") if path.is_file()} == {"relay"}


def test_root_does_not_use_the_home_of_somebody(root: Root) -> None:
    home = root.path / "home"
    home.mkdir()
    os.chown(home, SOMEBODY, SOMEBODY)
    (root.path / "var").write_text("in the way of /var/cache/relay")
    code, _, err = root.run("version", environ={"HOME": "/home"})
    assert (code, list(home.iterdir())) == (0, []), err
    assert any((root.path / "tmp" / "relay-0").iterdir())


def test_root_makes_nothing_where_a_link_of_somebody_leads(root: Root, shared: Path) -> None:
    (root.path / "etc").mkdir()
    (shared / "way").symlink_to("/etc")
    os.chown(shared / "way", STRANGER, STRANGER, follow_symlinks=False)
    code, _, err = root.run("version", environ={"RELAY_CACHE": "/tmp/way/relay"})
    assert code == 1
    assert "  /tmp/way: a link that somebody else has made" in err
    assert list((root.path / "etc").iterdir()) == []


def test_the_place_can_be_named(root: Root) -> None:
    assert root.run("version", environ={"RELAY_CACHE": "/srv/code"})[0] == 0
    assert len(list((root.path / "srv" / "code").iterdir())) == 1
    assert root.run("version", environ={"CACHE_DIRECTORY": "/srv/unit:/srv/more"})[0] == 0
    assert len(list((root.path / "srv" / "unit").iterdir())) == 1
    assert not root.cache.exists()


def test_a_place_that_is_named_is_the_only_one(root: Root, shared: Path) -> None:
    for named, why in (("here", "not an absolute path"), ("/relay/below", "Not a directory"), ("/tmp", "others may")):
        code, _, err = root.run("version", environ={"RELAY_CACHE": named})
        assert code == 1
        assert why in err
    assert not root.cache.exists()


def test_what_root_has_unpacked_serves_everybody(root: Root) -> None:
    named = {"RELAY_CACHE": "/srv/code"}
    root.run("version", environ=named)
    before = sorted((root.path / "srv").rglob("*"))
    assert root.run("version", user=SOMEBODY, environ=named) == (0, f"relay {__version__}\n", "")
    assert sorted((root.path / "srv").rglob("*")) == before


def test_a_volume_that_forbids_execution_is_passed_over(root: Root) -> None:
    script = 'mount -t tmpfs -o noexec tmpfs "$0/var/cache" && mkdir "$0/tmp" && exec chroot "$0" /relay version'
    (root.path / "var" / "cache").mkdir(parents=True)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, root.path],
        env={"PATH": os.environ["PATH"], "RELAY_CACHE": "/var/cache/relay"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "/var/cache/relay: mounted noexec" in done.stderr


# --- what is in it ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is missing: apt-get install binutils")
def test_libraries_are_looked_for_inside_alone(template: Root) -> None:
    [unpacked] = template.unpacked
    libraries = [path for path in unpacked.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    there = {path.name for path in libraries}
    for path in libraries:
        said = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
        paths = re.findall(r"(?:RPATH|RUNPATH).*\[(.*)\]", said)
        inside = Path("/") / unpacked.relative_to(template.path) / "_internal"
        assert paths == ([str(inside)] if path.name == "relay" else []), path
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", said))
        assert needed <= there, path
