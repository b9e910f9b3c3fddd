"""What Prometheus gets: whatever senders say and however often the config changes, the number of series is bounded."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay import journal
from relay.metrics import NOTIFICATIONS, OUTCOMES, Metrics
from relay.pipeline import Pipeline
from relay.process import Process
from tests.harness import LISTEN, Received, Relay, relay_here, sink, write_config
from tests.several import until

PROMETHEUS = Path(__file__).parent.parent.parent / "docs" / "prometheus"
DASHBOARD = Path(__file__).parent.parent.parent / "docs" / "grafana" / "relay.json"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: install Debian's package prometheus"
)

SOURCES = (
    "sources:\n"
    "  any: {type: generic, verify: none, map: {event: body.event, model: body.model}}\n"
    "  www: {type: storyblok, secret: a-secret-that-nobody-knows, expect_every: 1h}\n"
    "notifiers: {hook: {type: webhook, url: 'SINK/told'}}\n"
)


def config(url: str, *routes: str, sources: str = SOURCES) -> str:
    named = "".join(f"  - {{name: {name}, to: {{url: '{url}/{name}'}}, retry: none}}\n" for name in routes)
    return (sources + f"routes:\n{named}").replace("SINK", url)


STATUSES: tuple[int, ...] = (200, 302, *range(400, 410), 418, 422, 451, 499, 500, 503, 599)
Series = dict[str, dict[frozenset[tuple[str, str]], float]]


async def exposition(running: Relay) -> str:
    async with running.session.get(running.admin + "/metrics") as response:
        assert response.status == 200
        return await response.text()


async def scrape(running: Relay) -> Series:
    """Samples by name and labels."""
    found: Series = {}
    for family in text_string_to_metric_families(await exposition(running)):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            key = frozenset(sample.labels.items())
            assert key not in labels, "a series is there twice"
            labels[key] = sample.value
    return found


async def scrape_when(running: Relay, condition: Any) -> Series:
    found: Series = await until(lambda: scrape(running), condition)
    return found


def values(found: Series, label: str) -> set[str]:
    """All that a label says."""
    return {value for samples in found.values() for labels in samples for name, value in labels if name == label}


def of(found: Series, metric: str, **labels: str) -> float:
    return found[metric][frozenset(labels.items())]


async def test_nothing_that_senders_or_destinations_say_becomes_a_label(tmp_path: Path) -> None:
    """Unknown paths, random events, forged signatures, answers of all kinds: the same series with other numbers."""

    def answer(request: Received) -> int:
        return STATUSES[request.n % len(STATUSES)]

    never_unwell = "defaults: {unhealthy_after: 1000}\n"
    async with sink(answer) as there:
        async with relay_here(tmp_path, LISTEN + never_unwell + config(there.url, "a", "b")) as running:
            before = await scrape(running)
            for n in range(100):
                said = json.dumps({"event": f"event-{n}", "model": f"model-{n}", "id": n}).encode()
                headers = {"Content-Type": "application/json", f"X-Random-{n}": f"random-{n}"}
                assert (await running.post(f"/in/any?n={n}", said, headers))[0] == 200
                assert (await running.post(f"/in/nobody-{n}", said, headers))[0] == 404
                forged = {"webhook-signature": f"{n:040x}", "X-Forwarded-For": f"10.0.0.{n}"}
                assert (await running.post("/in/www", said, forged))[0] in (401, 429)
                await running.ask("GET", f"/nothing-{n}")
            everything = await running.logs_when(lambda items: len(items) == 200, "?status=delivered,failed&limit=1000")
            after = await scrape(running)
        assert {item["route"] for item in everything} == {"a", "b"}
    for label in ("source", "route", "notifier", "state"):
        assert values(after, label) == values(before, label)
    known = {*OUTCOMES, *NOTIFICATIONS, "http_status", "refused", "gone", "delivered", "failed", "cancelled"}
    assert values(after, "outcome") | values(after, "status") <= known
    assert of(after, "relay_not_found_total") == 100
    assert of(after, "relay_events_total", source="any", outcome="accepted") == 100
    assert of(after, "relay_events_total", source="www", outcome="unauthenticated") == 100


async def test_what_reloads_take_out_of_the_config_leaves_no_series_behind(tmp_path: Path) -> None:
    """Each generation has a route, a source and a notifier of its own, all of them used."""
    async with sink() as there:
        sources = (
            "sources: {NAME: {type: generic, verify: none}}\nnotifiers: {NAME: {type: webhook, url: 'SINK/told'}}\n"
        )

        def generation(n: int) -> str:
            return LISTEN + config(there.url, f"r{n}", sources=sources.replace("NAME", f"n{n}"))

        async with relay_here(tmp_path, generation(0)) as running:
            counts = []
            for n in range(12):
                await running.post(f"/in/n{n}")
                # counted when it has ended
                await running.logs_when(lambda items: items, f"?route=r{n}&status=delivered")
                found = await scrape(running)
                assert of(found, "relay_deliveries_total", route=f"r{n}", status="delivered") == 1
                assert values(found, "route") == {f"r{n}"}
                assert values(found, "source") == values(found, "notifier") == {f"n{n}"}
                counts.append(sum(map(len, found.values())))
                write_config(tmp_path, generation(n + 1))
                assert (await running.ask("POST", "/reload"))[0] == 200
            assert len(set(counts)) == 1, counts


def test_a_thousand_reloads_leave_as_many_series_as_one() -> None:
    """Also where attempts of a removed route end after it was removed."""
    metrics = Metrics()
    sizes = []
    for n in range(1000):
        metrics.follow([f"r{n}"], [f"s{n}"], [f"n{n}"])
        for name in (f"r{n}", f"r{n - 1}"):
            metrics.attempts.labels(name, "timeout").inc()
            metrics.duration.labels(name).observe(1)
            metrics.latency.labels(name).observe(1)
            metrics.filter_errors.labels(name).inc()
            metrics.deliveries.labels(name, "failed").inc()
        if n % 100 == 99:
            sizes.append(len(metrics.exposition().splitlines()))
    assert len(set(sizes)) == 1, sizes


async def test_what_is_held_for_a_removed_route_is_shown_until_it_is_not_held(tmp_path: Path) -> None:
    async with sink(lambda request: 503) as there:
        text = config(there.url, "old").replace("retry: none", "retry: {policy: fixed, every: 1h, attempts: 3}")
        async with relay_here(tmp_path, LISTEN + text) as running:
            await running.post("/in/any")
            [item] = await running.logs_when(lambda items: items and items[0]["attempts"] == 1)
            write_config(tmp_path, LISTEN + config(there.url, "new"))
            assert (await running.ask("POST", "/reload"))[0] == 200
            found = await scrape(running)
            assert of(found, "relay_held", route="old") == 1
            assert "old" not in {dict(labels)["route"] for labels in found["relay_deliveries_total"]}
            assert (await running.ask("POST", f"/logs/{item['id']}/cancel"))[0] == 200
            assert "old" not in {dict(labels)["route"] for labels in (await scrape(running))["relay_held"]}


async def test_counters_that_alerts_watch_are_there_before_the_first_step(tmp_path: Path) -> None:
    """`increase()` sees no step of a series that begins with it."""
    async with sink() as there, relay_here(tmp_path, LISTEN + config(there.url, "a")) as running:
        found = await scrape(running)
        assert of(found, "relay_deliveries_total", route="a", status="failed") == 0
        assert of(found, "relay_notifications_total", notifier="hook", outcome="failed") == 0
        assert {dict(labels)["outcome"] for labels in found["relay_events_total"]} == set(OUTCOMES)
        assert of(found, "relay_journal_dropped_total") == journal.outlet.dropped
        assert of(found, "relay_internal_errors_total") == journal.bugs.met
        assert of(found, "relay_config_reloads_total", result="rejected") == 0


async def test_an_event_that_is_lost_to_a_bug_is_counted_as_refused_and_the_bug_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sink() as there, relay_here(tmp_path, LISTEN + config(there.url, "a")) as running:
        before = of(await scrape(running), "relay_internal_errors_total")
        monkeypatch.setattr(Pipeline, "accept", lambda *_: 1 // 0)
        assert (await running.post("/in/any"))[0] == 503
        found = await scrape(running)
        assert of(found, "relay_events_total", source="any", outcome="unavailable") == 1
        assert of(found, "relay_internal_errors_total") == before + 1


async def test_a_route_that_relay_stopped_and_one_that_a_person_paused_are_told_apart(tmp_path: Path) -> None:
    async with sink(lambda request: 410 if "gone" in request.path else 200) as there:
        async with relay_here(tmp_path, LISTEN + config(there.url, "gone", "well")) as running:
            await running.ask("POST", "/routes/well/pause")
            await running.post("/in/any")
            await running.logs_when(lambda items: items, "?route=gone&status=failed")
            found = await scrape(running)
            assert of(found, "relay_route_state", route="gone", state="paused") == 1
            assert of(found, "relay_route_state", route="well", state="paused") == 1
            assert of(found, "relay_route_stopped", route="gone") == 1
            assert of(found, "relay_route_stopped", route="well") == 0


async def test_sources_say_when_they_were_heard_and_whether_they_are_silent(tmp_path: Path) -> None:
    async with sink() as there:
        text = config(there.url, "a").replace("verify: none", "verify: none, expect_every: 1s")
        async with relay_here(tmp_path, LISTEN + text) as running:
            assert "relay_source_last_event_timestamp_seconds" not in await scrape(running)
            await running.post("/in/any")
            found = await scrape(running)
            heard = of(found, "relay_source_last_event_timestamp_seconds", source="any")
            assert 0 <= of(found, "process_start_time_seconds") <= heard + 1
            assert of(found, "relay_source_silent", source="www") == 0
            await scrape_when(running, lambda found: of(found, "relay_source_silent", source="any") == 1)


async def test_messages_to_people_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    def answer(request: Received) -> int:
        return 404 if request.path in ("/deaf", "/a") else 200

    async with sink(answer) as there:
        text = config(there.url, "a").replace(
            "notifiers: {", f"notifiers: {{deaf: {{type: webhook, url: '{there.url}/deaf'}}, "
        )
        text = text.replace("name: a,", "name: a, notify: [hook, deaf],")
        async with relay_here(tmp_path, LISTEN + text) as running:
            await running.post("/in/any")
            name = "relay_notifications_total"
            found = await scrape_when(running, lambda found: sum(found[name].values()) == 2)
            assert of(found, name, notifier="hook", outcome="sent") == 1
            assert of(found, name, notifier="deaf", outcome="failed") == 1


async def test_the_lag_of_the_event_loop_is_measured_and_the_process_is_described(tmp_path: Path) -> None:
    async with sink() as there, relay_here(tmp_path, LISTEN + config(there.url, "a")) as running:
        found = await scrape_when(running, lambda found: of(found, "relay_event_loop_lag_seconds_count") > 0)
        assert of(found, "process_resident_memory_bytes") > 10 << 20
        assert 0 < of(found, "relay_store_free_bytes") <= of(found, "relay_store_disk_bytes")
        assert of(found, "relay_store_size_bytes") > 0


def test_the_process_is_described_where_proc_shows_nothing_but_processes(tmp_path: Path) -> None:
    """As systemd's `ProcSubset=pid` has it."""
    (tmp_path / "self").symlink_to("/proc/self")
    assert (
        [family.name for family in Process(tmp_path).families()]
        == [family.name for family in Process().families()]
        != []
    )
    assert list(Process(tmp_path / "nothing").families()) == []


def test_a_process_began_when_the_clock_said_so(tmp_path: Path) -> None:
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as began:
        after = time.time()
        (tmp_path / "self").symlink_to(f"/proc/{began.pid}")
        told = {family.name: family.samples for family in Process(tmp_path).families()}
        began.kill()
    [(_, _, started)] = told["process_start_time_seconds"]
    assert before - 0.1 <= started <= after + 0.1  # it is told in hundredths of a second


# -- what is made of them --------------------------------------------------------------------------------------------


async def everything(folder: Path) -> str:
    """A scrape with each metric in it."""
    async with sink() as there, relay_here(folder, LISTEN + config(there.url, "www")) as running:
        await running.post("/in/any")
        await running.logs_when(lambda items: items, "?status=delivered")
        return await exposition(running)


@needs_promtool
async def test_promtool_finds_nothing_wrong_with_the_exposition(tmp_path: Path) -> None:
    checked = await asyncio.to_thread(promtool, "check", "metrics", stdin=await everything(tmp_path))
    assert checked == ""


@needs_promtool
@pytest.mark.parametrize("what", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_accepts_the_alerts_and_each_fires_when_it_should(what: tuple[str, ...]) -> None:
    assert "SUCCESS" in promtool(*what)


@needs_promtool
def test_promtool_accepts_what_the_dashboard_asks(tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    asked += [note["expr"] for note in board["annotations"]["list"]]
    rules = [
        {"record": f"asked:{number}", "expr": re.sub(r"\$\w+", "x", expr.replace("$__rate_interval", "5m"))}
        for number, expr in enumerate(asked)
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))


OF_ONE_STORE = {
    'relay_route_state{state="healthy", route="www"}': 0,
    'relay_route_state{state="unhealthy", route="www"}': 1,
    'relay_route_state{state="paused", route="www"}': 0,
    'relay_route_state{state="disabled", route="www"}': 0,
    'relay_route_stopped{route="www"}': 1,
    'relay_source_silent{source="blog"}': 1,
    'relay_source_last_event_timestamp_seconds{source="blog"}': 0,
    'relay_pending{route="www"}': 5,
    'relay_held{route="www"}': 2,
    'relay_oldest_pending_seconds{route="www"}': 30,
}
"""What each relay on it exposes."""


@needs_promtool
def test_what_relays_on_one_store_say_of_it_is_shown_once(tmp_path: Path) -> None:
    shown: dict[str, list[tuple[str, float]]] = {
        "Routes stopped": [("{}", 1)],
        "Sources silent": [("{}", 1)],
        "Oldest overdue": [("{}", 30)],
        "Last heard": [('{source="blog"}', 60)],
        "Waiting": [('{route="www"}', 5), ('{route="www"}', 2)],
        "Overdue": [('{route="www"}', 30)],
        "State of each route": [('{route="www"}', 1)],
    }
    panels = {panel["title"]: panel for panel in json.loads(DASHBOARD.read_text())["panels"]}
    asked = [
        {
            "eval_time": "1m",
            "expr": re.sub(r'=~?"\$\w+"', '=~".+"', target["expr"]),
            "exp_samples": [{"labels": labels, "value": value}],
        }
        for title, values in shown.items()
        for target, (labels, value) in zip(panels[title]["targets"], values, strict=True)
    ]
    series = [
        {"series": f'{name[:-1]}, job="relay", instance="{instance}"}}', "values": f"{value}x9"}
        for name, value in OF_ONE_STORE.items()
        for instance in ("a:8081", "b:8081")
    ]
    tests = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]}
    (tmp_path / "shared.yml").write_text(json.dumps(tests))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "shared.yml"))


def promtool(*what: str, stdin: str = "") -> str:
    ended = subprocess.run(
        ["promtool", *what], input=stdin, capture_output=True, text=True, cwd=PROMETHEUS, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_each_alert_has_a_test_and_says_what_to_do() -> None:
    alerts = (PROMETHEUS / "alerts.yml").read_text()
    names = re.findall(r"- alert: (\w+)", alerts)
    assert len(names) == len(set(names)) > 12
    tests = (PROMETHEUS / "alerts_test.yml").read_text()
    assert set(names) == set(re.findall(r'alertname="(\w+)"', tests))
    for part in ("summary:", "description:", "severity:"):
        assert alerts.count(part) >= len(names)


METRIC = re.compile(r"\b((?:relay|process)_[a-z_]+)(?:\{([^{}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
BY_PROMETHEUS = {"job", "instance", "le", "__name__", "alertname", "alertstate", "severity"}


async def test_alerts_and_dashboard_name_only_series_that_are_exposed(tmp_path: Path) -> None:
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(await everything(tmp_path)):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    asked = 0
    for path in (PROMETHEUS / "alerts.yml", PROMETHEUS / "alerts_test.yml", DASHBOARD):
        # what stands in backquotes is told to people, not asked of Prometheus
        text = re.sub("`[^`]*`", "", path.read_text()).replace('\\"', '"')
        for metric, matchers in METRIC.findall(text):
            assert metric in found, (path.name, metric)
            asked += 1
            for label, wanted in MATCHER.findall(matchers):
                assert label in found[metric].keys() | BY_PROMETHEUS, (path.name, metric, label)
                words = set(wanted.split("|")) if "$" not in wanted else set()
                if label in ("outcome", "status", "state", "result") and metric != "relay_notifications_total":
                    assert words <= found[metric][label], (path.name, metric, label, words)
    assert asked > 80


async def test_the_dashboard_is_whole(tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text())
    assert board["schemaVersion"] >= 36
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert variables["datasource"] == "datasource"
    assert variables["route"] == "query"
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        assert panel["description"], panel["title"]
    shown = DASHBOARD.read_text()
    exposed = {family.name for family in text_string_to_metric_families(await everything(tmp_path))}
    assert {name for name in exposed if name.startswith("relay_") and name not in shown} == set()
    for variable in set(re.findall(r"\$(?:\{)?([a-z]+)", shown)):
        assert variable in variables
