"""The licences of what the bundle holds besides relay: a folder for each part, and a table of all of them.

`bundle.py` calls it in the Python that the bundle is made of. Texts of the system's libraries are those that Debian and
Ubuntu install with them (`/usr/share/doc/PACKAGE/copyright`); on other systems the table names those libraries alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

_BESIDES = ("libc.so.6", "libzstd.so.1")  # of the one executable: its loader and what it unpacks with


def collect(lock: Path, libraries: Iterable[str], to: Path) -> None:
    """Copy the texts of the packages of a lock file, of Python and of shared libraries, by their file names, and
    write the table, `to`/README."""
    to.mkdir(parents=True)
    lines = [*_packages(lock, to), _python(to), *_libraries({*libraries, *_BESIDES}, to)]
    (to / "README").write_text("".join(f"{line}\n" for line in lines))


def _packages(lock: Path, to: Path) -> list[str]:
    lines = []
    names = re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.MULTILINE)
    for name in sorted(names, key=str.lower):
        found = distribution(name)
        lines.append(f"{found.name} {found.version}: {_license(found)}")
        for text in found.files or ():
            if re.match(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", text.name, re.IGNORECASE) and ".dist-info" in str(text):
                _copy(Path(str(text.locate())), to / found.name / text.name)
    return lines


def _python(to: Path) -> str:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for terms in (
        Path(sys.base_prefix) / "lib" / version / "LICENSE.txt",
        Path("/usr/share/doc") / version / "copyright",
    ):
        if terms.is_file():
            _copy(terms, to / "Python" / terms.name)
    return f"Python {sys.version.split()[0]}: PSF-2.0"


def _libraries(names: set[str], to: Path) -> list[str]:
    lines = set()
    for name in names:
        package = _package_of(name)
        terms = Path("/usr/share/doc") / package / "copyright"
        if package and terms.is_file():
            _copy(terms, to / package / "copyright")
            lines.add(f"{name}, of {package}: see its folder")
        else:
            lines.add(f"{name}: see the system that this was built on")
    return sorted(lines)


def _package_of(name: str) -> str:
    """The Debian package that a shared library came with; empty where none did."""
    try:
        asked = subprocess.run(["dpkg-query", "--search", f"*/{name}"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return asked.stdout.partition(":")[0].partition(",")[0]


def _copy(text: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(text, to)


def _license(found: Distribution) -> str:
    metadata = found.metadata
    said = next((metadata[name] for name in ("License-Expression", "License") if name in metadata), "")
    if said and "\n" not in said:
        return said
    classifiers = [text for text in metadata.get_all("Classifier") or () if text.startswith("License ::")]
    return ", ".join(text.rpartition(" :: ")[2] for text in classifiers) or "see its folder"
