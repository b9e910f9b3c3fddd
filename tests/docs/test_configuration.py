"""`docs/configuration.md` knows every key of the schema, and no other; the examples of all pages are valid."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from relay import authschema, payloadschema, preset, proofschema, retryschema, schema, signschema, wireschema
from relay.config import load
from relay.destination import OWN_HEADERS, TELLING_HEADERS
from relay.event import event_from_json
from relay.fields import Section
from relay.notifier import NotifierConfig
from relay.notifier import types as notifier_types
from relay.payload import PAYLOADS
from relay.routeschema import Alternative, Batch, Debounce
from relay.sandbox import Sandbox
from relay.sandbox.methods import METHODS
from relay.source import DedupKey, SourceConfig, types
from relay.sources import generic

ROOT = Path(__file__).parent.parent.parent
PATH = ROOT / "docs" / "configuration.md"
PAGE = PATH.read_text()

SECTIONS: dict[str, tuple[type[Section], ...]] = {
    "Top level": (schema.Config,),
    "server": (schema.Server,),
    "server.listen": (schema.UnixAddress,),
    "server.egress": (schema.EgressRules,),
    "server.tls": (schema.Tls,),
    "admin": (schema.Admin,),
    "admin.tokens": (schema.AdminToken,),
    "store": (schema.Store,),
    "log": (schema.Log,),
    "defaults": (schema.Defaults,),
    "sources": (SourceConfig,),
    "sources.dedup": (DedupKey,),
    "generic.hmac": (generic.HmacKeys,),
    "basic": (proofschema.BasicAuth,),
    "body_secret": (proofschema.BodySecretKeys,),
    "routes": (schema.Route,),
    "routes.to": (schema.To, preset.Preset),
    "routes.to.auth": (authschema.Basic, authschema.Bearer, authschema.OAuth2),
    "routes.to.tls": (wireschema.ClientTls,),
    "routes.payload": (payloadschema.Template, payloadschema.Jmespath),
    "routes.sign": tuple(signschema.SIGNS.values()),
    "routes.debounce": (Debounce,),
    "routes.batch": (Batch,),
    "routes.retry": (retryschema.Exponential, retryschema.Fixed, retryschema.Schedule, retryschema.NoRetry),
    "notifiers": (NotifierConfig,),
    "Match": (schema.Match,),
}
TYPES = sorted({module.__name__.rpartition(".")[2] for module in types().values()})


def documented(heading: str) -> set[str]:
    """The keys in the first table with a column `key` under a heading."""
    _, found, rest = PAGE.partition(f"\n#{'#' if f'{chr(10)}### {heading}{chr(10)}' not in PAGE else '##'} {heading}\n")
    assert found, f"no heading {heading}"
    part = re.split(r"\n##+ ", rest, maxsplit=1)[0]
    _, _, table = part.partition("| key |")
    return set(re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE))


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_of_a_section_is_in_its_table(heading: str) -> None:
    assert documented(heading) == {key for model in SECTIONS[heading] for key in model.model_fields}


@pytest.mark.parametrize("name", TYPES)
def test_every_key_of_a_source_type_is_in_its_table(name: str) -> None:
    assert documented(name) == set(types()[name].Config.model_fields) - set(SourceConfig.model_fields)


@pytest.mark.parametrize("name", notifier_types())
def test_every_key_of_a_notifier_type_is_in_its_table(name: str) -> None:
    assert documented(name) == set(notifier_types()[name].Config.model_fields) - set(NotifierConfig.model_fields)


def table(heading: str, *columns: str) -> list[list[str]]:
    """The cells of the table with these first columns under a heading of the second level."""
    part = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    _, found, rest = part.partition(f"| {' | '.join(columns)} |")
    assert found, f"no table {columns} under {heading}"
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("name", preset.names())
def test_every_key_of_a_preset_is_in_its_table(name: str) -> None:
    own = {
        key
        for key, info in preset.model(name).model_fields.items()
        if key != "preset" and (key not in schema.To.model_fields or info.is_required())
    }
    assert {key for row in table("Presets", "preset", "key") if name in words(row[0]) for key in words(row[1])} == own


def test_every_preset_is_told_with_its_request_and_a_link_to_its_service() -> None:
    told = {words(row[0])[0]: row for row in table("Presets", "preset", "what happens")}
    assert set(told) == set(preset.names())
    assert all(
        row[1] and words(row[2]) + re.findall("hook", row[2]) and "](https://" in row[3] for row in told.values()
    )


def test_what_may_be_left_out_of_a_hook_is_told_for_each() -> None:
    hooks = {name: preset.model(name) for name in preset.names()}
    bases = {name: kind.base for name, kind in hooks.items() if issubclass(kind, preset.HookPreset)}
    told = {words(row[0])[0]: words(row[1]) for row in table("Presets", "preset", "what may be left out")}
    assert told == {name: [base] if base is not None else [] for name, base in bases.items()}


def test_every_payload_and_every_preset_of_retry_is_told() -> None:
    assert {words(row[0])[0].partition(":")[0].lstrip("{") for row in table("routes", "payload")} == {
        *PAYLOADS,
        "template",
        "jmespath",
    }
    assert {words(row[0])[0] for row in table("routes", "retry")} == set(retryschema.RETRY_PRESETS)


def test_all_that_templates_can_call_is_listed() -> None:
    sandbox = Sandbox()
    listed = {row[0]: set(words(row[1])[0].split()) for row in table("routes", "there is")}
    assert listed == {
        "filters": {name for name in sandbox.filters if "%" not in name},
        "tests": set(sandbox.tests),
        "functions": set(sandbox.globals),
        "methods of texts": set(METHODS[str]),
        "methods of mappings": set(METHODS[dict]),
        "methods of lists": set(METHODS[list]),
    }
    assert METHODS[list] == METHODS[tuple]


def part(heading: str) -> str:
    """What stands under a heading of the third level."""
    return PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]


def test_every_header_that_relay_writes_is_told_with_whether_a_route_may() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|[^|]+\| (yes|no) \|$", part("routes.to"), re.MULTILINE)
    told = {name.lower(): may == "yes" for names, may in rows for name in words(names)}
    never_sent = {"transfer-encoding"}
    assert told == dict.fromkeys(OWN_HEADERS - never_sent, False) | dict.fromkeys(TELLING_HEADERS, True)


def test_the_description_that_is_shown_is_one() -> None:
    [example] = re.findall(r"^```json\n(.*?)^```", part("routes.payload"), re.DOTALL | re.MULTILINE)
    shown = json.loads(example)
    assert list(event_from_json(shown, [], b"").as_json(shown["id"]).items()) == list(shown.items())


def sections(base: type[Section] = Section) -> set[type[Section]]:
    """All that a config can be made of."""
    below = base.__subclasses__()
    return {model for child in below for model in sections(child)} | {child for child in below if child.model_fields}


def test_every_section_of_the_schema_has_a_table() -> None:
    types()
    told = {model for models in SECTIONS.values() for model in models}
    sources = {module.Config for module in types().values()}
    presets = {preset.model(name) for name in preset.names()}
    notifiers = {module.Config for module in notifier_types().values()}
    bases = {kind for model in told | sources | presets | notifiers for kind in model.__mro__}
    # What `any` takes is told with `match`; a form is no key of the config.
    others = {Alternative, payloadschema.Form, *map(type, retryschema.RETRY_PRESETS.values())}
    found = {model for model in sections() if model.__module__.startswith("relay.") and model.__name__[0] != "_"}
    assert found - bases - told - sources - presets - notifiers - others == set()


def examples() -> list[tuple[str, str]]:
    """Each YAML block of the pages, with its place; but for those whose first line names another kind of file."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        (f"{page.relative_to(ROOT)}:{page.read_text()[: block.start()].count(chr(10)) + 1}", block[1])
        for page in pages
        for block in re.finditer(r"^```ya?ml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        if not block[1].startswith(("# compose.yaml\n", "# kubernetes.yaml\n"))
    ]


@pytest.mark.parametrize(("place", "example"), examples(), ids=[place for place, _ in examples()])
def test_every_example_is_a_valid_config(place: str, example: str) -> None:
    loaded = load(example.encode(), name=place, environ={}, no_secrets=True)
    assert loaded.warnings == ()


def test_every_page_with_sources_or_routes_has_examples() -> None:
    shown = {place.rpartition(":")[0] for place, _ in examples()}
    senders = {f"docs/senders/{page.name}" for page in (ROOT / "docs" / "senders").glob("*.md")}
    assert shown >= {"README.md", "docs/configuration.md", *senders}


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "docs"])
def test_every_link_leads_to_a_file_of_the_repository(page: str) -> None:
    found = ROOT / page
    for path in sorted(found.rglob("*.md")) if found.is_dir() else [found]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            target = (path.parent / link).resolve()
            assert link.startswith("https://") or (target.is_relative_to(ROOT) and target.exists()), f"{path}: {link}"


def test_every_link_into_the_page_leads_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]*)\)", PAGE)
    for path in (ROOT / "docs").rglob("*.md"):
        links += re.findall(r"\]\((?:\.\./)?configuration\.md#([^)]*)\)", path.read_text())
    assert set(links) - anchors == set()


def test_every_word_for_what_is_special_is_explained() -> None:
    for word in ("${NAME:-default}", "${credential:NAME}", "$${", "!?*"):
        assert word in PAGE
