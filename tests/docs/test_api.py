"""`docs/api.md` knows every request of the admin side, with its parameters and answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from relay.web.admin import Admin
from relay.web.operation import JSON, Operation
from relay.web.schemas import COMPONENTS, Schema

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "api.md").read_text()
NO_DESK: Any = None  # nothing is handled here
OPERATIONS = {operation.title: operation for operation, _ in Admin(NO_DESK).table()}
SECTIONS = dict(re.findall(r"^### `([^`]+)`\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))


def rows(section: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:2] == "| "]


def test_every_request_has_its_section_and_every_section_its_request() -> None:
    assert len(OPERATIONS) > 25
    assert set(SECTIONS) == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_section_has_all_parameters_and_all_answers_and_no_others(operation: Operation) -> None:
    table = rows(SECTIONS[operation.title])
    parameters = {row[0].strip("`").removesuffix("` (path)") for row in table if row[0].startswith("`")}
    answers = [status for row in table for status in row[0].split(", ") if status.isdigit()]
    known = (*operation.names, *operation.parameters, *operation.filters)
    assert parameters == {parameter.name for parameter in known}
    assert sorted(map(int, answers)) == sorted({*operation.answers, *operation.refused_with()})


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_section_has_the_keys_of_each_answer(operation: Operation) -> None:
    table = rows(SECTIONS[operation.title])
    for status, answer in operation.answers.items():
        [text] = [row[1] for row in table if row[0] == str(status)]
        told = set(re.findall(r"`(\{[^`]*\}|[A-Z][A-Za-z]+)`", text))
        assert told == (shapes(answer.content[JSON]) if JSON in answer.content else set()), status


def shapes(schema: Schema) -> set[str]:
    """An answer as the page tells it: the name of its schema, or its keys in their order."""
    if "$ref" in schema:
        return {schema["$ref"].rpartition("/")[2]}
    if "oneOf" in schema:
        return set().union(*map(shapes, schema["oneOf"]))
    keys = ", ".join(f'"{key}"' for key in schema.get("properties", ()))
    return {f"{{{keys}}}"} if keys else set()


def test_every_schema_that_the_page_names_exists() -> None:
    assert set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", PAGE)) - {"Allow", "Host"} <= set(COMPONENTS)


def test_every_link_of_the_page_leads_somewhere() -> None:
    for file, anchor in re.findall(r"\]\(([^)#]*)#([^)]*)\)", PAGE):
        text = (DOCS / file).read_text() if file else PAGE
        headings = re.findall(r"^#+ (.*)$", text, re.M)
        assert anchor in {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}, anchor
