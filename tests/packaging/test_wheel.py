"""The wheel and the sdist: complete, and what pip, pipx and uv install of them works."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import __version__
from relay.source import types as source_types
from tests.packaging.cache import TOP
from tests.packaging.wheels import wheelhouse

DIST = TOP / "dist"
BIN = Path(sys.executable).parent
EXAMPLE = TOP / "config.example.yaml"
CODE = TOP / "relay"


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built(f"relay-{__version__}-py3-none-any.whl")


@pytest.fixture(scope="module")
def sdist() -> Path:
    return built(f"relay-{__version__}.tar.gz")


def built(name: str) -> Path:
    path = DIST / name
    if not path.is_file():
        pytest.skip(f"there is no dist/{name}: build it with make dist")
    return path


@pytest.fixture(scope="module")
def wheels() -> Path:
    return wheelhouse(f"{sys.version_info.major}.{sys.version_info.minor}")


def files(folder: Path) -> dict[str, bytes]:
    """Of the package in the source tree: what git knows or would take in, so no caches."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "relay"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    paths = [folder / name for name in listed.stdout.decode().split("\0") if name]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    there = files(TOP)
    assert {"relay/py.typed", "relay/configtexts.json", "relay/config.example.yaml"} <= there.keys()
    assert sorted(packed) == sorted(there)
    assert [name for name in there if packed[name] != there[name]] == [], "dist/ is old: make dist"


def test_the_metadata_say_what_an_index_shows(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "relay"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Author"]
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    body = metadata.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert body.decode() == (TOP / "README.md").read_text()
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_the_sdist_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        stamp = max(member.mtime for member in archive)
    # By tar: Python's own has its filters from 3.11.4 on, and warns later on where none is named.
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path], check=True)
    [tree] = tmp_path.iterdir()
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(int(stamp))}
    command: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, tree]
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def with_pip(folder: Path, wheel: Path, wheels: Path) -> Path:
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    install(python, "-m", "pip", "-q", "install", "--no-index", "--find-links", wheels, wheel)
    return folder / "venv/bin/relay"


def with_pipx(folder: Path, wheel: Path, wheels: Path) -> Path:
    homes = {"PIPX_HOME": folder / "pipx", "PIPX_BIN_DIR": folder / "bin", "PIPX_MAN_DIR": folder / "man"}
    options = f"--no-index --find-links {wheels}"
    chosen = ("--backend", "pip", "--python", sys.executable, "--pip-args", options)
    install(BIN / "pipx", "install", *chosen, wheel, **homes)
    return folder / "bin/relay"


def with_uv(folder: Path, wheel: Path, wheels: Path) -> Path:
    homes = {"UV_TOOL_DIR": folder / "tools", "UV_TOOL_BIN_DIR": folder / "bin", "UV_CACHE_DIR": folder / "cache"}
    chosen = ("--no-index", "--find-links", wheels, "--python", sys.executable)
    install(BIN / "uv", "tool", "install", *chosen, wheel, **homes)
    return folder / "bin/relay"


def install(*command: str | Path, **environment: Path) -> None:
    """Outside of the checkout, with nothing of it in the environment."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean |= {name: str(value) for name, value in environment.items()}
    said = subprocess.run(command, env=clean, cwd="/", capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("way", [with_pip, with_pipx, with_uv])
def test_what_is_installed_works_far_from_the_checkout(
    way: Callable[[Path, Path, Path], Path], wheel: Path, wheels: Path, tmp_path: Path
) -> None:
    relay = way(tmp_path, wheel, wheels)
    home = tmp_path / "home"
    home.mkdir()

    def run(*words: str) -> str:
        said = subprocess.run([relay, *words], cwd=home, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        return said.stdout

    assert run("version") == f"relay {__version__}\n"
    listed = json.loads(run("sources", "--json"))
    assert {name for row in listed for name in (row["type"], *row["aliases"])} == set(source_types())
    demo_delivers(relay, home)


def demo_delivers(relay: Path, folder: Path) -> None:
    """A sample of each content system arrives at the demo's sink, in a network namespace of its own."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespace can be made: run this as root, or allow user namespaces")
    here = Path(__file__).parent
    command = [*alone, sys.executable, "-I", str(here / "alone.py"), sys.executable, "-I", str(here / "demo.py")]
    command += [str(relay), "demo"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert told["code"] == 0, told["said"]
    assert {item["route"] for item in told["items"]} == {"rebuild-www", "search", "audit"}, told["said"]
    assert (folder / "relay.db").is_file()
