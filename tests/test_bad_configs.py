"""One file per mistake in `configs/bad`: the messages in its head are all that it gives, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config import ConfigError, load

CONFIGS = Path(__file__).parent / "configs"
BAD = sorted((CONFIGS / "bad").glob("*.yaml"))
GOOD = sorted((CONFIGS / "good").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the files name a secret beside them."""
    monkeypatch.chdir(CONFIGS.parent.parent)


def said(path: Path, word: str) -> list[str]:
    start = f"# {word}: "
    return [line.removeprefix(start) for line in path.read_text().splitlines() if line.startswith(start)]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_config_gives_exactly_the_messages_in_its_head(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, name=path.name, environ={})
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path.name}:{text}" for text in said(path, "expect")
    ]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_config_is_taken_with_exactly_the_warnings_in_its_head(path: Path) -> None:
    loaded = load(path, name=path.name, environ={})
    assert [str(warning) for warning in loaded.warnings] == [f"{path.name}:{text}" for text in said(path, "warns")]
