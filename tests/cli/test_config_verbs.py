"""`check`, `routes`, `sources`: what needs a config at most."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.source import types
from tests.cli.running import TOP, run, run_process

EXAMPLE = TOP / "config.example.yaml"
SECRETIVE = """
sources:
  blog: {type: strapi, token: "${STRAPI_TOKEN}"}
routes:
  - name: www
    description: "Build\\e[31m red"
    to:
      url: https://user-7:p4ssw0rd@api.example.com/hooks/5c23?key=s3cr3t-in-the-query
      headers: {X-Api-Key: 0123456789abcdef}
      auth: {type: bearer, token: "${WWW_TOKEN}"}
  - {name: off, enabled: false, to: {url: https://example.com/off}}
"""


@pytest.fixture
def secretive(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SECRETIVE.replace("user-7:p4ssw0rd@", ""))
    return path


VALUES = {"STRAPI_TOKEN": "strapi-token-1234567", "WWW_TOKEN": "www-token-89012345678"}


def test_check_says_that_the_example_is_good() -> None:
    ended = run_process("check", "--config", EXAMPLE)
    assert (ended.code, ended.out, ended.err) == (0, f"{EXAMPLE}: ok (5 sources, 3 routes)\n", "")


def test_check_without_credentials_wants_all_other_values(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    one = "sources: {a: {type: generic, token: '${credential:a}'}, b: {type: generic, token: '${B:-%s}'}}\n"
    config.write_text(one % "long-enough-to-be-safe")
    assert run("check", config).code == 78
    assert run("check", "--no-credentials", config).code == 0
    config.write_text(one % "")
    ended = run("check", "--no-credentials", config)
    assert ended.code == 78
    assert "${credential:" not in ended.err
    assert "sources.b.token" in ended.err


def test_check_wants_the_secrets_unless_told_not_to(secretive: Path) -> None:
    ended = run("check", secretive)
    assert ended.code == 78
    assert "sources.blog.token: the environment variable STRAPI_TOKEN is not set" in ended.err
    assert "routes[0].to.auth.token: the environment variable WWW_TOKEN is not set" in ended.err
    assert run("check", "--no-secrets", secretive).code == 0
    assert run("check", secretive, environ=VALUES).code == 0


def test_check_prints_warnings_beside_mistakes_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    warned = "sources: {a: {type: storyblok, secret: short}}\n"
    path.write_text(warned)
    alone = run("check", path)
    assert alone.code == 0
    assert "warning: " in alone.err
    assert "ok (1 source, 0 routes)" in alone.out
    path.write_text(warned + "rowtes: []\n")
    beside = run("check", path)
    assert beside.code == 78
    assert "rowtes: unknown key" in beside.err
    assert "warning: " in beside.err


def test_routes_are_a_table_without_secrets(secretive: Path) -> None:
    ended = run("routes", "--config", secretive, environ=VALUES)
    header, first, second = ended.out.splitlines()
    assert header.split() == ["ROUTE", "ENABLED", "SOURCES", "TO", "DESCRIPTION"]
    assert first.split()[:5] == ["www", "yes", "*", "POST", "https://api.example.com/hooks/5c23?key=***"]
    assert "Build\\x1b[31m red" in first
    assert second.split()[:2] == ["off", "no"]


@pytest.mark.parametrize("option", ["--expanded", "--json"])
def test_routes_as_json_are_whole_and_masked(secretive: Path, option: str) -> None:
    ended = run("routes", option, "--config", secretive, environ=VALUES)
    first, second = ended.json
    assert first["retry"]["attempts"] == 10
    assert first["to"]["auth"]["token"] == "***"
    assert second["enabled"] is False
    for secret in (*VALUES.values(), "0123456789abcdef", "s3cr3t-in-the-query"):
        assert secret not in ended.out


def test_sources_lists_every_type_with_its_aliases_keys_and_samples() -> None:
    rows = run("sources", "--json").json
    assert {name for row in rows for name in (row["type"], *row["aliases"])} == set(types())
    assert all(row["samples"] and row["keys"] for row in rows)
    text = run("sources").out
    assert "hygraph (also graphcms)" in text
    assert "entry.publish" in text
    assert max(map(len, text.splitlines())) <= 100
