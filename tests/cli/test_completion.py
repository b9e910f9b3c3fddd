"""Shell completion: what is offered, how little is loaded for it, and the scripts in real shells."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from relay.cli import VERBS, completing, relay
from relay.config import find_config
from relay.web import logquery
from tests.cli.running import TOP, run

TEXT = """
sources: {blog: {type: strapi, token: "${T}"}, shop: {type: generic, verify: none}}
routes:
  - {name: rebuild-www, to: {url: "https://example.com"}}
  - {name: rebuild-app, to: {url: "https://example.com"}}
  - {name: search, to: {url: "https://example.com"}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return path


def offered(words: str, folder: Path, **environ: str) -> list[str]:
    """What bash is given for a line with the cursor at its end, and that nothing heavy was loaded for it."""
    parts = shlex.split(words) + ([""] if words.endswith(" ") else [])
    code = (
        "import sys, atexit\n"
        "heavy = {'aiohttp', 'pydantic', 'asyncio', 'rich', 'jinja2'}\n"
        "atexit.register(lambda: print(*sorted(heavy & sys.modules.keys()), file=sys.stderr))\n"
        "from relay.__main__ import main\nmain()"
    )
    asked = {"_RELAY_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(parts), "COMP_CWORD": str(len(parts) - 1)}
    env = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=env | {"PYTHONPATH": str(TOP)} | asked | environ,
    )
    assert ended.stderr.strip() == "", ended.stderr
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


def test_verbs_are_completed(config: Path) -> None:
    assert offered("relay ", config.parent) == list(VERBS)
    assert offered("relay re", config.parent) == [verb for verb in VERBS if verb.startswith("re")]
    assert offered("relay db b", config.parent) == ["backup"]


def test_options_are_completed(config: Path) -> None:
    assert "--route" in offered("relay logs --r", config.parent)
    assert "--force" in offered("relay db backup --", config.parent)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("relay pause re", ["rebuild-www", "rebuild-app"]),
        ("relay pause search re", ["rebuild-www", "rebuild-app"]),
        ("relay resume s", ["search"]),
        ("relay test s", ["search"]),
        ("relay export s", ["search"]),
        ("relay move old s", ["search"]),
        ("relay send ", ["blog", "shop"]),
        ("relay logs --route s", ["search"]),
        ("relay logs --route search,rebuild-w", ["search,rebuild-www"]),
        ("relay retry --source b", ["blog"]),
        ("relay replay --route s", ["search"]),
        ("relay windows flush --route s", ["search"]),
        ("relay windows f", ["flush"]),
        ("relay explain --expect s", ["search"]),
        ("relay logs --status un", ["unmatched"]),
        ("relay cancel --status held,p", ["held,pending"]),
        ("relay logs --order ", ["asc", "desc"]),
        ("relay completion z", ["zsh"]),
        ("relay show dlv_", []),
    ],
)
def test_values_are_completed(config: Path, line: str, expected: list[str]) -> None:
    assert offered(line, config.parent) == expected


def test_the_config_is_the_one_that_is_named(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("routes: [{name: elsewhere}]")
    assert offered(f"relay pause --config {other} ", tmp_path) == ["elsewhere"]
    assert offered("relay pause ", tmp_path, RELAY_CONFIG=str(other)) == ["elsewhere"]


@pytest.mark.parametrize(
    "text", [None, "", "routes: {", "[]", "routes: 5\nsources: [a]", "routes: [5, {name: 7}]", "\0"]
)
def test_a_config_that_cannot_be_read_offers_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    assert offered("relay pause ", tmp_path) == []
    assert offered("relay send ", tmp_path) == []


def test_it_looks_for_the_config_where_all_verbs_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    context = click.Context(relay)
    (tmp_path / "config.yaml").write_text("{}")
    assert completing._path(context) == find_config(None, {})
    monkeypatch.setenv("RELAY_CONFIG", "/named/config.yaml")
    assert completing._path(context) == find_config(None)
    assert set(completing._PLACES) == {"config.yaml", "/etc/relay/config.yaml"}


def test_the_statuses_are_those_of_the_admin_side() -> None:
    assert completing.STATUSES == logquery.STATUSES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(shell: str, config: Path, tmp_path: Path) -> None:
    printed = run("completion", shell)
    assert printed.code == 0
    assert f"_RELAY_COMPLETE={shell}_complete" in printed.out
    if shutil.which(shell) is None:
        return
    script = tmp_path / "script"
    script.write_text(printed.out)
    assert subprocess.run([shell, "-n", script], check=False).returncode == 0


def test_bash_completes_by_the_script(config: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "relay"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m relay "$@"\n')
    command.chmod(0o755)
    code = (
        "source <(relay completion bash) && COMP_WORDS=(relay pause rebuild-a) COMP_CWORD=2 && "
        '_relay_completion relay && printf "%s\\n" "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(TOP)}
    ended = subprocess.run([bash, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert (ended.stdout, ended.stderr) == ("rebuild-app\n", "")
