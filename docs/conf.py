"""Builds these pages, as the forge shows them, into a site: `make docs`.

Sphinx reads them through MyST; the sources stay plain Markdown. What Sphinx needs besides, the tree of the pages, is
below.
"""

from typing import Any

from relay import __version__

project = "relay"
author = "the relay project"
project_copyright = ""
version = release = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
# The repository is the source folder, so that links out of docs/ lead somewhere too.
include_patterns = ["README.md", "CHANGELOG.md", "docs/**"]
exclude_patterns = [".*", "dist", "build", "bench", "relay", "systemd", "tests"]
root_doc = "README"

myst_heading_anchors = 4
myst_enable_extensions = ["strikethrough"]
# What is left of warnings are mistakes; `make docs` makes them errors.
nitpicky = True
# Shell blocks hold placeholders, text blocks anything.
highlight_language = "none"

html_theme = "furo"
html_title = "relay"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["site"]
html_css_files = ["relay.css"]
html_theme_options = {"top_of_page_buttons": []}

TREE = {
    "Begin": ["docs/README", "docs/quickstart", "docs/installing"],
    "Content systems": [f"docs/senders/{name}" for name in
                        ("storyblok", "strapi", "contentstack", "prismic", "hygraph", "others")],
    "Recipes": ["docs/recipes/README", "docs/recipes/*"],
    "Configuration": ["docs/configuration", "docs/reference/configuration"],
    "Operating": ["docs/operating", "docs/proxies", "docs/cli", "docs/dashboard", "docs/api", "docs/SECURITY",
                  "docs/reliability", "docs/attacks", "docs/performance", "docs/scaling", "CHANGELOG"],
    "Inside": ["docs/architecture", "docs/words", "docs/extending/README", "docs/extending/*",
               "docs/decisions/README", "docs/decisions/*"],
}  # fmt: skip


def _add_tree(app: Any, name: str, content: list[str]) -> None:
    """The forge would show a `toctree` as it is written: only Sphinx sees it."""
    if name == root_doc:
        for caption, entries in TREE.items():
            content[0] += "\n".join(
                ["", "```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", "", *entries, "```", ""]
            )


def _add_index(app: Any, failed: Exception | None) -> None:
    """Web servers look for index.html."""
    if failed is None:
        (app.outdir / "index.html").write_bytes((app.outdir / f"{root_doc}.html").read_bytes())


def setup(app: Any) -> None:
    app.connect("source-read", _add_tree)
    app.connect("build-finished", _add_index)
