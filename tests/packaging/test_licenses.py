"""What is shipped comes with its licences."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.packaging.cache import TOP

LOCK = TOP / "requirements.lock"


def test_all_that_is_locked_is_listed_and_the_driver_of_postgresql_comes_with_the_texts_of_its_licence(
    tmp_path: Path,
) -> None:
    command: list[str | Path] = [sys.executable, TOP / "packaging" / "licenses.py", LOCK, tmp_path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    listed = {name.lower().replace("_", "-") for name in re.findall(r"^  (\S+) \d", said, re.MULTILINE)}
    locked = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)}
    assert listed == locked | {"python"}
    for name in ("psycopg", "psycopg-binary"):
        assert re.search(rf"^  {name} [0-9.]+: LGPL-3.0-only", said, re.MULTILINE)
        assert "GNU LESSER GENERAL PUBLIC LICENSE" in (tmp_path / name / "LICENSE.txt").read_text()
        if Path("/usr/share/common-licenses/GPL-3").exists():
            assert "GNU GENERAL PUBLIC LICENSE" in (tmp_path / name / "GPL-3").read_text()
    assert "libpq (PostgreSQL)" in said
