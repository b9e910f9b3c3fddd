"""A Debian without relay, made of Debian's packages and kept: what a fresh minimal server is."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.cache import kept

PACKAGES = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "procps")


def debian(suite: str, *packages: str) -> Path:
    """Its root folder. Copy it, or lay an overlay over it: it is shared. Skips where none can be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a root filesystem")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed (package mmdebstrap)")
    include = ",".join((*PACKAGES, *packages))
    from_where = mirror(suite)

    def make(folder: Path) -> None:
        # The same as debootstrap's minbase, in half its time.
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={include}"]
        said = subprocess.run([*command, suite, str(folder), from_where], capture_output=True, text=True)
        if said.returncode != 0:
            pytest.skip(f"mmdebstrap cannot make a Debian {suite}: {said.stderr[-1000:]}")

    return kept(f"debian-{suite}-{hashlib.sha256(include.encode()).hexdigest()[:8]}", make)


def mirror(suite: str) -> str:
    """$DEBIAN_MIRROR, else where this machine's apt gets Debian's packages from."""
    named = os.environ.get("DEBIAN_MIRROR")
    if named:
        return named
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(LABEL)", "Created-By: Packages"]
    lines = subprocess.run(asked, capture_output=True, text=True).stdout.split("\n")
    found = [line.split(" ") for line in lines if line.endswith(" Debian")]
    if not found:
        pytest.skip("apt has no source of Debian's packages, or 'apt-get update' has not run: set DEBIAN_MIRROR")
    return next((where for where, codename, _ in found if codename == suite), found[0][0])
