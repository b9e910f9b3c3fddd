"""Every link of README, the changelog and the pages leads somewhere, on the forge and in the site."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import ROOT, anchors, links, pages

EXTERNAL = [(place, target) for page in pages() for place, target in links(page) if "://" in target]


@pytest.mark.parametrize("page", pages())
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for place, target in links(page):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert found.is_relative_to(ROOT), f"{place}: {target}"
        assert found.is_file(), f"{place}: {target}"
        if anchor:
            assert anchor in anchors(str(found.relative_to(ROOT))), f"{place}: {target}"


def test_links_to_elsewhere_are_whole_addresses() -> None:
    assert len(EXTERNAL) > 10
    for place, target in EXTERNAL:
        parts = urlsplit(target)
        assert parts.scheme == "https", f"{place}: {target}"
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), f"{place}: {target}"


def test_every_page_can_be_reached_from_the_index() -> None:
    found, new = set[str](), {"docs/README.md"}
    while new:
        page = new.pop()
        found.add(page)
        for _, target in links(page):
            path = ((ROOT / page).parent / target.partition("#")[0]).resolve()
            if "://" not in target and path.suffix == ".md" and str(path.relative_to(ROOT)) not in found:
                new.add(str(path.relative_to(ROOT)))
    assert set(pages()) - found == set()


def test_every_decision_is_in_their_index() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = [target for _, target in links("docs/decisions/README.md")]
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("[a-z]*.md")), ids=lambda path: path.stem)
def test_a_decision_says_what_it_was_about_and_what_was_given_up(path: Path) -> None:
    headings = re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE)
    assert headings == ["Context", "Decision", "What we gave up"]


# -- the site ----------------------------------------------------------------------------------------------------------


class Html(HTMLParser):
    """What a page of the site names, and what can be named in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {value for key, value in attrs if key == "id" and value}
        address = given.get("href") or given.get("src")
        if address and tag == "a":
            self.links.append(address)
        elif address:
            self.fetched.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it: a warning is an error."""
    made = tmp_path_factory.mktemp("site")
    recipe = re.search(r"^docs:.*\n\t\$\(BIN\)/sphinx-build (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    words = recipe[1].replace("dist/.doctrees", str(made / "doctrees")).replace("dist/docs", str(made / "html")).split()
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return made / "html"


def test_the_site_has_every_page(site: Path) -> None:
    for page in pages():
        assert (site / page).with_suffix(".html").is_file(), page
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()
    assert "webhook" in (site / "searchindex.js").read_text(), "the search works without a server"


def test_every_link_of_the_site_leads_somewhere_and_no_page_fetches_from_elsewhere(site: Path) -> None:
    parsed = {path.resolve(): Html(path.read_text()) for path in site.rglob("*.html")}
    for path, page in parsed.items():
        assert [one for one in page.fetched if "://" in one or one.startswith("//")] == [], path
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), f"{path}: {link}"
            if anchor and target in parsed:
                assert anchor in parsed[target].ids, f"{path}: {link}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text()), style
