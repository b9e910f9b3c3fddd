"""Libraries of npm as verifiers: installed from `tests/npm` on first use, run in one process for many cases."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "npm"
_LOCK = FOLDER / "package-lock.json"
_INSTALLED = FOLDER / "node_modules" / ".package-lock.json"  # npm writes it last


def verified(cases: Sequence[dict[str, Any]]) -> list[bool]:
    """What the libraries say of each case: `{scheme, secret, headers, body}`. Skips where there is no Node."""
    reason = _missing()
    if reason is not None:
        pytest.skip(reason)
    done = subprocess.run(
        ["node", "verify.mjs"],
        cwd=FOLDER,
        input=json.dumps(cases).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers: list[bool] = json.loads(done.stdout)
    assert len(answers) == len(cases)
    return answers


@cache
def _missing() -> str | None:
    """Why the libraries cannot be used; None when they are installed."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once
        if _INSTALLED.exists() and _INSTALLED.stat().st_mtime >= _LOCK.stat().st_mtime:
            return None
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=50, check=True)
        except subprocess.CalledProcessError as error:
            return f"npm ci failed: {error.stderr.strip().splitlines()[-1:] or error.returncode}"
        except subprocess.TimeoutExpired:
            return "npm ci took too long"
    return None
