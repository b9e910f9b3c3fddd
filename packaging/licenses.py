"""Copies the licences of what the bundle holds besides relay, a folder for each: `licenses.py LOCK TO`.

Run it by the Python that the bundle was made of. It prints the table that the package's copyright file ends with.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

_WITHIN = {
    "psycopg-binary": "with libpq (PostgreSQL), OpenSSL (Apache-2.0), MIT Kerberos (MIT), OpenLDAP (OLDAP-2.8),"
    " Cyrus SASL (BSD-3-Clause-Attribution), libxcrypt and keyutils (LGPL-2.1-or-later)",
}
"""What a wheel has in it that others wrote."""
_COMMON = Path("/usr/share/common-licenses")
_REFERRED = {"psycopg": ["GPL-3"], "psycopg-binary": ["GPL-3", "LGPL-2.1", "Apache-2.0"]}
"""Texts that a licence refers to, and that do not come with it. Every Debian has them."""


def main(lock: Path, to: Path) -> None:
    names = re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.MULTILINE)
    for name in sorted(names, key=str.lower):
        found = distribution(name)
        within = f", {_WITHIN[name]}" if name in _WITHIN else ""
        print(f"  {found.name} {found.version}: {_license(found)}{within}")
        for text in found.files or ():
            if re.match(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", text.name, re.IGNORECASE) and ".dist-info" in str(text):
                place = to / found.name / text.name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(text.locate()), place)
        for text_of in _REFERRED.get(name, ()):
            if (_COMMON / text_of).is_file():
                shutil.copyfile(_COMMON / text_of, to / found.name / text_of)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    print(f"  Python {sys.version.split()[0]}: PSF-2.0, with OpenSSL (Apache-2.0), SQLite (public domain) and others")
    for terms in (
        Path(sys.base_prefix) / "lib" / version / "LICENSE.txt",
        Path("/usr/share/doc") / version / "copyright",
    ):
        if terms.is_file():
            (to / "Python").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(terms, to / "Python" / terms.name)


def _license(found: Distribution) -> str:
    metadata = found.metadata
    said = next((metadata[name] for name in ("License-Expression", "License") if name in metadata), "")
    if said and "\n" not in said:
        return said
    classifiers = [text for text in metadata.get_all("Classifier") or () if text.startswith("License ::")]
    return ", ".join(text.rpartition(" :: ")[2] for text in classifiers) or "see its folder"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
