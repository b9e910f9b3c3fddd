"""Every command of README and the pages is run, against a relay, a sink and samples as they are; names in text exist.

A page's commands are typed into one terminal (`terminal.py`), in their order. A page that has its reader write a
`config.yaml` (a YAML block that begins with `# config.yaml`) starts with nothing, one that shows a new module of relay
with a copy of the checkout in which it is written; for the others relay runs with `stage.yaml`, and each section finds
it as it was, with events of which something waits, failed and arrived.

- A command succeeds, unless a comment behind it says otherwise: `# exit code 1`.
- Ids in commands are those of something that the verb can be done to.
- A `text` block that comes next, in the section of the commands, is what they print, here or in another terminal; `…`
  is anything.
- What runs until Ctrl-C goes on in another terminal, while the next commands are typed.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from relay.cli import VERBS
from relay.cli import relay as cli
from tests.docs import terminal
from tests.docs.pages import ROOT, SHELL, Block, blocks, commands, pages, spans
from tests.docs.terminal import Machine, Terminal
from tests.harness import PATIENCE

STAGE = Path(__file__).with_name("stage.yaml").read_text()
TYPED = [page for page in pages() if any(block.language in SHELL for block in blocks(page))]
FAILS_ON_STAGE = {"relay test --all": 1, "relay test search --json | jq '.[0].response.body'": 1}
"""Two of its destinations take nothing."""
ID = re.compile(r"\b(evt|dlv)_[0-9A-Z]{26}\b")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if terminal.missing():
        pytest.skip(terminal.missing())
    with terminal.machine(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.mark.typed
@pytest.mark.parametrize("page", TYPED)
def test_every_command_of_a_page_works(page: str, machine: Machine) -> None:
    files = [block.file for block in blocks(page) if block.file is not None]
    extends = any(file.startswith("relay/") for file in files)
    with terminal.terminal(machine, copied=extends) as typing:
        session = Session(typing, staged=not extends and "config.yaml" not in files)
        for block in blocks(page):
            session.take(block)
        assert not session.failures, "\n".join(session.failures)


def test_a_command_that_does_not_work_is_noticed(machine: Machine) -> None:
    with terminal.terminal(machine) as typing:
        session = Session(typing, staged=False)
        text = "relay version\nrelay logs --since yesterday\nrelay show nothing # exit code 2\nfalse # exit code 78\n"
        session.take(Block("page.md", 7, "", "sh", text, ""))
        assert [failure.partition("\n")[0] for failure in session.failures] == [
            "page.md:8: relay logs --since yesterday",
            "page.md:10: false # exit code 78",
        ]


WRONG = """\
apt-get install ./relay_*.deb
dpkg-deb -x ./relay_*.deb relay-new
apt-get --bogus install ./dist/relay_*.deb
pip tool install dist/relay-*.whl
pip install --bogus dist/relay-*.whl
uv install dist/relay-*.whl
docker build --tags relay .
docker run --reed-only relay
docker exec relay rely logs
systemctl --bogus reload relay
systemctl reload rely
make --bogus deb
make bogus
curl -s http://localhost:8081/nowhere
curl -s https://api.contentstack.io/nowhere
relay send nowhere | cat
"""


def test_stand_ins_refuse_what_they_do_not_know(machine: Machine) -> None:
    with terminal.terminal(machine) as typing:
        session = Session(typing, staged=True)
        session.take(Block("page.md", 1, "", "sh", WRONG, ""))
        noticed = [failure.partition("\n")[0].partition(": ")[2] for failure in session.failures]
        assert noticed == WRONG.splitlines()


class Session:
    """A page, read and followed from its beginning to its end."""

    def __init__(self, typing: Terminal, staged: bool) -> None:
        self._terminal = typing
        self._staged = staged
        self._section = ""
        self._changed = True
        self._ids: dict[str, str] = {}
        self._said = ""
        self._typed = False
        self.failures: list[str] = []

    def take(self, block: Block) -> None:
        if block.not_run:
            return
        if block.file is not None:
            path = self._terminal.scratch / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        if block.language == "text" and self._typed and block.section == self._section:
            self._expect(block)
        self._typed = block.language in SHELL
        if self._typed:
            self._said = ""
            if self._staged and block.section != self._section and self._changed:
                self._set_the_stage()
                self._changed = False
            self._section = block.section
            for line, command in commands(block.text):
                self._type(f"{block.page}:{block.line + line}", command)

    def _type(self, place: str, command: str) -> None:
        expected = re.search(r"# exit code (\d+)$", command)
        wanted = int(expected[1]) if expected else FAILS_ON_STAGE.get(command, 0)
        ready = self._with_ids(command)
        self._changed |= not READING.issuperset(re.findall(r"\brelay (\w+)", command)) or "config.yaml" in command
        kind = next((kind for kind, form in LONG.items() if re.search(form, command)), None)
        if kind is not None:
            self._terminal.start(ready, kind, READY[kind])
            return
        code, said = self._terminal.run(ready)
        self._said += said
        if code != wanted:
            self.failures.append(f"{place}: {command}\nexit code {code}: {said}")

    def _expect(self, block: Block) -> None:
        for number, line in enumerate(block.text.splitlines()):
            parts = (r"\s+".join(map(re.escape, part.split())) for part in line.split("…"))
            form = re.compile(r".*".join(parts))
            deadline = time.monotonic() + PATIENCE
            while not form.search(printed := self._said + self._terminal.printed()):
                if time.monotonic() > deadline:
                    self.failures.append(
                        f"{block.page}:{block.line + number}: nothing prints {line}, but\n{printed[-3000:]}"
                    )
                    break
                time.sleep(0.01)

    def _with_ids(self, command: str) -> str:
        verb = next((word for word in ("retry", "cancel", "windows", "forget") if f"relay {word}" in command), "")
        return ID.sub(lambda found: self._ids.get(f"{verb} {found[1]}", self._ids.get(found[1], found[0])), command)

    def _set_the_stage(self) -> None:
        """As each section expects it: a relay with stage.yaml, and two events of which all has become that can."""
        here = self._terminal
        (here.scratch / "config.yaml").write_text(STAGE)
        for name in ("old.yaml", "new.yaml", "mine.yaml"):
            (here.scratch / name).write_text(STAGE)
        here.run("mkdir -p /etc/relay && cp config.yaml /etc/relay/")
        sample = json.loads((ROOT / "relay/sources/samples/strapi/entry.publish.json").read_text())
        for name in ("event.json", "body.json"):
            (here.scratch / name).write_text(sample["body"])
        if sorted(one.kind for one in here.running) != ["serve", "sink", "sink of refusals"]:
            here.end()
            here.start("relay sink --listen 127.0.0.1:9099", "sink", READY["sink"])
            here.start("relay sink --listen 127.0.0.1:9098 --fail 422:999999", "sink of refusals", READY["sink"])
            here.start("relay serve", "serve", READY["serve"])
        else:
            self._told("relay reload")
        self._told("relay resume --all")
        article, person = (self._told(f"relay send {source} --json")["answer"]["id"] for source in ("blog", "shop"))
        deadline = time.monotonic() + PATIENCE
        while True:
            items = self._told(f"relay logs --event-id {article},{person} --json")["items"]
            state = {(item["event_id"], item["route"]): item for item in items}
            ended = {key: item["status"] for key, item in state.items() if item["route"] in ("audit", "crm")}
            if len(state) == 6 and sorted(ended.values()) == ["delivered", "delivered", "failed", "failed"]:
                break
            assert time.monotonic() < deadline, items
        by_route = {route: item["id"] for (event, route), item in state.items() if event == article}
        carrier = state[article, "rebuild-www"]
        self._ids = {
            "evt": article,
            "forget evt": person,
            "dlv": by_route["audit"],
            "retry dlv": by_route["crm"],
            "cancel dlv": by_route["search"],
            "windows dlv": carrier["merged_into"] or carrier["id"],
        }

    def _told(self, command: str) -> Any:
        code, said = self._terminal.run(command)
        assert code == 0, f"{command}\n{said}"
        return json.loads(said) if "--json" in command else None


LONG = {
    "serve": r"^relay serve\b",
    "demo": r"^(relay demo|make run)\b",
    "sink": r"^relay sink\b",
    "follow": r"^relay logs .*(-f|--follow)\b",
}


READING = {
    "check",
    "routes",
    "sources",
    "explain",
    "logs",
    "show",
    "doctor",
    "db",
    "import",
    "schema",
    "export",
    "version",
}
"""Verbs that leave everything as it was."""

READY = {"serve": '"started"', "demo": "demo: running", "sink": "sink: listening", "follow": "dlv_"}
"""What each of them says when it is ready."""


# -- what is not run ---------------------------------------------------------------------------------------------------


def test_few_blocks_are_not_run_and_each_says_which_test_does_it_instead() -> None:
    left_out = [block for page in pages() for block in blocks(page) if block.not_run]
    assert len(left_out) <= 6
    for block in left_out:
        named = re.search(r"\((tests/[\w/]+\.py)::(\w+)\)$", block.not_run)
        assert named is not None, f"{block.place}: no reason and test: {block.not_run}"
        assert f"def {named[2]}(" in (ROOT / named[1]).read_text(), f"{block.place}: {named[0]}"


def test_commands_stand_in_blocks_that_are_run() -> None:
    for page in pages():
        for block in blocks(page):
            if block.language not in SHELL:
                assert not re.search(r"^\$? ?(relay|curl|systemctl|pip) ", block.text, re.MULTILINE), block.place


# -- commands in running text ------------------------------------------------------------------------------------------

PROSE = sorted({text for page in pages() for _, text in spans(page) if text.startswith("relay ")})


@pytest.mark.parametrize("text", PROSE)
def test_every_verb_and_option_in_running_text_exists(text: str) -> None:
    words = shlex.split(re.sub(r"<[^>]*>", "X", text))[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-") and words[0] not in ("…", "VERB"):
        found = command.get_command(click.Context(command), words[0])
        if found is None and command is not cli:
            break
        assert found is not None, f"there is no verb {words[0]}"
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
    assert given <= options | {"--help", "--version"}


def test_the_verbs_of_the_command_line_have_a_section_each() -> None:
    assert set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)) == set(VERBS)


def test_every_target_of_make_in_running_text_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {text.split()[1] for page in pages() for _, text in spans(page) if text.startswith("make ")} <= targets


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block", [b for page in pages() for b in blocks(page) if b.language == "json"], ids=lambda b: b.place
)
def test_every_example_in_json_can_be_read(block: Block) -> None:
    json.loads(block.text)


def test_every_block_says_its_language() -> None:
    known = {*SHELL, "yaml", "json", "text", "js", "python", "ini", "sql"}
    assert [b.place for page in pages() for b in blocks(page) if b.language not in known] == []
