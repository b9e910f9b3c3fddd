"""Templates: what they can say, and that none of them can hold up the daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from relay.template import BadTemplate, Template, TemplateFailed
from tests.harness import relay_here, sink

BODY = {
    "releases": {"update": [{"id": "r1"}]},
    "items": ["x", "y"],
    "title": "A & <b>",
    "n": 3,
    "list": list(range(1000)),
    "big": "x" * (1 << 20),
    "posts": [{"id": 1, "tag": "a"}, {"id": 2, "tag": "b"}, {"id": 3, "tag": "a"}],
}
EVENT = {"id": "evt_1", "action": "publish", "locale": None, "model": "post"}
NAMES: dict[str, Any] = {"event": EVENT, "events": [EVENT], "body": BODY, "headers": {"x-a": "1"}, "route": "www"}


def render(text: str) -> str:
    return Template(text).render(NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ body.releases.update | tojson }}", '[{"id":"r1"}]'),
        ("{{ body.items | join('+') }} {{ body['items'][0] }}", "x+y x"),
        ("{% for name, value in event.items() %}{{ name }}={{ value }};{% endfor %}",
         "id=evt_1;action=publish;locale=None;model=post;"),
        ("{% for i in body.items %}{{ loop.index }}{{ i }}{{ ',' if not loop.last }}{% endfor %}", "1x,2y"),
        ("{{ body.title.replace('A', 'B').upper() }}", "B & <B>"),
        ("{{ '%03d' % body.n }} {{ '%s-%s' | format(body.n, 'x') }}", "003 3-x"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{% for i in [1, 2] %}{{ m(i) }}{% endfor %}", "<1><2>"),
        ("{{ body.posts | selectattr('tag', 'eq', 'a') | map(attribute='id') | list | tojson }}", "[1,3]"),
        ("{% for g in body.posts | groupby('tag') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}", "a2b1"),
        ("{{ body.posts | sum(attribute='id') }} {{ body.list[1:3] }} {{ body.list | sum }}", "6 [1, 2] 499500"),
        ("{% set ns = namespace(n=0) %}{% for i in range(10) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "45"),
        ("{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'x' in body.items }} {{ 'q' not in body }}", "True False True True"),
        ("{{ event.locale or 'none' }} {{ event.x is defined }} {{ event.x | default('d') }}", "none False d"),
        ("{{ 'a' ~ 1 ~ body.n }} {{ 7 // 2 }} {{ 2 ** 10 }} {{ 7.5 | round | int }}", "a13 3 1024 8"),
        ("{% for p in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}({{ p.n }}{{ loop(p.c) }}){% endfor %}",
         "(1(2))"),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba"),
        ("{% set t %}x{{ 1 }}y{% endset %}{{ t }}{% filter upper %}abc{% endfilter %}", "x1yABC"),
        ("{% block a %}in{% endblock %}{{ self.a() }}", "inin"),
        ("{{ {'a': 1, 'b': [1]} | tojson(indent=2) }}", '{\n  "a": 1,\n  "b": [\n    1\n  ]\n}'),
        ("{{ 'a&<b>' | slack }} {{ 'a.b *c*' | markdown }} {{ {'a b': 'c&d'} | urlencode }}",
         r"a&amp;&lt;b&gt; a\.b \*c\* a+b=c%26d"),
        ("{{ 'a&<b>' | e }} {{ body.big | length }} {{ body.big | upper | truncate(10) }}",
         "a&amp;&lt;b&gt; 1048576 XXXXXXX..."),
        ("{{ route }} {{ headers['x-a'] }}\n", "www 1"),
    ],
)  # fmt: skip
def test_what_templates_can_say(text: str, expected: str) -> None:
    assert render(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ body.titel }}", "line 1: 'dict object' has no attribute 'titel'"),
        ("\n\n{{ body.a.b }}", "line 3: 'dict object' has no attribute 'a'"),
        ("{{ evnt }}", "line 1: 'evnt' is undefined"),
        ("{{ 1 / 0 }}", "line 1: division by zero"),
        ("{{ 1 + 'a' }}", "line 1: unsupported operand type(s) for +: 'int' and 'str'"),
        ("{{ body.items | map('upper') }}", "line 1: a sequence that is worked out step by step cannot be printed"),
        ("{{ body.list | map('nope') | list }}", "line 1: No filter named 'nope'."),
        ("{{ body.update() }}", "line 1: 'dict object' has no attribute 'update'"),
    ],
)
def test_what_fails_says_line_and_cause(text: str, message: str) -> None:
    with pytest.raises(TemplateFailed) as caught:
        render(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ body", "line 2: unexpected end of template"),
        ("{% if x %}", "line 1: Unexpected end of template"),
        ("{{ body | lenght }}", "line 1: unknown filter 'lenght' (did you mean 'length'?)"),
        ("{% extends 'base' %}", "line 1: there is no other template to take in"),
        ("{% import 'x' as y %}", "line 1: there is no other template to take in"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "the template is nested too deeply"),
    ],
)
def test_what_is_no_template_says_where(text: str, message: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        Template(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ namespace.__class__ }}",
        "{{ (body.items | map('upper'))._items }}",
        "{{ loop.__class__ }}",
        "{% macro m() %}{% endmacro %}{{ m._func }}",
        "{{ dict.fromkeys('ab') }}",
        "{{ 'x'.format }}",
        "{{ 'x'.encode() }}",
        "{{ body['list'].append(1) }}",
        "{{ [''] | map(attribute='__class__') | list | tojson }}",
        "{{ [''] | sum(attribute='__class__') }}",
        "{{ [''] | join(',', attribute='__class__') }}",
        "{{ ([''] | groupby('__class__') | first).grouper }}",
        "{{ '%(__class__)s' % body }}",
        "{{ lipsum() }}",
    ],
)
def test_python_stays_out_of_reach(text: str) -> None:
    with pytest.raises(TemplateFailed):
        render(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ [body.nope] }}",
        "{{ [[{'a': (body.nope,)}]] }}",
        "{{ {'a': body.nope} ~ '' }}",
        "{{ body.posts | map(attribute='nope') | list }}",
        "{{ [body.nope] | string }}",
        "{{ [body.nope] | upper }}",
        "{{ [body.nope] | tojson }}",
        "{{ '%s' % [body.nope] }}",
        "{{ '%s' | format([body.nope]) }}",
        "{{ 'a' | replace('a', [body.nope]) }}",
        "{{ [[body.nope]] | join }}",
        "{{ {'a': [body.nope]} | urlencode }}",
    ],
)
def test_an_undefined_value_is_not_printed_inside_of_another(text: str) -> None:
    with pytest.raises(TemplateFailed):
        render(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ headers.get | string }}",
        "{{ headers.get | upper }}",
        "{{ headers.get | e }}",
        "{{ headers.get | urlencode }}",
        "{{ [headers.get] }}",
        "{{ {'a': [headers.get]} | string }}",
        "{{ {headers.get: 1} }}",
        "{{ [headers.get] | map('string') | list }}",
        "{{ '%s' % headers.get }}",
        "{{ '%s' | format(headers.get) }}",
        "{{ 'a' | replace('a', headers.get) }}",
        "{{ [1, 2] | join(headers.get) }}",
        "{% for i in [1] %}{{ [loop] }}{% endfor %}",
        "{{ [cycler] | string }}",
    ],
)
def test_nothing_of_python_is_printed(text: str) -> None:
    with pytest.raises(TemplateFailed, match="cannot be printed"):
        render(text)


def test_plain_values_are_printed_wherever_they_are() -> None:
    assert render("{{ [none, true, 1.5, 'a', {'b': [1]}] }}{{ none | upper }}{{ [1] | string }}") == (
        "[None, True, 1.5, 'a', {'b': [1]}]NONE[1]"
    )


TWICE = "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40
BOTH = TWICE + "{% set b = [1] %}" + "{% set b = [b, b] %}" * 40
LOOP = "{% for i in range(99999) %}"

BOMBS = [
    "{{ 'a' * 300000000 }}",
    "{% for i in range(10**9) %}{% endfor %}",
    LOOP + LOOP + "{% endfor %}{% endfor %}",
    LOOP + LOOP + "x{% endfor %}{% endfor %}",
    LOOP + "{% set x = 1 %}" * 200 + "{% endfor %}",
    LOOP + "{{ body.big }}{% endfor %}",
    LOOP + "{% set x = body.big | upper %}{% endfor %}",
    LOOP + "{% set x = body.big[1:] %}{% endfor %}",
    LOOP + "{{ 'y' in body.big }}{% endfor %}",
    LOOP + "{{ body.big == body.big[1:] ~ 'y' }}{% endfor %}",
    LOOP + "{{ body.big is upper }}{% endfor %}",
    LOOP + "{{ body.title.upper().lower().strip() }}{% endfor %}",
    LOOP + "{{ body.title | replace('a', 'b') | upper | trim }}{% endfor %}",
    "{{ 9 ** 99999999 }}",
    "{{ 1.5 ** 99999 }}",
    "{% set ns = namespace(n=9) %}" + LOOP + "{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{% set ns = namespace(n='x') %}" + LOOP + "{% set ns.n = ns.n ~ ns.n %}{% endfor %}",
    "{% set ns = namespace(n='x') %}" + LOOP + "{% set ns.n = ns.n + ns.n %}{% endfor %}",
    "{% set ns = namespace(n=[1]) %}" + LOOP + "{% set ns.n = ns.n + ns.n %}{% endfor %}",
    "{% set ns = namespace(n=[1]) %}" + LOOP + "{% set ns.n = ns.n + [1] %}{% endfor %}",
    "{{ 'x'.center(300000000) }}",
    "{{ 'x'.zfill(300000000) }}",
    "{{ 'x' | center(300000000) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000) }}",
    "{{ ('a' * 1000000) | replace('a', 'b' * 1000) }}",
    "{{ ('a' * 1000000) | replace('', 'b' * 1000) }}",
    "{{ '%300000000d' % 1 }}",
    "{{ '%.300000000f' % 1.5 }}",
    "{{ '%*d' % (300000000, 1) }}",
    "{{ '%300000000d' | format(1) }}",
    "{{ '{:>300000000}'.format('x') }}",
    "{{ ('b' * 1000000).join(['a'] * 100000) }}",
    "{{ (['a'] * 100000) | join('b' * 1000000) }}",
    "{{ [1] * 300000000 }}",
    "{{ ['a'] | map('center', 300000000) | list }}",
    "{{ body['list'] | batch(300000000, 'x') | list }}",
    "{{ body['list'] | slice(300000000) | list }}",
    "{{ 1.5 | round(300000000) }}",
    "{{ 1 | round(-300000000) }}",
    "{{ ('x\n' * 100000) | indent(1000) }}",
    "{{ 'x' | indent(300000000, true) }}",
    "{{ ([[1] * 100] * 2000) | sum(start=[]) | length }}",
    "{{ ('a,' * 2000000).split(',') | length }}",
    "{{ ('<' * 4000000) | escape }}",
    TWICE + "{{ a }}",
    TWICE + "{{ a | tojson }}",
    TWICE + "{{ a ~ 'x' }}",
    TWICE + "{{ a | string | length }}",
    TWICE + "{{ '%s' % a }}",
    BOTH + "{{ a == b }}",
    BOTH + "{{ a in [b] }}",
    BOTH + "{{ [a, b] | sort }}",
    BOTH + "{{ [a, b] | unique | list }}",
    BOTH + "{{ [a].index(b) }}",
    BOTH + "{% for x in [a, b] %}{{ loop.changed(x) }}{% endfor %}",
    "{% macro m(n) %}{{ m(n - 1) }}{{ m(n - 1) }}{% endmacro %}{{ m(60) }}",
    "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n else 'x' }}{% endmacro %}{{ m(60) }}",
    "{% macro m(n) %}" + "{% set a = 1 %}" * 200 + "{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(50) }}",
    "{% for x in range(50000) recursive %}{{ loop([1, 2]) if loop.depth < 100 }}{% endfor %}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{% set x %}" + LOOP + "{{ 'a' * 1000 }}{% endfor %}{% endset %}",
    "{{ range(99999) | map('string') | map('upper') | map('lower') | list | sort | length }}",
    "{{ range(99999) | map('tojson') | map('tojson') | join('') }}",
]  # fmt: skip


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: text[-60:])
def test_a_bomb_ends_within_a_second(text: str) -> None:
    template = Template(text)
    began = time.thread_time()
    with pytest.raises(TemplateFailed):
        template.render(NAMES)
    assert time.thread_time() - began < 1.0


def test_bombs_need_no_memory(tmp_path: Path) -> None:
    """In a process of its own, which must not have taken more than 200 MiB for all of them."""
    script = tmp_path / "bombs.py"
    script.write_text(
        "import resource\n"
        "from relay.template import TemplateFailed\n"
        "from tests.test_template import BOMBS, render\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for text in BOMBS:\n"
        "    try:\n        render(text)\n    except TemplateFailed:\n        pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, script], cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True)
    assert int(done.stdout) < 200 << 10, done.stderr.decode()


def test_a_template_of_usual_size_is_far_from_the_bound() -> None:
    posts = [{"id": n, "title": f"Post {n}", "tags": ["a", "b"], "author": {"name": "x"}} for n in range(1000)]
    text = (
        "[{% for p in body %}{{ {'id': p.id, 'title': p.title | upper, 'by': p.author.name, 'tags': p.tags | join(',')}"
        " | tojson }}{{ ',' if not loop.last }}{% endfor %}]"
    )
    assert len(Template(text).render({"body": posts})) > 50_000
    assert len(Template("{{ body | tojson }}").render({"body": posts * 10})) > 500_000


@pytest.mark.parametrize("text", ["{{ 'a' * 300000000 }}", LOOP + LOOP + "{% endfor %}{% endfor %}"])
async def test_while_a_template_fails_other_routes_go_on(text: str, tmp_path: Path) -> None:
    async with sink() as destination:
        config = (
            "sources: {any: {type: generic, verify: none}}\n"
            "routes:\n"
            f"  - {{name: bomb, to: {{url: '{destination.url}/bomb'}}, payload: {{template: \"{text}\"}}}}\n"
            f"  - {{name: fine, to: {{url: '{destination.url}/fine'}}, payload: {{template: '{{{{ event.id }}}}'}}}}\n"
            f"  - {{name: plain, to: {{url: '{destination.url}/plain'}}}}\n"
        )
        async with relay_here(tmp_path, config) as relay:
            for _ in range(5):
                assert (await relay.post("/in/any"))[0] == 200
            await destination.wait_count(10)
            failed = await relay.logs_when(lambda items: len(items) == 5, "?route=bomb&status=failed")
        assert {(item["error"]["code"], item["attempts"]) for item in failed} == {("template_error", 1)}
        assert all(item["error"]["message"].startswith("the template fails: line 1: ") for item in failed)
        assert sorted({received.path for received in destination.received}) == ["/fine", "/plain"]


async def test_a_secret_in_a_template_does_not_show_in_its_failure(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sesame-open-sesame")
    config = (
        "sources: {any: {type: generic, verify: none}}\n"
        "routes:\n"
        "  - name: r\n"
        "    to: {url: 'http://127.0.0.1:9'}\n"
        f"    payload: {{template: \"{{{{ body['${{file:{secret}}}'] }}}}\"}}\n"
    )
    async with relay_here(tmp_path, config) as relay:
        await relay.post("/in/any")
        [item] = await relay.logs_when(lambda items: items and items[0]["status"] == "failed")
    assert item["error"]["message"] == "the template fails: line 1: 'dict object' has no attribute '***'"


def test_jinja_is_loaded_only_where_a_template_is() -> None:
    script = (
        "import sys\nfrom relay.config import load\nfrom relay.runtime import build\nfrom datetime import *\n"
        "build(load(sys.argv[1].encode(), environ={}), 1, datetime.now(UTC))\nprint('jinja2' in sys.modules)\n"
    )
    head = "sources: {any: {type: generic, verify: none}}\nroutes: [{name: r, to: {url: 'http://127.0.0.1'}, payload: "
    seen = [
        subprocess.run(
            [sys.executable, "-c", script, f"{head}{kind}}}]"], capture_output=True, text=True
        ).stdout.strip()
        for kind in ("concise", "{jmespath: body}", "{template: x}")
    ]
    assert seen == ["False", "False", "True"]
