"""`store.url` of PostgreSQL: what is taken is what libpq takes, and of a password nothing is shown."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from string import printable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Error
from psycopg.conninfo import conninfo_to_dict

from relay import stores, storeurl
from relay.config import Config, ConfigError, effective, load
from relay.effective import shown_store
from relay.reload import differences, pending_restart
from relay.runtime import build
from relay.secret import Redactor
from tests.cli.running import run_process
from tests.harness import write_config

PASSWORD = "p@ss:w/rd %41"
RAW = quote(PASSWORD, safe="")


def config(url: str) -> Config:
    return load(json.dumps({"store": {"url": url}}).encode(), environ={}).config


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://", None),
        ("postgresql://db", None),
        ("postgresql://relay@db/relay", None),
        ("postgres://relay@db/relay", "postgresql://relay@db/relay"),
        ("postgresql://relay@a:5432,b:5433,c/relay?target_session_attrs=primary", None),
        ("postgresql://relay@a,b/relay?port=6432", None),
        ("postgresql:///relay?host=/run/postgresql&port=5433", None),
        ("postgresql://%2Frun%2Fpostgresql/relay", None),
        ("postgresql://relay@[2001:db8::1]:5432,[::1]/relay", None),
        ("postgresql://relay@db/relay?ssl=true&connect_timeout=3&service=main", None),
        (f"postgresql://relay:{RAW}@db/relay", "postgresql://relay:***@db/relay"),
        (f"postgresql://relay@db/relay?password={RAW}", "postgresql://relay@db/relay?password=***"),
        (f"postgresql://db/relay?pass%77ord={RAW}", "postgresql://db/relay?pass%77ord=***"),
        (f"postgresql://a:{RAW}@db/r?sslpassword={RAW}&sslmode=allow", "postgresql://a:***@db/r?sslpassword=***&sslmode=allow"),
        (f"postgresql://db/relay?options=-c%20a.b%3D{RAW}", "postgresql://db/relay?options=***"),
        ("postgresql://relay:what?else@db/relay", "postgresql://relay:***@db/relay"),
        ("postgresql://:alone-in-there@db/relay", "postgresql://:***@db/relay"),
    ],
)  # fmt: skip
def test_urls_of_libpq_are_taken_and_shown_without_their_passwords(url: str, shown: str | None) -> None:
    said = config(url)
    assert conninfo_to_dict(said.store.url) == conninfo_to_dict(url)
    assert said.store.path is None
    assert said.store.shown_url == shown_store(said) == effective(said)["store"]["url"] == (shown or url)


_PART = st.text(st.sampled_from("ab1%2F4@:/?&=,[]. #"), max_size=6)
_AT, _SLASH = st.sampled_from(["", "@", ":p@"]), st.sampled_from(["", "/"])


@given(st.builds("postgresql://{}{}{}{}{}".format, _PART, _AT, _PART, _SLASH, _PART))
def test_nothing_is_taken_that_libpq_refuses(url: str) -> None:
    try:
        storeurl.checked(url)
    except ValueError:
        return
    try:
        conninfo_to_dict(url)
    except Error as error:
        # A '%' that ends up in a value is no mistake of the URL's form; all else is.
        pytest.fail(f"{url}: {error}")


@given(
    st.text(printable + "é€", min_size=6), st.sampled_from(["{}", "a:{}@h/d", "h/d?password={}", "h/d?sslpassword={}"])
)
def test_of_a_password_nothing_is_shown_however_it_is_written(password: str, form: str) -> None:
    escaped = quote(password, safe="")
    try:
        url = storeurl.checked(f"postgresql://{form.format(escaped if form != '{}' else f'a:{escaped}@h/d')}")
    except ValueError:
        pytest.fail(f"{escaped} was refused")
    assert {password, escaped} <= set(storeurl.hidden(url))
    assert storeurl.shown(url).count("***") == 1
    # As it might be written by mistake: it is refused, or means what libpq takes it for.
    wrong = f"postgresql://a:{password}@h/d"
    try:
        url = storeurl.checked(wrong)
    except ValueError as error:
        said = str(error)
        assert password not in said
    else:
        meant = conninfo_to_dict(url).get("password")
        assert meant in list(storeurl.hidden(url))
        assert storeurl.shown(url) == "postgresql://a:***@h/d"


def test_of_a_url_that_is_refused_nothing_is_shown() -> None:
    for url in (
        "postgresql://relay:12345/canary-7@db/relay",
        "postgresql://relay:12345/canary-7?x=1@db/relay",
        "postgresql://relay:canary-7 canary-8@db/relay",
        "postgresql://relay:canary-7%@db/relay",
        "postgresql://relay:canary-7",
        "postgresql://db?password=canary-7@canary-8",
        "postgresql:relay:canary-7@db",
    ):
        with pytest.raises(ConfigError) as caught:
            config(url)
        assert "canary" not in str(caught.value.problems[0])


def test_the_redactor_knows_the_password_as_it_is_written_and_as_it_is_meant() -> None:
    loaded = load(json.dumps({"store": {"url": f"postgresql://relay:{RAW}@db/relay"}}).encode(), environ={})
    redact = Redactor(loaded.secrets)
    said = f"connection to {loaded.config.store.url} failed: {PASSWORD!r} {RAW} for user relay"
    assert redact(said) == "connection to postgresql://***@db/relay failed: '***' *** for user relay"


def test_a_url_that_came_from_a_file_is_not_shown_at_all(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://relay@db.internal/relay\n")
    said = config(f"${{file:{tmp_path / 'url'}}}")
    assert effective(said)["store"]["url"] == shown_store(said) == "***"
    (tmp_path / "password").write_text("word-of-a-file")
    said = config(f"postgresql://relay:${{file:{tmp_path / 'password'}}}@db/relay")
    assert shown_store(said) == "***"


def test_another_password_waits_for_a_restart_and_is_not_told() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def runtime(url: str) -> object:
        return build(load(json.dumps({"store": {"url": url}}).encode(), environ={}), 1, now)

    old, new = runtime("postgres://a:word-of-old@db/r"), runtime("postgresql://a:word-of-new@db/r")
    same = runtime("postgresql://a:word-of-old@db/r")
    assert pending_restart(old, new) == ("store.url",)  # type: ignore[arg-type]
    assert pending_restart(old, same) == ()  # type: ignore[arg-type]
    assert differences(old, new) == {"other": ["store"]}  # type: ignore[arg-type]


def test_a_driver_is_named_as_the_extra_has_it() -> None:
    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert list(stores._DRIVERS.values()) == [("psycopg", *extras["optional-dependencies"]["postgres"])]


@pytest.mark.parametrize("verb", ["check", "serve"])
def test_a_driver_that_is_not_installed_is_one_clear_mistake(tmp_path: Path, verb: str) -> None:
    path = write_config(tmp_path, "store:\n  url: postgresql://relay@db/relay\n")
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError('none', name='psycopg')")
    ended = run_process(verb, "--config", path, environ={"PYTHONPATH": str(tmp_path)})
    assert ended.code == 78
    [line] = ended.err.splitlines()
    assert line.endswith("store.url: postgresql: needs psycopg: pip install 'psycopg[binary]>=3.2'")
    assert re.match(r".*/config.yaml:[0-9]+:8: ", line)


def test_a_driver_without_its_library_says_what_it_lacks(tmp_path: Path) -> None:
    path = write_config(tmp_path, "store:\n  url: postgresql://relay@db/relay\n")
    (tmp_path / "psycopg.py").write_text("raise ImportError('no pq wrapper available.\\n- libpq library not found')")
    ended = run_process("check", "--config", path, environ={"PYTHONPATH": str(tmp_path)})
    assert ended.code == 78
    assert ended.err.endswith("'psycopg[binary]>=3.2' (no pq wrapper available. - libpq library not found)\n")


def test_a_config_of_sqlite_needs_no_driver(tmp_path: Path) -> None:
    path = write_config(tmp_path, f"store:\n  url: sqlite:{tmp_path}/relay.db\n")
    (tmp_path / "psycopg.py").write_text("raise SystemExit('imported')")
    assert run_process("check", "--config", path, environ={"PYTHONPATH": str(tmp_path)}).code == 0
