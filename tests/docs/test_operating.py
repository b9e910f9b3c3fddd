"""`docs/operating.md` knows every log event, metric, code, state, answer and field of health that the code has."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

import relay
from relay import journal
from relay.cli import INTERRUPTED, term
from relay.cli import relay as cli
from relay.delivery import Code, State, Trigger
from relay.metrics import ENDED, NOTIFICATIONS, OUTCOMES, REFUSALS, RELOADS, ROUTE_STATES, Gauges, Metrics
from relay.space import Space
from relay.web import logquery
from relay.web.admin import Admin
from tests.cli.running import run_process
from tests.harness import relay_here

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "operating.md").read_text()
CODE = Path(relay.__file__).parent


def section(heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level, _, rest = next(
        (found[1], None, PAGE[found.end() :]) for found in re.finditer(rf"^(#+) {re.escape(heading)}$", PAGE, re.M)
    )
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.M)[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of all tables under a heading."""
    return [
        [cell.strip() for cell in line.strip("|").split(" |")]
        for line in section(heading).splitlines()
        if line.startswith("| ")
    ]


def words(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def text_of(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


# -- log events ------------------------------------------------------------------------------------------------------


def journal_lines() -> dict[str, set[str]]:
    """Each event of the journal with the fields that are written out."""
    found: dict[str, set[str]] = {}
    for call in calls(CODE / "journal.py"):
        logs = call.func.value if isinstance(call.func, ast.Attribute) else call.func
        event = text_of(call.args[0]) if call.args else None
        if isinstance(logs, ast.Name) and logs.id in ("_log", "_say", "log") and event is not None:
            found[event] = {keyword.arg for keyword in call.keywords if keyword.arg} - {"exc_info"}
        elif isinstance(logs, ast.Name) and logs.id == "_headed" and text_of(call.args[1]) is not None:
            assert isinstance(call.args[2], ast.Dict)
            found[str(text_of(call.args[1]))] = {str(text_of(key)) for key in call.args[2].keys}
    for node in ast.walk(ast.parse((CODE / "journal.py").read_text())):  # those of the hot path
        if isinstance(node, ast.Dict):
            named = {text_of(key): value for key, value in zip(node.keys, node.values, strict=True)}
            event = text_of(named.pop("event", None))
            if event is not None:
                found[event] = {name for name in named if name is not None}
    return found


def facts(function: str) -> set[str]:
    """The names that callers hand to a function of the journal."""
    return {
        keyword.arg
        for path in CODE.rglob("*.py")
        for call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr == function
        and isinstance(call.func.value, ast.Name) and call.func.value.id == "journal"
        for keyword in call.keywords
        if keyword.arg
    }  # fmt: skip


def test_every_log_event_is_documented_with_its_fields() -> None:
    expected = journal_lines()
    assert len(expected) > 15
    expected["started"] |= facts("started")
    expected["manual_action"] |= facts("manual")
    expected["config_loaded"] |= {"routes", "sources", "notifiers", "other"}
    table = {next(iter(words(row[0]))): words(row[2]) for row in rows("Log events") if words(row[0])}
    assert table == expected


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_every_metric_is_documented_with_its_labels() -> None:
    metrics = Metrics()
    now = datetime.now(UTC)
    metrics.follow(["r"], ["s"], ["n"])
    one = {"r": 1}
    metrics.watch(
        lambda: Gauges(
            1, "0", True, now, one, one, {"r": 1.0}, {"r": "healthy"}, [], {"s": now}, [], True, 1, Space(1, 1, 1), 1, 0
        )
    )
    for metric in (metrics.duration, metrics.latency, metrics.filter_errors):
        metric.labels("r")
    metrics.attempts.labels("r", "delivered")
    expected = {
        family.name: {label for _, labels, _ in family.samples for label in labels} - {"le"}
        for metric in metrics.all
        for family in metric.families()
    }
    assert len(expected) > 15
    table = {next(iter(words(row[0]))): words(row[1]) for row in rows("Metrics") if words(row[0])}
    assert table == expected


def test_the_outcomes_of_events_and_deliveries_are_documented() -> None:
    answered = {word for _, word in answers("ingest", "body")}
    assert set(REFUSALS) == answered - {"not_found"}
    told = {next(iter(words(row[0]))): words(row[2]) for row in rows("Metrics") if words(row[0])}
    assert set(OUTCOMES) - set(REFUSALS) <= told["relay_events_total"]
    assert set(ENDED) <= told["relay_deliveries_total"]
    assert set(NOTIFICATIONS) <= told["relay_notifications_total"]
    assert set(RELOADS) <= told["relay_config_reloads_total"]


def test_the_metrics_that_alerts_name_exist() -> None:
    known = {next(iter(words(row[0]))) for row in rows("Metrics") if words(row[0])}
    assert set(re.findall(r"relay_[a-z_]+", PAGE)) <= known


# -- words -----------------------------------------------------------------------------------------------------------


def test_every_error_code_is_documented() -> None:
    assert {next(iter(words(row[0]))) for row in rows("Error codes") if words(row[0])} == {code.value for code in Code}


def test_every_state_and_trigger_is_documented() -> None:
    assert {next(iter(words(row[0]))) for row in rows("States") if words(row[0])} == {state.value for state in State}
    assert {trigger.value for trigger in Trigger} <= words(section("States"))
    assert set(ROUTE_STATES) <= words(section("Metrics"))


def answers(*modules: str) -> set[tuple[int, str]]:
    """Status and word of every refusal that modules of the web side can make."""
    found = set()
    for module in modules:
        for call in calls(CODE / "web" / f"{module}.py"):
            status = call.args[0] if call.args else None
            if not (isinstance(status, ast.Constant) and isinstance(status.value, int) and len(call.args) > 1):
                continue
            word = call.args[1]
            if isinstance(word, ast.Dict):
                word = next((v for k, v in zip(word.keys, word.values, strict=True) if text_of(k) == "error"), word)
            text = text_of(word)
            if 400 <= status.value < 600 and text is not None:
                found.add((status.value, text))
    return found


def documented_answers(heading: str) -> set[tuple[int, str]]:
    return {
        (int(row[0]), next(iter(words(row[1]))))
        for row in rows(heading)
        if row[0].isdigit() and len(row) > 2 and words(row[1])
    }


def test_every_answer_a_sender_can_get_is_documented() -> None:
    found = answers("ingest", "body")
    assert {status for status, _ in found} == {400, 401, 403, 404, 405, 408, 413, 415, 429, 503}
    assert documented_answers("What senders are answered") == found


def test_every_refusal_of_the_admin_side_is_documented() -> None:
    found = answers("admin", "auth", "itself", "server")
    assert {status for status, _ in found} >= {400, 401, 403, 404, 405, 409, 421, 422, 500, 503}
    assert documented_answers("The admin side") == found


def test_every_filter_and_every_status_is_documented() -> None:
    table = [row for row in rows("Logs") if words(row[0])]
    named: set[str] = set().union(*(words(row[0]) for row in table))
    assert set(logquery.FILTERS) <= named
    assert set(logquery.STATUSES) <= words(section("Logs"))


def test_every_exit_code_is_documented() -> None:
    known = {0, term.FAILED, 2, term.OPERATOR, INTERRUPTED}
    assert {int(row[0]) for row in rows("Exit codes") if row[0].isdigit()} == known


async def test_the_changes_of_a_reload_are_found_in_the_log_as_the_page_says(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    [advice] = [row[1] for row in rows("What do I want to know?") if "reload" in row[0]]
    command = advice.split("`")[1].replace("\\|", "|").removeprefix("journalctl -u relay -o cat |")
    text = "sources: {s: {type: generic, verify: none}}\nroutes: [{name: a, to: {url: 'http://127.0.0.1:9'}}]\n"
    async with relay_here(tmp_path, text) as running:
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace("name: a", "name: b"))
        for _ in range(3):  # one takes it, the others find nothing new
            assert (await running.ask("POST", "/reload"))[0] == 200
        journal.outlet.drain(10)
        log = capsysbinary.readouterr().err
    found = subprocess.run(["sh", "-c", command], input=log, stdout=subprocess.PIPE, check=True).stdout
    line = json.loads(found)
    assert (line["generation"], line["routes"]["added"], line["routes"]["removed"]) == (2, ["b"], ["a"])


# -- health and log items --------------------------------------------------------------------------------------------


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """The fields of an answer, as the page writes them; `last_reload` and `checks` are told in words."""
    for key, child in value.items():
        if isinstance(child, dict) and key not in ("last_reload", "checks", "error"):
            yield from paths(child, f"{prefix}{key}.")
        elif isinstance(child, list) and child and isinstance(child[0], dict):
            yield from paths(child[0], f"{prefix}{key}[].")
        else:
            yield prefix + key


async def test_every_field_and_check_of_health_and_every_field_of_the_logs_is_documented(tmp_path: Path) -> None:
    text = (
        "sources: {any: {type: generic, verify: none}}\n"
        "routes: [{name: r, enabled: false, to: {url: 'http://127.0.0.1:9'}}]\n"
    )
    async with relay_here(tmp_path, text) as running:
        health = await running.get("/health")
        await running.post("/in/any")
        [item] = (await running.get("/logs?status=unmatched"))["items"]
    told = words(section("Health"))
    assert set(paths(health)) <= told
    assert set(health["config"]["last_reload"]) <= told
    assert {next(iter(words(row[0]))) for row in rows("Health") if row[1] in ("failing", "degraded", "ok")} == set(
        health["checks"]
    )
    assert set(item) <= words(section("Logs"))


# -- what is asked, and by which command -------------------------------------------------------------------------------

ALERTS = (ROOT / "docs" / "prometheus" / "alerts.yml").read_text()
OWN = {"/", "/ui/logs", "/ui/logs/{id}", "/ui/entries", "/ui/routes/{name}", "/ui/windows"}
"""The dashboard's pages."""


def commands() -> list[str]:
    """Each `relay …` that the table of questions, or an alert, advises."""
    told = section("What do I want to know?") + re.sub(r"\s+", " ", ALERTS)
    return [text for text in re.findall(r"`(relay [^`]+)`", told) if "…" not in text]


@pytest.mark.parametrize("text", sorted(set(commands())))
def test_every_command_that_is_advised_can_be_given(text: str) -> None:
    _, verb, *words = re.sub(r"<[^>]*>|\{\{.*?\}\}", "X", text.replace("\\|", "|")).split()
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None, text
    given = [word.partition("=")[0] for word in words if word.startswith("-")]
    known = {name for parameter in command.params for name in parameter.opts}
    assert set(given) <= known, text


def test_every_page_that_is_advised_is_one() -> None:
    asked = section("What do I want to know?")
    routes = {
        resource.canonical
        for resource in Admin(_Nothing()).application().router.resources()  # type: ignore[arg-type]
    }
    for path in re.findall(r"`(?:curl -s localhost:8081)?(/[^`]*)`", asked):
        page = re.sub(r"<[a-z]+ id>", "{id}", path.partition("?")[0]).replace("<route>", "{name}")
        assert page in routes | OWN, path
        query = path.partition("?")[2]
        filters = {pair.partition("=")[0] for pair in query.split("&") if pair}
        assert filters <= set(logquery.FILTERS), path


class _Nothing:
    """What is answered is listed, not done."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self) -> float:
        return 0.0


# -- advice ----------------------------------------------------------------------------------------------------------


async def test_the_backup_that_the_page_advises_is_whole_and_taken_beside_a_running_relay(tmp_path: Path) -> None:
    [advice] = re.findall(r"`relay (db backup [^`]+)`", section("Backup"))
    args = advice.replace("/var/backups/relay.db", f"{tmp_path}/copy.db").split()
    async with relay_here(tmp_path, "sources: {any: {type: generic, verify: none}}\n") as running:
        await running.post("/in/any")
        done = await asyncio.to_thread(run_process, *args, "--config", tmp_path / "config.yaml")
        assert done.code == 0, done
        assert (await running.post("/in/any"))[0] == 200
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM event").fetchone() == (1,)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_every_link_of_the_page_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors
