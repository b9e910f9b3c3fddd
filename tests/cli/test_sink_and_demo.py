"""`sink` and `demo`: processes that keep running until they are told to end."""

from __future__ import annotations

import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.running import TOP, complaint, free_ports, items_when, run, talking


def post(url: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_sink_fails_as_often_as_told_says_what_it_gets_and_ends_with_0(
    tmp_path: Path, signum: signal.Signals
) -> None:
    with talking(tmp_path, "sink", "--listen", "127.0.0.1:0", "--fail", "503:1", "--delay", "1ms", "-v") as sink:
        url = "http://" + sink.wait_for("listening on").rpartition(" ")[2]
        nasty = b"\x1b[2J" + b"x" * (2 << 20)
        assert post(url + "/a", nasty, webhook_id="dlv_1") == 503
        assert post(url + "/a", b"", webhook_id="dlv_1") == 200
        assert f"POST /a -> 503  -  -  {len(nasty)} bytes  dlv_1" in sink.wait_for("-> 503")
        assert "seen 2 times" in sink.wait_for("-> 200")
        assert "\\x1b[2Jxxx" in sink.wait_for("| \\x1b")
        assert sink.end(signum) == 0
        assert sink.lines[-1] == "sink: 2 requests"
        assert sink.complaints == ""


def test_an_address_in_use_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert (
            complaint(run("sink", "--listen", address), 1)
            == f"relay: cannot listen on {address}: Address already in use"
        )


def example(folder: Path) -> tuple[Path, int, int]:
    """The example config on ports of its own; also its admin's and its sink's."""
    public, admin, sink = free_ports(3)
    text = (TOP / "config.example.yaml").read_text()
    for before, port in ((8080, public), (8081, admin), (9099, sink)):
        text = text.replace(f"127.0.0.1:{before}", f"127.0.0.1:{port}")
    path = folder / "config.yaml"
    path.write_text(text)
    return path, admin, sink


def test_the_demo_delivers_a_sample_of_each_source_and_ends_with_0(tmp_path: Path) -> None:
    path, admin, _ = example(tmp_path)
    with talking(tmp_path, "demo", "--config", path) as demo:
        assert f"--url http://127.0.0.1:{admin}" in demo.wait_for("demo: running")
        for name in ("storyblok", "strapi", "contentstack", "prismic", "hygraph"):
            assert f"demo: sent a {name} sample to /in/{name} -> 200" in demo.lines
        items = items_when(
            f"http://127.0.0.1:{admin}",
            lambda items: len(items) == 15 and all(item["status"] in ("delivered", "merged") for item in items),
        )
        assert {item["route"] for item in items} == {"rebuild-www", "search", "audit"}
        [built] = [item for item in items if item["route"] == "rebuild-www" and item["status"] == "delivered"]
        assert {item["merged_into"] for item in items if item["status"] == "merged"} == {built["id"]}
        assert sum("signature verified" in line for line in demo.lines) == 5
        assert (tmp_path / "relay.db").exists()
        assert demo.end() == 0
        assert "Traceback" not in demo.complaints
        assert "WRONG" not in "\n".join(demo.lines)


def test_a_demo_says_which_sample_was_a_duplicate(tmp_path: Path) -> None:
    path, _, _ = example(tmp_path)
    text = path.read_text()
    path.write_text(text.replace("type: strapi\n", "type: strapi\n    dedup: {key: \"'always'\", window: 1h}\n", 1))
    assert path.read_text() != text
    for repeat in ("", " (a duplicate: not delivered again)"):
        with talking(tmp_path, "demo", "--config", path) as demo:
            demo.wait_for("demo: running")
            assert f"demo: sent a strapi sample to /in/strapi -> 200{repeat}" in demo.lines
            assert "demo: sent a prismic sample to /in/prismic -> 200" in demo.lines
            assert demo.end() == 0


def test_a_demo_whose_sink_cannot_listen_says_so(tmp_path: Path) -> None:
    path, _, sink = example(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", sink))
        taken.listen()
        line = complaint(run("demo", "--config", path), 1)
    assert line.startswith(f"relay: the sink cannot listen on 127.0.0.1:{sink}: Address already in use")


def test_a_demo_sends_no_samples_to_other_machines(tmp_path: Path) -> None:
    path, _, sink = example(tmp_path)
    path.write_text(path.read_text().replace(f"http://127.0.0.1:{sink}/audit", "https://api.example.com/audit"))
    line = complaint(run("demo", "--config", path), 1)
    assert "route audit would carry them to https://api.example.com/audit, not to a local sink" in line
