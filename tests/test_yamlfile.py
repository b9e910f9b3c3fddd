"""YAML without surprises, places, and `${…}`."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from relay import yamlfile
from relay.fields import Unresolved
from relay.yamlfile import Document, NotYaml


def read(text: str | bytes, **environ: str) -> Document:
    return yamlfile.read(text.encode() if isinstance(text, str) else text, environ)


def read_without_secrets(text: str, **environ: str) -> Document:
    return yamlfile.read(text.encode(), environ, no_secrets=True)


def value(text: str, **environ: str) -> Any:
    document = read(text, **environ)
    assert document.faults == []
    return document.value


def faults(text: str, **environ: str) -> list[str]:
    return [f"{fault.line}:{fault.col}: {fault.message}" for fault in read(text, **environ).faults]


def refusal(text: str | bytes) -> str:
    with pytest.raises(NotYaml) as caught:
        read(text)
    fault = caught.value.fault
    return f"{fault.line}:{fault.col}: {fault.message}"


TWISTED = (
    "no yes on off y n NO 1:30 190:20:30 0123 -0123 00 1_000 0b11 2026-11-23 2026-11-23T10:00:00Z 0o8 0xg 1e e5 + . "
    "nULL tRUE = 0017.5 +.infx 1.2.3"
)


@pytest.mark.parametrize("text", TWISTED.split())
def test_what_older_yaml_would_twist_is_a_string(text: str) -> None:
    assert value(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-19", -19),
        ("+12", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-12e03", -12000.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ('"5"', "5"),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("!!bool 'true'", True),
        ("!!null ''", None),
        ("! 5", "5"),
        ("|\n  5\n", "5\n"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, meaning: object) -> None:
    found = value(f"a: {text}")["a"]
    assert found == meaning
    assert type(found) is type(meaning)


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(value("a: .nan")["a"])


NO_TAG = "this tag is not supported (a value that begins with ! must be quoted)"
NO_ANCHOR = "this alias has no anchor before it (a value that begins with * must be quoted)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system x", f"1:4: {NO_TAG}"),
        ("a: !mine x", f"1:4: {NO_TAG}"),
        ("a: !!set {x}", f"1:4: {NO_TAG}"),
        ("a: !!binary aGk=", f"1:4: {NO_TAG}"),
        ("a: !!int x", "1:4: this is not what its tag !!int says"),
        ("a: !!int true", "1:4: this is not what its tag !!int says"),
        ("a: 1\nb: 2\na: 3", "3:1: duplicate key (the first is in line 1)"),
        ('a: 1\n"a": 3', "2:1: duplicate key (the first is in line 1)"),
        ("{a: 1, a: 3}", "1:8: duplicate key (the first is in line 1)"),
        ("x: &x {a: 1}\ny: {<<: *x}", "2:5: merge keys (<<) are not supported"),
        ("5: x", '1:1: a key must be a string (quote it: "5")'),
        ("true: x", '1:1: a key must be a string (quote it: "true")'),
        ("[a]: x", "1:1: a key cannot be a list or a mapping"),
        ("? {a: b}\n: x", "1:3: a key cannot be a list or a mapping"),
        ("a: *b", f"1:4: {NO_ANCHOR}"),
        ("a: &r [*r]", "1:8: this alias contains itself"),
        ("a: &r {b: {c: *r}}", "1:15: this alias contains itself"),
    ],
)
def test_a_mistake_in_the_structure_names_its_place(text: str, message: str) -> None:
    assert faults(text) == [message]


SECRET = "Sup3rS3cret"


@pytest.mark.parametrize("loader", [yamlfile._Loader, yaml.SafeLoader])
@pytest.mark.parametrize(
    ("text", "must"),
    [
        (f"admin: {{token: *{SECRET} }}", "a value that begins with * must be quoted"),
        (f"token: *{SECRET}$7", "a value that begins with * must be quoted"),
        (f"token: &{SECRET}$7", "a value that begins with & must be quoted"),
        (f"token: &{SECRET}", "a value that begins with & must be quoted"),
        (f"token: !{SECRET}", "a value that begins with ! must be quoted"),
        (f"token: !!{SECRET}", "a value that begins with ! must be quoted"),
        (f"token: !{SECRET} [7]", "a value that begins with ! must be quoted"),
        (f"token: !{SECRET}!7", "a value that begins with ! must be quoted"),
        (f"token: !<{SECRET}", "a value that begins with ! must be quoted"),
        (f"token: !!int {SECRET}", "this is not what its tag !!int says"),
        (f"a: &{SECRET} [*{SECRET}]", "this alias contains itself"),
        (f"a: &{SECRET} 5\n*{SECRET} : x", "a key must be a string (quote it)"),
        (f"&{SECRET} 5: x", "a key must be a string (quote it)"),
        (f"{{5, {SECRET}}}", 'a key must be a string (quote it: "5")'),
    ],
)
def test_a_secret_that_was_not_quoted_is_not_shown(
    text: str, must: str, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yamlfile, "_Loader", loader)
    try:
        said = faults(text)
    except NotYaml as error:
        said = [error.fault.message]
    assert must in "\n".join(said)
    assert SECRET not in "\n".join(said)


def test_a_quoted_merge_key_is_a_key() -> None:
    assert value('"<<": 1') == {"<<": 1}


def test_all_mistakes_in_the_structure_are_found() -> None:
    assert [text.partition(" ")[0] for text in faults("a: 1\na: 2\nb: !x y\n<<: {}\nc: ${A}\nd: ${B}")] == [
        "2:1:",
        "3:4:",
        "4:1:",
        "5:4:",
        "6:4:",
    ]


def test_of_duplicates_the_first_one_stays() -> None:
    assert read("a: 1\na: 2").value == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "1:1: the file is empty (an empty config is {})"),
        (b"# nothing yet\n", "1:1: the file is empty (an empty config is {})"),
        (b"a: \xff", "1:4: the file is not UTF-8"),
        ("ä: 1\nb: ".encode() + b"\xc3", "2:4: the file is not UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: the file is not UTF-8"),
        (b"a: \x00", "1:4: the character U+0000 is not allowed in YAML"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second document begins here: one file holds one"),
        (b"%YAML 1.1\n---\na: 1\n", "1:1: expected YAML 1.2"),
        (b"a: " + b"[" * 60, "1:53: nested more than 50 levels deep"),
        (b"#" * (1 << 20) + b"\n", "1:1: the file is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_config_is_refused_with_its_place(text: bytes, message: str) -> None:
    assert refusal(text) == message


def test_a_syntax_error_names_its_place() -> None:
    assert refusal("a: 1\nb: [1, 2\n").startswith("3:1: not YAML: ")
    assert refusal("a:\n\tb: 1").endswith("(a tab cannot indent: use spaces)")


def test_an_unquoted_reference_in_braces_is_explained() -> None:
    assert refusal("a: {token: ${TOKEN}}").endswith('(inside { } and [ ] a value with ${…} needs quotes: "${NAME}")')


def test_a_byte_order_mark_is_let_pass() -> None:
    assert read(b"\xef\xbb\xbfa: 1").value == {"a": 1}


def test_anchors_may_be_repeated_and_redefined() -> None:
    assert value("a: &x [1]\nb: *x\nc: &x 5\nd: *x") == {"a": [1], "b": [1], "c": 5, "d": 5}


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a: &s3cret of two words", [(1, 4, ("a",))]),
        ("a:\n- b: &s3cret 5\n- &s3cret\n  c: d", [(2, 6, ("a", 0, "b"))]),
        ("a: &one 1\nb: &two 2\nc: *one", [(2, 4, ("b",))]),
        ("a: &same 1\nb: &same 2", [(1, 4, ("a",)), (2, 4, ("b",))]),
        ("a: &same 1\nb: &same [2]\nc: *same", [(1, 4, ("a",))]),
        ("a: &one 1\nb: *one", []),
        ("a: &one '1'\nb: &two {c: 1}", []),
    ],
)
def test_an_anchor_that_may_be_part_of_a_value_is_pointed_at(text: str, places: list[tuple[int, int, Any]]) -> None:
    document = read(text)
    assert document.faults == []
    assert [(doubt.line, doubt.col, doubt.path) for doubt in document.doubts] == places
    assert {doubt.message for doubt in document.doubts} <= {
        "this anchor is not used, and is no part of the value (a value that begins with & must be quoted)"
    }


def laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 [" + ", ".join(["x"] * width) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * width) + "]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [laughs(12, 9), laughs(100, 2), "[" * 500_000, "{a: " * 200_000, "[\n" * 400_000, "- " * 500_000, "? " * 300_000],
    ids=["billion laughs", "doubling", "lists", "mappings", "lines", "dashes", "questions"],
)
def test_a_bomb_is_refused_before_it_expands(text: str) -> None:
    began = time.process_time()
    with pytest.raises(NotYaml):
        read(text)
    assert time.process_time() - began < 0.1


def test_aliases_may_expand_to_ten_thousand_nodes() -> None:
    def aliases(count: int) -> str:
        return "a: &a [" + ", ".join(["x"] * 99) + "]\nb: [" + ", ".join(["*a"] * count) + "]"

    assert len(value(aliases(100))["b"]) == 100
    assert refusal(aliases(101)).endswith("the aliases expand to more than 10,000 nodes")


def test_a_large_file_without_aliases_is_no_bomb() -> None:
    assert len(value("\n".join(f"- {{name: r{n}, on: no}}" for n in range(20_000)))) == 20_000


def test_marks_tell_where_keys_and_values_stand() -> None:
    marks = read("# c\na:\n  - b: 1\n    c:   [x, y]\n").marks
    assert marks.key(("a",)) == (2, 1)
    assert marks.value(("a",)) == (3, 3)
    assert marks.key(("a", 0)) == (3, 5)
    assert marks.key(("a", 0, "c")) == (4, 5)
    assert marks.value(("a", 0, "c")) == (4, 10)
    assert marks.value(("a", 0, "c", 1)) == (4, 14)


def test_a_path_that_leaves_the_document_stands_where_it_leaves_it() -> None:
    marks = read("a:\n  b: 1\n").marks
    assert marks.existing(("a", "b", 0, "x")) == ("a", "b")
    assert marks.value(("a", "b", 0)) == (2, 6)
    assert marks.key(("a", "nothing")) == (1, 1)


# --- ${…} -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("${A}", "one"),
        ("x${A}y${B}z", "xoney2z"),
        ("${A:-other}", "one"),
        ("${NOT:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${NOT:-}", ""),
        ("${NOT:-a:-b$c}", "a:-b$c"),
        ("$${A}", "${A}"),
        ("$${A} ${A}", "${A} one"),
        ("$A $ {A} $$ {", "$A $ {A} $$ {"),
        ("${B}", "2"),
        ("${TRICK}", "a: [b]\nc: d # e"),
        ("${NESTED}", "${A}"),
    ],
)
def test_a_reference_becomes_a_string_wherever_it_stands(text: str, meaning: str) -> None:
    environ = {"A": "one", "B": "2", "EMPTY": "", "TRICK": "a: [b]\nc: d # e", "NESTED": "${A}"}
    assert value(f"k: '{text}'", **environ) == {"k": meaning}


def test_keys_are_not_worked_out() -> None:
    assert value('"${A}": 1', A="x") == {"${A}": 1}


def test_plain_quoted_and_block_scalars_are_all_worked_out() -> None:
    assert value("a: ${A}\nb: '${A}'\nc: |\n  ${A}\n", A="1") == {"a": "1", "b": "1", "c": "1\n"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NOT}", "1:4: the environment variable NOT is not set"),
        ("${EMPTY}", "1:4: the environment variable EMPTY is empty"),
        ("${1A}", "1:4: '${1A}' is not ${NAME}, "),
        ("${A-x}", "1:4: '${A-x}' is not ${NAME}, "),
        ("${}", "1:4: '${}' is not ${NAME}, "),
        ("${file:}", "1:4: '${file:}' is not ${NAME}, "),
        ("${vault:x}", "1:4: '${vault:x}' is not ${NAME}, "),
        ("${credential:../x}", "1:4: '${credential:../x}' is not ${NAME}, "),
        ("${credential:..}", "1:4: '${credential:..}' is not ${NAME}, "),
        ("${A", "1:4: '${A' is not closed by '}'"),
        ("${NOT:-${A}}", "1:4: '${NOT:-${A}' is not ${NAME}, "),
        ("${file:/nowhere/at/all}", "1:4: ${file:/nowhere/at/all}: cannot read /nowhere/at/all: No such file or dir"),
        ("${credential:x}", "1:4: ${credential:x}: $CREDENTIALS_DIRECTORY is not set"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named_with_its_place(text: str, message: str) -> None:
    [found] = faults(f"a: '{text}'", A="1", EMPTY="")
    assert found.startswith(message)


def test_all_references_that_lead_nowhere_are_named() -> None:
    assert len(faults("a: ${X}-${Y}\nb: [ '${Z}' ]")) == 3


def test_what_did_not_work_out_is_not_judged_any_further() -> None:
    assert isinstance(read("a: ${X}").value["a"], Unresolved)


def test_a_file_gives_its_text_without_the_newline_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("two\nlines\r\n\n")
    assert value(f"a: x-${{file:{tmp_path}/s}}") == {"a": "x-two\nlines"}


def test_a_credential_is_a_file_in_systemds_directory(tmp_path: Path) -> None:
    (tmp_path / "token.txt").write_text("abc\n")
    assert value("a: ${credential:token.txt}", CREDENTIALS_DIRECTORY=str(tmp_path)) == {"a": "abc"}


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff", b"x" * ((1 << 20) + 1)])
def test_a_file_that_is_no_secret_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    [found] = faults(f"a: ${{file:{tmp_path}/s}}")
    assert f"{tmp_path}/s is" in found


def test_a_pipe_or_a_directory_is_no_secret_and_hangs_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        [found] = faults(f"a: ${{file:{path}}}")
        assert found.endswith(f"{path} is not a regular file")


def test_what_came_from_files_is_remembered_as_secret(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("hidden\n")
    document = read(f"a: ${{A}}\nb: [x, 'y-${{file:{tmp_path}/s}}']", A="open")
    assert document.secrets == {"hidden"}
    assert document.secret_paths == {("b", 1)}


def test_an_alias_carries_its_secret_along_and_complains_once(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("hidden")
    document = read(f"a: &a ['${{file:{tmp_path}/s}}', '${{NO}}']\nb: *a")
    assert document.secret_paths == {("a", 0), ("b", 0)}
    assert len(document.faults) == 1


def test_without_secrets_nothing_is_looked_up() -> None:
    document = read_without_secrets("a: ${X}\nb: ${file:/nowhere}\nc: ${Y:-z}\nd: $${X}\ne: plain", X="seen")
    assert document.faults == []
    assert [type(document.value[key]) for key in "abcde"] == [Unresolved, Unresolved, Unresolved, str, str]
    assert document.value["a"] == "${X}"
    assert document.value["d"] == "${X}"


def test_without_secrets_a_malformed_reference_is_still_one() -> None:
    assert len(read_without_secrets("a: ${1}\nb: ${A").faults) == 2


@given(st.text())
@example("&a [*a]")
@example("a: {b: ${")
@example("? ? ?")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        yamlfile.read(text.encode("utf-8", "surrogatepass"), {})
    except NotYaml as error:
        assert error.fault.line >= 1 <= error.fault.col  # noqa: PT017  # both are outcomes that are meant


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"# \n,?${}~<0"), max_size=60))
def test_any_punctuation_is_read_or_refused(text: str) -> None:
    try:
        document = yamlfile.read(text.encode(), {})
    except NotYaml:
        return
    for fault in document.faults:
        assert 1 <= fault.line <= text.count("\n") + 1
