"""The Dockerfile: built by buildah, which needs no engine and no daemon, on a Debian of our own making; then run as
`docker run --read-only --cap-drop ALL` would, by the image's own words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay import __version__
from tests.packaging.cache import TOP
from tests.packaging.debian import debian
from tests.packaging.wheels import wheelhouse

TOKEN = "a-token-for-tests"


@dataclass(frozen=True, slots=True)
class Image:
    """What was built: its files, and what it says of itself."""

    root: Path
    config: dict[str, Any]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to build in a chroot")
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed (package buildah)")
    base = debian("bookworm", "python3", "python3-venv")
    wheels = wheelhouse("3.11")
    folder = tmp_path_factory.mktemp("image")
    store = ("--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "overlay")

    def buildah(*words: str | Path) -> str:
        said = subprocess.run(["buildah", *map(str, (*store, *words))], capture_output=True, text=True, cwd=TOP)
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout.strip()

    # In memory: half a gigabyte of small files, for a minute.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    try:
        container = buildah("from", "scratch")
        mounted = buildah("mount", container)
        subprocess.run(["cp", "-a", f"{base}/.", mounted], check=True)
        buildah("commit", "--quiet", "--disable-compression", container, "localhost/python")
        buildah(
            *("build", "--quiet", "--isolation", "chroot", "--format", "docker", "--tag", "relay"),
            *("--build-arg", "PYTHON_IMAGE=localhost/python", "--build-arg", f"VERSION={__version__}"),
            *("--secret", f"id=pip.conf,src={folder / 'pip.conf'}", "--volume", f"{wheels}:/wheels:ro"),
            ".",
        )
        told = json.loads(buildah("inspect", "--type", "image", "relay"))
        made = buildah("from", "relay")
        yield Image(Path(buildah("mount", made)), told["Docker"]["config"])
    finally:
        subprocess.run(["buildah", *map(str, (*store, "rm", "--all"))], capture_output=True)
        subprocess.run(["umount", "--recursive", folder], check=True)


# What follows is run in namespaces of its own: no network but loopback, nothing writable but the volume and /tmp, no
# capability and no way to one.
_CONTAIN = """
set -eu
root=$1 volume=$2
shift 2
mount --bind "$root" "$root"
mount --bind "$volume" "$root/var/lib/relay"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""


class Container:
    """A running one."""

    def __init__(self, image: Image, volume: Path, **environ: str) -> None:
        self.config = image.config
        self.environ = [*image.config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        volume.mkdir()
        uid, gid = (int(part) for part in image.config["User"].split(":"))
        os.chown(volume, uid, gid)
        alone = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=KILL"]
        contain = [sys.executable, "-I", str(Path(__file__).with_name("alone.py")), "sh", "-c", _CONTAIN, "sh"]
        command = [*alone, *contain, str(image.root), str(volume)]
        entry = [*image.config["Entrypoint"], *image.config["Cmd"]]
        self.output = volume.parent / f"{volume.name}.output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen([*command, *self.inside(entry)], stdout=output, stderr=output)

    def inside(self, command: list[str]) -> list[str]:
        uid, gid = self.config["User"].split(":")
        unprivileged = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        start = ["env", "-i", f"--chdir={self.config['WorkingDir']}", *self.environ]
        return [*start, "setpriv", f"--reuid={uid}", f"--regid={gid}", *unprivileged, *command]

    @property
    def pid(self) -> int:
        """Of its first process, seen from here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text())

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--ipc", "--uts", "--root"]
        return subprocess.run([*enter, *self.inside(list(command))], capture_output=True, text=True)

    def healthy(self) -> bool:
        """By its HEALTHCHECK."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        if not Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text():
            return False  # it is being made
        return self.execute(*command).returncode == 0

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"not within a minute: {what}: {self.said()}"
            time.sleep(0.05)

    def stop(self) -> int:
        """As `docker stop` does, which reports what the first process exited with."""
        os.kill(self.pid, signal.Signals[self.config["StopSignal"]])
        return self.process.wait(60)

    def end(self) -> None:
        """Whatever it is at. What `--kill-child` asks for ends with the change of user."""
        if self.process.poll() is None:
            for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.output.read_text()


@contextlib.contextmanager
def running(image: Image, volume: Path, **environ: str) -> Iterator[Container]:
    container = Container(image, volume, **environ)
    try:
        container.until(container.healthy, "its HEALTHCHECK succeeds")
        yield container
    finally:
        container.end()


def test_the_image_says_what_an_orchestrator_asks(image: Image) -> None:
    config = image.config
    assert config["User"] == "10001:10001"
    assert (config["Entrypoint"], config["Cmd"]) == (["relay"], ["serve"])
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}
    assert set(config["Volumes"]) == {"/var/lib/relay"}
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.title"] == "relay"


def test_the_image_has_relay_and_neither_pip_nor_the_source(image: Image) -> None:
    assert not (image.root / "src").exists()
    assert not list((image.root / "opt/relay").glob("lib/python*/site-packages/pip"))
    assert os.stat(image.root / "var/lib/relay").st_uid == 10001
    assert oct(os.stat(image.root / "var/lib/relay").st_mode & 0o777) == "0o700"


def test_it_runs_read_only_without_a_capability_and_carries_events(image: Image, tmp_path: Path) -> None:
    with running(image, tmp_path / "volume") as container:
        status = Path(f"/proc/{container.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert container.execute("touch", "/etc/relay/x").returncode != 0
        assert container.execute("relay", "version").stdout == f"relay {__version__}\n"
        assert json.loads(container.execute("relay", "logs", "--json").stdout)["items"] == []
        assert (tmp_path / "volume/relay.db").is_file()
        assert container.stop() == 0


def test_its_config_lets_operators_publish_the_admin_side_with_a_token_only(image: Image, tmp_path: Path) -> None:
    public = {"RELAY_ADMIN_LISTEN": "0.0.0.0:8081"}
    refused = Container(image, tmp_path / "refused", **public)
    assert refused.process.wait(60) == 78
    assert "a token is needed" in refused.said()
    with running(image, tmp_path / "volume", **public, RELAY_ADMIN_TOKEN=TOKEN) as container:
        assert container.execute("relay", "logs", "--json").returncode == 0, "verbs read the token from the same config"
        container.until(container.healthy, "health needs no token")


def test_a_relay_that_does_not_answer_is_not_healthy(image: Image, tmp_path: Path) -> None:
    with running(image, tmp_path / "volume") as container:
        os.kill(container.pid, signal.SIGSTOP)
        assert not container.healthy()
        os.kill(container.pid, signal.SIGCONT)
        container.until(container.healthy, "it answers again")
        container.environ.append("RELAY_URL=http://127.0.0.1:9")
        assert not container.healthy(), "nothing listens there"
