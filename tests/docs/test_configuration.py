"""`docs/configuration.md` knows every key of the schema, and no other; the examples of all pages are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay import authschema, proofschema, retryschema, schema, signschema
from relay.config import load
from relay.fields import Section
from relay.source import SourceConfig, types
from relay.sources import generic

ROOT = Path(__file__).parent.parent.parent
PATH = ROOT / "docs" / "configuration.md"
PAGE = PATH.read_text()

SECTIONS: dict[str, tuple[type[Section], ...]] = {
    "Top level": (schema.Config,),
    "server": (schema.Server,),
    "server.listen": (schema.UnixAddress,),
    "server.tls": (schema.Tls,),
    "admin": (schema.Admin,),
    "admin.tokens": (schema.AdminToken,),
    "store": (schema.Store,),
    "log": (schema.Log,),
    "defaults": (schema.Defaults,),
    "sources": (SourceConfig,),
    "generic.hmac": (generic.HmacKeys,),
    "basic": (proofschema.BasicAuth,),
    "body_secret": (proofschema.BodySecretKeys,),
    "routes": (schema.Route,),
    "routes.to": (schema.To,),
    "routes.to.auth": (authschema.Basic, authschema.Bearer, authschema.OAuth2),
    "routes.sign": tuple(signschema.SIGNS.values()),
    "routes.retry": (retryschema.Exponential, retryschema.Fixed, retryschema.Schedule, retryschema.NoRetry),
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


def examples() -> list[tuple[str, str]]:
    """Each YAML block of the pages, with its place."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        (f"{page.relative_to(ROOT)}:{page.read_text()[: block.start()].count(chr(10)) + 1}", block[1])
        for page in pages
        for block in re.finditer(r"^```ya?ml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize(("place", "example"), examples(), ids=[place for place, _ in examples()])
def test_every_example_is_a_valid_config(place: str, example: str) -> None:
    loaded = load(example.encode(), name=place, environ={}, no_secrets=True)
    assert loaded.warnings == ()


def test_every_page_with_sources_or_routes_has_examples() -> None:
    shown = {place.rpartition(":")[0] for place, _ in examples()}
    senders = {f"docs/senders/{page.name}" for page in (ROOT / "docs" / "senders").glob("*.md")}
    assert shown >= {"README.md", "docs/configuration.md", *senders}


def test_no_page_for_users_tells_them_to_set_a_key_that_is_not_supported_yet() -> None:
    models: list[type[Section]] = [SourceConfig, *(model for section in SECTIONS.values() for model in section)]
    later = {key for model in models for key in model.later} - {key for model in models for key in model.model_fields}
    assert {"dedup", "notify", "expect_every"} <= later
    for path in (ROOT / "README.md", PATH, *(ROOT / "docs" / "senders").glob("*.md")):
        assert later & set(re.findall(r"`(\w+)[`:]", path.read_text())) == set(), path.name


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "docs"])
def test_every_link_leads_to_a_file_of_the_repository(page: str) -> None:
    found = ROOT / page
    for path in sorted(found.rglob("*.md")) if found.is_dir() else [found]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            target = (path.parent / link).resolve()
            assert link.startswith("https://") or (target.is_relative_to(ROOT) and target.exists()), f"{path}: {link}"


def test_every_word_for_what_is_special_is_explained() -> None:
    for word in ("not supported yet", "${NAME:-default}", "${credential:NAME}", "$${", "!?*"):
        assert word in PAGE
