"""Sockets that systemd holds for relay: nobody is refused while it restarts."""

from __future__ import annotations

import functools
import json
import subprocess
import time

from tests.systemd.conftest import PUBLIC, Relay

SENDERS = """
import collections, http.client, json, sys, threading, time
answers, waited, done = collections.Counter(), [], threading.Event()

def send():
    while not done.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
        began = time.monotonic()
        try:
            connection.request("POST", "/in/any", b"{}")
            answers[str(connection.getresponse().status)] += 1
        except Exception as error:
            answers[type(error).__name__] += 1
        finally:
            waited.append(time.monotonic() - began)
            connection.close()
        if sum(answers.values()) >= 5:
            print("sending", flush=True)
        done.wait(0.02)

threads = [threading.Thread(target=send) for _ in range(4)]
for each in threads: each.start()
sys.stdin.read()
done.set()
for each in threads: each.join()
print(json.dumps([answers, max(waited)]), flush=True)
"""


def listen(relay: Relay) -> None:
    relay.systemctl("enable", "--now", "relay.socket")
    assert relay.show("ActiveState", "relay-admin.socket") == "active"


def test_nobody_is_refused_in_three_restarts(relay: Relay) -> None:
    listen(relay)
    relay.systemctl("start", "relay")
    senders = subprocess.Popen(relay.python("-c", SENDERS), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with senders:
        assert senders.stdout is not None
        assert senders.stdout.readline() == "sending\n"
        slowest = 0.0
        for _ in range(3):
            enough = stored(relay) + 100
            began = time.monotonic()
            relay.systemctl("restart", "relay")
            slowest = max(slowest, time.monotonic() - began)
            relay.machine.until(functools.partial(at_least, relay, enough), "a hundred more")
        counts, longest = json.loads(senders.communicate()[0].splitlines()[-1])
    assert counts.keys() == {"200"}, counts
    assert counts["200"] >= 300
    # What a restart takes is the machine's, within bounds: who waits for it waits no longer than that, and a moment.
    assert slowest < 10
    assert longest < max(2.0, slowest + 1.0)


def at_least(relay: Relay, number: int) -> bool:
    return stored(relay) >= number


def stored(relay: Relay) -> int:
    return len(relay.get("/logs?limit=1000&status=unmatched")["items"])


def test_the_first_request_starts_it(relay: Relay) -> None:
    listen(relay)
    assert relay.show("ActiveState") == "inactive"
    assert relay.send()
    started = [json.loads(line) for line in relay.log().splitlines() if '"event":"started"' in line]
    assert [(line["listen"], line["admin"]) for line in started] == [
        ("127.0.0.1:8080 (by systemd)", "127.0.0.1:8081 (by systemd)")
    ]
    assert relay.get("/health")["checks"]["listen"] == "ok"


def test_stopping_the_socket_too_stops_it_for_good(relay: Relay) -> None:
    listen(relay)
    relay.systemctl("start", "relay")
    relay.systemctl("stop", "relay.socket", "relay")
    assert relay.show("ActiveState", "relay-admin.socket") == "inactive"
    assert relay.status(f"{PUBLIC}/health") == 0
    assert relay.show("ActiveState") == "inactive"


def test_an_operator_changes_addresses_by_a_drop_in_and_is_told_where_the_config_differs(relay: Relay) -> None:
    addresses = "ListenStream=\nListenStream=127.0.0.1:9090\nListenStream=[::1]:9090\nListenStream=/run/relay-in.sock\n"
    relay.drop_in("relay.socket", f"[Socket]\n{addresses}")
    listen(relay)
    relay.systemctl("start", "relay")
    for where in (
        ("http://127.0.0.1:9090",),
        ("http://[::1]:9090",),
        ("--unix-socket", "/run/relay-in.sock", "http://a"),
    ):
        answer = relay.machine.run("curl", "-s", "--fail", "--data", "{}", *where[:-1], f"{where[-1]}/in/any")
        assert json.loads(answer)["id"]
    health = relay.get("/health")
    told = (
        "server.listen is 127.0.0.1:8080, but systemd listens on 127.0.0.1:9090 and [::1]:9090 and"
        " unix:/run/relay-in.sock for it"
    )
    assert health["checks"]["listen"].startswith(told)
    assert health["status"] == "ok"
    assert f'"problem":"{told}' in relay.log("--priority=warning")
    relay.configure(more="server: {listen: '127.0.0.1:9090'}\n")
    relay.systemctl("reload", "relay")
    relay.machine.until(lambda: relay.show("StatusText") == "generation 2", "the new generation")
    health = relay.get("/health")
    assert (health["checks"]["listen"], health["config"]["pending_restart"]) == ("ok", [])


def test_an_operator_changes_the_address_of_one_that_runs(relay: Relay) -> None:
    listen(relay)
    relay.systemctl("start", "relay")
    relay.drop_in("relay.socket", "[Socket]\nListenStream=\nListenStream=127.0.0.1:443\n")
    relay.systemctl("stop", "relay.socket", "relay")
    relay.systemctl("start", "relay.socket", "relay")
    assert relay.status("http://127.0.0.1:443/health") == 200
    assert [relay.show("ActiveState", f"relay{name}.socket") for name in ("", "-admin")] == ["active"] * 2


def test_a_socket_of_another_name_is_refused_in_words(relay: Relay) -> None:
    relay.drop_in("relay-admin.socket", "[Socket]\nFileDescriptorName=metrics\n")
    listen(relay)
    assert relay.machine.ask("systemctl", "start", "relay").returncode != 0
    assert (relay.show("ExecMainStatus"), relay.show("NRestarts")) == ("78", "0")
    said = relay.log("--priority=err")
    assert "relay: systemd handed over a socket named 'metrics' (127.0.0.1:8081): FileDescriptorName= must be" in said


def test_with_a_wrong_config_connections_do_not_start_it_for_ever(relay: Relay) -> None:
    relay.configure("{name: one, too: {}}")
    relay.drop_in("relay.service", "[Unit]\nStartLimitBurst=3\n")
    listen(relay)
    sending = relay.machine.command("curl", "-s", "--data", "{}", "--max-time", "60", f"{PUBLIC}/in/any")
    with subprocess.Popen(sending) as sender:
        relay.machine.until(lambda: relay.show("ActiveState", "relay.socket") == "failed", "the socket's end")
        assert sender.wait(60) != 0
    assert relay.show("ActiveState") == "failed"
    relay.configure()
    relay.systemctl("reset-failed", "relay", "relay.socket", "relay-admin.socket")
    relay.systemctl("start", "relay.socket", "relay")
    assert relay.send()
