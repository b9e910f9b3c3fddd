"""The config's JSON Schema: says what docs/configuration.md says, takes every good config, and knows a wrong shape.

`python -m tests.docs.test_schema` writes anew what is derived: relay/configtexts.json, docs/config.schema.json and
docs/reference/configuration.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, meta

from relay import notifier, preset, source
from relay.configschema import config_schema, label
from relay.fields import Section
from relay.routeschema import Alternative
from relay.yamlfile import NotYaml, read
from tests.cli.running import run
from tests.docs.reference import reference
from tests.docs.test_configuration import PAGE, SECTIONS, examples, words

ROOT = Path(__file__).parent.parent.parent
TEXTS = ROOT / "relay" / "configtexts.json"
REFERENCE = ROOT / "docs" / "reference" / "configuration.md"
COMMITTED = ROOT / "docs" / "config.schema.json"
CONFIGS = ROOT / "tests" / "configs"


# --- what docs/configuration.md says of each key ----------------------------------------------------------------------


def plain(cell: str) -> str:
    """A cell of a table without its Markdown."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace(r"\|", "|")
    return re.sub(r"`([^`]*)`|\*+", lambda found: found[1] or "", text).strip()


def told(columns: dict[str, str]) -> str:
    meaning = plain(columns.get("meaning") or columns.get("compared with") or "")
    default = plain(columns.get("default", ""))
    kind = plain(columns["kind"]) + (f", default {default}" if default and default != "none" else "")
    return f"{meaning[:1].upper()}{meaning[1:]} ({kind})".strip() if meaning else f"{kind[:1].upper()}{kind[1:]}"


def tables(heading: str) -> list[dict[str, str]]:
    """The rows of the tables with a column `key` under a heading, by the names of their columns."""
    [part] = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    found, header = [], list[str]()
    for line in part.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] if line[:1] == "|" else []
        if not cells:
            header = []
        elif not header:
            header = cells
        elif "key" in header and not set(line) <= set("|-"):
            found.append(dict(zip(header, cells, strict=True)))
    return found


def texts() -> dict[str, dict[str, str]]:
    """By section and key."""
    headings: dict[str, tuple[type[Section], ...]] = {**SECTIONS, "Match": (*SECTIONS["Match"], Alternative)}
    headings |= {module.__name__.rpartition(".")[2]: (module.Config,) for module in source.types().values()}
    headings |= {name: (module.Config,) for name, module in notifier.types().items()}
    found: dict[str, dict[str, str]] = {}
    for heading, models in headings.items():
        for row in tables(heading):
            for model in models:
                for key in words(row["key"]):
                    if key in model.model_fields:
                        found.setdefault(label(model), {})[key] = told(row)
    for row in tables("Presets"):
        for name in words(row["preset"]):
            for key in words(row["key"]):
                found.setdefault(label(preset.model(name)), {})[key] = told(row)
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def test_the_texts_are_those_of_the_page() -> None:
    assert json.loads(TEXTS.read_text()) == texts()


def test_the_committed_schema_is_the_verbs() -> None:
    ended = run("schema")
    assert ended.code == 0
    assert ended.out == COMMITTED.read_text()


def test_the_reference_is_that_of_the_models() -> None:
    assert REFERENCE.read_text() == reference()


def test_the_reference_has_every_key_of_every_section() -> None:
    schema = config_schema()
    told = re.findall(r"^\| `(\w+)` \|", REFERENCE.read_text(), re.MULTILINE)
    keys = [key for form in (schema, *schema["$defs"].values()) for key in form.get("properties", {})]
    assert sorted(told) == sorted(keys)


def test_the_example_points_to_it() -> None:
    first = (ROOT / "config.example.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={COMMITTED.relative_to(ROOT)}"


def test_every_key_has_a_description() -> None:
    schema = config_schema()
    for name, section in {**schema["$defs"], "Config": schema}.items():
        for key, form in section.get("properties", {}).items():
            assert form.get("description"), f"{name}.{key}"


# --- what it takes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = config_schema()
    assert meta.is_valid(schema)
    return Draft202012Validator(schema)


def document(data: bytes) -> Any:
    """As an editor sees it: references are texts."""
    return json.loads(json.dumps(read(data, {}, no_secrets=True).value))


def mistakes(validator: Any, data: bytes) -> list[str]:
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(document(data))]


@pytest.mark.parametrize("path", sorted((CONFIGS / "good").glob("*.yaml")), ids=lambda path: path.name)
def test_it_takes_every_good_config(validator: Any, path: Path) -> None:
    assert mistakes(validator, path.read_bytes()) == []


def test_it_takes_the_example(validator: Any) -> None:
    assert mistakes(validator, (ROOT / "config.example.yaml").read_bytes()) == []


@pytest.mark.parametrize(("place", "example"), examples(), ids=[place for place, _ in examples()])
def test_it_takes_every_example_of_the_pages(validator: Any, place: str, example: str) -> None:
    assert mistakes(validator, example.encode()) == []


BY_MEANING = {
    "addresses-with-a-dot.yaml": "what a host name comes to",
    "admin-on-the-public-address.yaml": "two addresses that are one",
    "admin-on-the-same-socket.yaml": "two addresses that are one",
    "admin-without-token.yaml": "who can reach an address",
    "store-postgresql.yaml": "parameters of libpq's",
    "duplicate-key.yaml": "YAML: a parser takes the last one, editors mark it themselves",
    "headers-of-auth.yaml": "headers that auth writes",
    "headers-of-proofs.yaml": "headers that carry proofs of a source",
    "headers-of-signatures.yaml": "headers that signatures write",
    "headers-twice.yaml": "names that differ in case only",
    "hosts-with-ports.yaml": "what a host name may be",
    "references.yaml": "what is behind a reference",
    "route-sources.yaml": "names of sources",
    "secrets-are-not-shown.yaml": "what is behind a reference",
    "sign-over-other-headers.yaml": "headers that auth writes",
    "sign-prismic-with-presets.yaml": "what a payload comes to",
    "sign-prismic-without-object.yaml": "what a payload comes to",
    "sign-twice.yaml": "two schemes that write one header",
    "source-paths.yaml": "paths of other sources",
    "source-paths-with-one-address.yaml": "two addresses that are one",
    "source-with-proof-and-verify-none.yaml": "keys that exclude each other",
    "source-without-proof.yaml": "which keys are proofs",
    "tag.yaml": "YAML: tags, which editors mark themselves",
    "two-proofs-of-one-header.yaml": "proofs that exclude each other",
    "webhook-signature.yaml": "headers that relay writes",
}
"""Bad configs that have the right shape, and what only `relay check` knows of each."""


def bad() -> list[Path]:
    return sorted((CONFIGS / "bad").glob("*.yaml"))


@pytest.mark.parametrize("path", bad(), ids=lambda path: path.name)
def test_it_knows_a_wrong_shape(validator: Any, path: Path) -> None:
    try:
        found = mistakes(validator, path.read_bytes())
    except NotYaml:
        return  # what is not YAML at all no schema needs to refuse
    assert bool(found) is (path.name not in BY_MEANING), found


def test_what_is_by_meaning_is_there() -> None:
    assert BY_MEANING.keys() <= {path.name for path in bad()}


def write() -> None:
    TEXTS.write_text(json.dumps(texts(), indent=1, ensure_ascii=False) + "\n")
    COMMITTED.write_text(json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n")
    REFERENCE.write_text(reference())


if __name__ == "__main__":
    write()
