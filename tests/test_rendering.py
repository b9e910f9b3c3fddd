"""What operators write is rendered apart: it ends, whatever it is, and takes nobody else with it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import rendering

EVENT: dict[str, Any] = {"event": {"id": "evt_1"}, "events": [], "headers": {"x-odd": "caf\udce9"}, "route": "r"}
LIMIT = "longer than 0.6 s"
ENDLESS = {
    "a search that is quadratic": "{{ ('a' * 2000000).rfind('ab' ~ 'a' * 1000000) }}",
    "a set of characters as long as the text": "{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') }}",
    "filters that cost nothing each": "{% set s = range(1, 99999) %}{% for i in range(8000) %}"
    "{% set x = s | reject | list %}{% endfor %}",
    "sorting characters": "{% for i in range(9) %}{{ ('ab' * 2000000) | sort | first }}{% endfor %}",
    "escaping again and again": "{% for i in range(90) %}{% set x = ('<' * 1000000) | slack | length %}{% endfor %}",
}


def template(text: str, body: bytes = b"{}") -> bytes:
    return rendering.render("template", text, EVENT, body)


def test_a_helper_renders_as_the_daemon_would() -> None:
    assert template("{{ event.id }} {{ body.a }} {{ route }}", b'{"a": 12345678901234567890}') == (
        b"evt_1 12345678901234567890 r"
    )
    assert rendering.render("jmespath", "{a: body.a, b: headers.none}", EVENT, b'{"a":[1]}') == b'{"a":[1],"b":null}'
    assert template("{{ body is none }}", b"<xml>") == b"True"


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_no_count_can_foresee_is_ended(text: str) -> None:
    with pytest.raises(rendering.CannotRender, match=f"{LIMIT}|too much"):
        template(text)
    assert template("{{ event.id }}") == b"evt_1", "the next one is served"


def test_what_a_sender_makes_slow_is_ended() -> None:
    same_hash = b",".join(b"%d" % (number * (2**61 - 1)) for number in range(1, 40_000))
    with pytest.raises(rendering.CannotRender, match=LIMIT):
        template("{{ body.tags | unique | join(',') }}", b'{"tags":[%s]}' % same_hash)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("template", "{{ '%((a))300000000s' % {'(a)': 1} }}"),
        ("template", "{{ (('%(a)s' * 90) % {'a': '😀' * 4000000}) | length }}"),
        ("jmespath", "[body,body]" + " | [@,@][]" * 60),
    ],
)
def test_memory_is_bounded(kind: str, text: str) -> None:
    with pytest.raises(rendering.CannotRender, match=f"{LIMIT}|memory|larger than 4 MiB|mapping|too much"):
        rendering.render(kind, text, EVENT, b"{}")


def test_a_helper_that_was_ended_from_outside_is_replaced() -> None:
    assert template("{{ event.id }}") == b"evt_1"
    for helper in rendering._helpers._idle:
        os.kill(helper._process.pid, signal.SIGTERM)
        os.waitid(os.P_PID, helper._process.pid, os.WEXITED | os.WNOWAIT)
    assert template("{{ event.id }}") == b"evt_1"


@contextlib.contextmanager
def helpers_that(do: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Instead of relay's own."""
    program = folder / "helper"
    program.write_text(f"#!/bin/sh\n{do}\n")
    program.chmod(0o755)
    rendering._helpers.end()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        yield
    rendering._helpers.end()


@pytest.mark.parametrize(
    ("do", "patience", "said"),
    [
        ("head -c 8 >/dev/null; kill -KILL $$", 20.0, "its helper was ended by signal 9"),
        ("head -c 8 >/dev/null; exit 1", 20.0, r"its helper failed \(exit code 1\)"),
        ("exec sleep 30", 0.1, r"no answer within 0\.1 s"),
    ],
    ids=["killed", "failed", "silent"],
)
def test_what_ends_a_helper_is_not_held_against_its_job(
    do: str, patience: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with helpers_that(do, tmp_path, monkeypatch), monkeypatch.context() as patch:
        patch.setattr(rendering, "_PATIENCE", patience)
        with pytest.raises(rendering.NoHelper, match=said) as caught:
            template("{{ event.id }}")
        assert caught.value.begun
    assert template("{{ event.id }}") == b"evt_1"


def test_helpers_that_cannot_be_started_have_begun_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with helpers_that("exit 0", tmp_path, monkeypatch):
        (tmp_path / "helper").unlink()
        with pytest.raises(rendering.NoHelper, match="no helper can be started: No such file") as caught:
            template("{{ event.id }}")
        assert not caught.value.begun


def test_helpers_that_end_at_once_are_not_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        helpers_that("exit 0", tmp_path, monkeypatch),
        pytest.raises(rendering.NoHelper, match="its helper ends at once") as caught,
    ):
        template("{{ event.id }}")
    assert not caught.value.begun


def test_a_helper_answers_where_more_than_a_thousand_files_are_open() -> None:
    rendering._helpers.end()
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(usual[0], 2048), usual[1]))
    held = [os.dup(0) for _ in range(1100)]
    try:
        assert template("{{ event.id }}") == b"evt_1"
        [helper] = rendering._helpers._idle
        assert helper._process.stdout is not None
        assert helper._process.stdout.fileno() >= 1024
    finally:
        rendering._helpers.end()
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_a_helper_that_ended_for_want_of_work_is_replaced_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert template("{{ event.id }}") == b"evt_1"
    for helper in rendering._helpers._idle:
        assert helper._process.stdin is not None
        helper._process.stdin.flush()
        helper._process.stdin.close()  # as good as a minute without a job
        assert helper._process.wait() == 0
        helper._process.stdin = open(os.devnull, "wb")  # noqa: SIM115 - the helper closes it
    assert template("{{ event.id }}") == b"evt_1"


def test_where_memory_runs_out_a_helper_goes_before_relay() -> None:
    assert template("{{ event.id }}") == b"evt_1"
    for helper in rendering._helpers._idle:
        assert Path(f"/proc/{helper._process.pid}/oom_score_adj").read_text() == "1000\n"


def test_a_helper_knows_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_SECRET_OF_THIS_TEST", "0123456789abcdef")
    rendering._helpers.end()
    assert template("{{ event.id }}") == b"evt_1"
    [helper] = rendering._helpers._idle
    with open(f"/proc/{helper._process.pid}/environ", "rb") as file:
        assert b"RELAY_SECRET_OF_THIS_TEST" not in file.read()
