"""`docs/configuration.md` knows every key of the schema, and no other; its examples are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay import proof, retryschema, routeschema, schema
from relay.config import load
from relay.fields import Section
from relay.source import SourceConfig, types
from relay.sources import generic

PAGE = (Path(__file__).parent.parent.parent / "docs" / "configuration.md").read_text()

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
    "basic": (proof.BasicAuth,),
    "body_secret": (proof.BodySecretKeys,),
    "routes": (schema.Route,),
    "routes.to": (schema.To,),
    "routes.to.auth": (routeschema.Basic, routeschema.Bearer),
    "routes.sign": (routeschema.StandardSign,),
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


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_every_example_is_a_valid_config(example: str) -> None:
    loaded = load(example.encode(), environ={}, no_secrets=True)
    assert loaded.warnings == ()


def test_every_word_for_what_is_special_is_explained() -> None:
    for word in ("not supported yet", "${NAME:-default}", "${credential:NAME}", "$${", "!?*"):
        assert word in PAGE
