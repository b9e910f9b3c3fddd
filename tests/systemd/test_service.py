"""The unit files under a real systemd: what `systemctl` says of relay is so."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import pytest

from tests.systemd.conftest import ADMIN, CONFIG, PUBLIC, QUICK, ROOT, UNITS, WATCHDOG, Relay

pytestmark = pytest.mark.long

LOCK = """
import fcntl
with open("/var/lib/relay/relay.db.lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    input()
"""
SINK = "[Service]\nExecStart=/opt/relay/bin/relay sink --listen 127.0.0.1:9000 --delay 1s\n"


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_start_ends_when_relay_is_ready_and_not_before(relay: Relay) -> None:
    relay.systemctl("start", "relay")  # makes the store
    relay.systemctl("stop", "relay")
    command = relay.python("-c", LOCK)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        relay.systemctl("start", "--no-block", "relay")
        relay.machine.until(lambda: "store_locked" in relay.log(), "relay waits for the store")
        assert relay.show("ActiveState") == "activating"
        assert relay.status(f"{ADMIN}/health/ready") == 0
        other.communicate("\n")
    relay.systemctl("start", "relay")
    assert relay.status(f"{ADMIN}/health/ready") == 200
    assert relay.status(f"{PUBLIC}/health") == 200
    assert (relay.show("ActiveState"), relay.show("StatusText")) == ("active", "generation 1")


def test_reload_takes_a_good_file_and_fails_for_a_bad_one(relay: Relay) -> None:
    relay.systemctl("start", "relay")
    pid = relay.pid
    relay.configure("{name: one, to: {url: 'http://127.0.0.1:9'}}")
    relay.systemctl("reload", "relay")
    relay.machine.until(lambda: relay.show("StatusText") == "generation 2", "the new generation")
    assert relay.generation() == 2
    relay.configure("{name: one, too: {}}")
    done = relay.machine.ask("systemctl", "reload", "relay")
    assert done.returncode != 0
    assert f"{CONFIG}:" in relay.log("--priority=err")
    assert "routes[0].too: unknown key" in relay.log("--priority=err")
    assert (relay.show("ActiveState"), relay.generation(), relay.pid) == ("active", 2, pid)
    # The signal alone: nothing has looked at the file before.
    relay.systemctl("kill", "--kill-whom=main", "--signal=HUP", "relay")
    relay.machine.until(lambda: "REJECTED" in relay.show("StatusText"), "the refusal")
    said = relay.show("StatusText")
    assert said.startswith(f"config REJECTED {CONFIG}:")
    assert said.endswith("; running generation 2")
    relay.configure()
    relay.systemctl("reload", "relay")
    relay.machine.until(lambda: relay.show("StatusText") == "generation 3", "the mended file")
    assert relay.pid == pid


def test_with_notify_reload_the_command_ends_with_the_reload(relay: Relay) -> None:
    version = int(relay.machine.run("systemctl", "--version").split()[1])
    if version < 253:
        pytest.skip(f"systemd {version} is older than 253: name a newer root in RELAY_TEST_ROOT")
    name = "10-notify-reload.conf"
    relay.drop_in("relay.service", (UNITS / "relay.service.d" / name).read_text(), name)
    relay.systemctl("start", "relay")
    assert relay.show("Type") == "notify-reload"
    relay.configure("{name: one, to: {url: 'http://127.0.0.1:9'}}")
    relay.systemctl("reload", "relay")
    assert relay.show("StatusText") == "generation 2"
    relay.configure("{name: one, too: {}}")
    assert relay.machine.ask("systemctl", "reload", "relay").returncode != 0
    assert (relay.show("ActiveState"), relay.generation()) == ("active", 2)
    relay.configure()
    relay.systemctl("reload", "relay")
    assert relay.show("StatusText") == "generation 3"  # one signal for each reload


def test_one_that_stands_still_is_ended_by_the_watchdog_and_its_data_survive(relay: Relay) -> None:
    relay.drop_in("relay.service", QUICK)
    relay.systemctl("start", "relay")
    event = relay.send()
    relay.systemctl("kill", "--kill-whom=main", "--signal=STOP", "relay")
    stopped = time.monotonic()
    relay.machine.until(lambda: relay.show("NRestarts") == "1", "the restart")
    assert time.monotonic() - stopped < WATCHDOG + 1
    relay.machine.until(lambda: relay.status(f"{ADMIN}/health/ready") == 200, "the new one")
    assert "Watchdog timeout" in relay.log()
    assert relay.get(f"/logs/{event}")["event"]["id"] == event


@pytest.mark.skipif(shutil.which("strace") is None or ROOT != "/", reason="strace is not installed")
def test_one_whose_store_hangs_is_ended_by_the_watchdog_and_says_where_it_hung(relay: Relay) -> None:
    relay.drop_in("relay.service", QUICK)
    relay.systemctl("start", "relay")
    event = relay.send()
    hanging = ("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=600000000")
    relay.machine.run("systemd-run", "--unit=hang", "strace", "-f", "-p", str(relay.pid), *hanging)
    relay.machine.until(lambda: "attached" in relay.machine.journal("--unit=hang"), "strace")
    sending = relay.machine.command("curl", "-s", "--data", "{}", "--max-time", "60", f"{PUBLIC}/in/any")
    with subprocess.Popen(sending, stdout=subprocess.PIPE) as sender:
        relay.machine.until(lambda: "Fatal Python error" in relay.log(), "the watchdog")
        relay.systemctl("kill", "--signal=KILL", "hang")  # its process can only end now
        assert sender.stdout is not None
        promised = sender.stdout.read()
    relay.machine.until(lambda: relay.show("NRestarts") == "1", "the restart")
    relay.machine.until(lambda: relay.status(f"{ADMIN}/health/ready") == 200, "the new one")
    log = relay.log()
    assert "Fatal Python error: Aborted" in log
    assert "committer.py" in log
    assert relay.get(f"/logs/{event}")["event"]["id"] == event
    if (
        promised
    ):  # mostly nothing is; but another thread may tell of the end while the loop still sees its commit through
        late = json.loads(promised)["id"]
        assert relay.get(f"/logs/{late}")["event"]["id"] == late


def test_one_that_is_killed_is_started_again_with_its_data(relay: Relay) -> None:
    relay.systemctl("start", "relay")
    event, pid = relay.send(), relay.pid
    relay.systemctl("kill", "--kill-whom=main", "--signal=KILL", "relay")
    relay.machine.until(lambda: relay.show("ActiveState") == "active" and relay.pid not in (0, pid), "the new one")
    assert relay.show("NRestarts") == "1"
    assert relay.get(f"/logs/{event}")["event"]["id"] == event


def test_stop_lets_attempts_end_and_exits_with_0(relay: Relay) -> None:
    relay.machine.write("/etc/systemd/system/sink.service", SINK)
    relay.systemctl("daemon-reload")
    relay.systemctl("start", "sink")
    relay.machine.until(lambda: relay.status("http://127.0.0.1:9000") != 0, "the sink")
    relay.configure("{name: slow, to: {url: 'http://127.0.0.1:9000/in'}}")
    relay.systemctl("start", "relay")
    event = relay.send()
    relay.machine.until(lambda: relay.get(f"/logs/{event}")["deliveries"], "the delivery")
    relay.systemctl("stop", "relay")
    assert [relay.show(name) for name in ("Result", "ExecMainStatus", "NRestarts")] == ["success", "0", "0"]
    assert lines(relay.log())[-1]["event"] == "stopped"
    relay.systemctl("start", "relay")
    delivery = relay.get(f"/logs/{event}")["deliveries"][0]["delivery"]
    assert (delivery["status"], delivery["attempts"]) == ("delivered", 1)


def test_a_wrong_config_ends_in_78_and_is_not_tried_again(relay: Relay) -> None:
    relay.configure("{name: one, too: {}}")
    assert relay.machine.ask("systemctl", "start", "relay").returncode != 0
    assert [relay.show(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")] == ["failed", "78", "0"]
    assert "routes[0].too: unknown key" in relay.log("--priority=err")


def test_credentials_are_read(relay: Relay) -> None:
    relay.machine.write("/etc/relay/credentials/shop", "a-secret-of-the-shop\n", 0o600)
    relay.drop_in("relay.service", "[Service]\nLoadCredential=shop:/etc/relay/credentials/shop\n")
    relay.configure(more="  shop: {type: generic, token: '${credential:shop}'}\n")
    relay.systemctl("start", "relay")

    def send(token: str) -> str:
        options = ("--data", "{}", "-H", f"Authorization: Bearer {token}", f"{PUBLIC}/in/shop")
        return relay.machine.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *options)

    assert (send("a-secret-of-the-shop"), send("another")) == ("200", "401")
    relay.systemctl("reload", "relay")
    relay.machine.until(lambda: relay.show("StatusText") == "generation 2", "the new generation")


def test_the_journal_knows_how_much_a_line_matters_and_shows_it_as_it_is(relay: Relay) -> None:
    relay.configure(more="  shop: {type: generic, token: a-secret-of-the-shop}\n")
    relay.systemctl("start", "relay")
    relay.send()
    assert relay.status(f"{PUBLIC}/in/shop") == 405
    relay.machine.ask("curl", "-s", "--data", "{}", f"{PUBLIC}/in/shop")
    relay.machine.until(lambda: "request_rejected" in relay.log(), "the refusal")
    since = f"_PID={relay.pid}"
    every, warnings = lines(relay.log(since)), lines(relay.log(since, "--priority=warning"))
    assert {"started", "event_accepted", "request_rejected"} <= {line["event"] for line in every}
    assert "request_rejected" in {line["event"] for line in warnings}
    assert {line["level"] for line in warnings} <= {"warning", "error"}
    assert len(relay.log(since).splitlines()) == len(every)


def test_it_runs_as_a_dynamic_user_too(relay: Relay) -> None:
    relay.drop_in("relay.service", "[Service]\nDynamicUser=yes\nUser=relay-dynamic\nGroup=\n")
    relay.machine.run("chmod", "0644", CONFIG)
    relay.machine.run("chmod", "0755", "/etc/relay")
    relay.machine.run("rm", "-rf", "/var/lib/relay")
    try:
        relay.systemctl("start", "relay")
        event = relay.send()
        relay.systemctl("restart", "relay")
        assert relay.get(f"/logs/{event}")["event"]["id"] == event
    finally:
        relay.systemctl("stop", "relay")
        relay.machine.run("rm", "-rf", "/var/lib/relay", "/var/lib/private/relay")
        relay.machine.run("systemd-tmpfiles", "--create", "relay.conf")


def test_the_files_of_sysusers_and_tmpfiles_make_user_and_folders(relay: Relay) -> None:
    def owned(path: str) -> str:
        return relay.machine.run("stat", "--format=%U:%G %a", path).strip()

    assert relay.machine.run("getent", "passwd", "relay").split(":")[4:] == [
        "relay webhook relay",
        "/var/lib/relay",
        "/usr/sbin/nologin\n",
    ]
    relay.systemctl("start", "relay")
    assert owned("/etc/relay") == "root:relay 750"
    assert owned("/etc/relay/credentials") == "root:root 700"
    assert owned("/var/lib/relay") == "relay:relay 700"
    assert owned("/var/lib/relay/relay.db") == "relay:relay 600"
    assert owned(f"/proc/{relay.pid}").startswith("relay:relay ")


def test_where_memory_runs_out_a_helper_goes_and_relay_stays(relay: Relay) -> None:
    relay.configure("{name: one, payload: {template: '{{ event.id }}'}, to: {url: 'http://127.0.0.1:9'}}")
    relay.systemctl("start", "relay")
    relay.send()
    score = f"for each in $(cat /proc/{relay.pid}/task/*/children); do cat /proc/$each/oom_score_adj; done"
    relay.machine.until(lambda: relay.machine.ask("sh", "-c", score).stdout == "1000\n", "a helper that goes first")
    assert relay.show("OOMPolicy") == "continue"


def test_systemd_has_no_complaints_about_the_units(relay: Relay) -> None:
    units = ("relay.service", "relay.socket", "relay-admin.socket")
    done = relay.machine.ask("systemd-analyze", "verify", *units)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "relay" in line]) == (0, [])


def test_what_the_service_may_do_is_little(relay: Relay) -> None:
    done = relay.machine.ask("systemd-analyze", "security", "--offline=yes", "--threshold=15", "relay.service")
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_relay_service_names_the_program_in_one_place_only() -> None:
    for unit in (UNITS / "relay.service", UNITS / "relay.service.d/10-notify-reload.conf"):
        named = [line.partition("=")[2].split()[0] for line in unit.read_text().splitlines() if "/relay " in line]
        assert set(named) == {"/opt/relay/bin/relay"}
