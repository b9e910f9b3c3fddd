"""What relay needs, in the locked versions, in a folder: whoever installs it from there asks no index."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.cache import TOP, kept

_LOCKS = ("requirements.lock", "requirements-build.lock")


def wheelhouse(python: str) -> Path:
    """The wheels for a version of Python, from the index of this machine's pip; also the pip that pipx wants."""
    digest = hashlib.sha256(b"".join((TOP / name).read_bytes() for name in _LOCKS)).hexdigest()[:16]

    def fetch(folder: Path) -> None:
        for words in (*(["--require-hashes", "-r", str(TOP / name)] for name in _LOCKS), ["--no-deps", "pip"]):
            command = [sys.executable, "-m", "pip", "-q", "download", "--only-binary=:all:"]
            command += [f"--python-version={python}", "-d", str(folder)]
            said = subprocess.run([*command, *words], capture_output=True, text=True)
            if said.returncode != 0:
                pytest.skip(f"pip cannot download {words[-1]}: {said.stderr[-500:]}")

    return kept(f"wheels-{python}-{digest}", fetch)
