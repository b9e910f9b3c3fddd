"""What relay is made of: locked by hash, declared where it is imported, without known holes, listed.

    python -m tests.torture.supply audit    known vulnerabilities in the lock; 1 where there is one
    python -m tests.torture.supply sbom     a CycloneDX bill of materials of the lock, into dist/

Both run a program in an environment of its own: pip-audit and cyclonedx-bom are no part of what relay and its tests
need.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

from relay import __version__
from tests.torture.row import TOP, Figure, Place, Seen, of_forms

LOCKS = ("requirements.lock", "requirements-dev.lock")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
_PATIENCE = 300  # seconds


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """What pyproject.toml says relay needs, for PostgreSQL too."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    return {_canonical(match[0]) for text in needed if (match := _NAME.match(text))}


def imported(package: Path = TOP / "relay") -> set[str]:
    """The distributions whose modules relay imports."""
    modules = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module.partition(".")[0])
    known = packages_distributions()
    foreign = modules - set(sys.stdlib_module_names) - {"relay"}
    return {_canonical(name) for module in foreign for name in known.get(module, [module])[:1]}


def unhashed(lock: Path) -> list[str]:
    """What a lock names without a version and a hash."""
    entries = re.split(r"\n(?=[A-Za-z])", "\n" + lock.read_text())[1:]
    return [entry.splitlines()[0] for entry in entries if not _PINNED.match(entry) or "--hash=sha256:" not in entry]


def pinned(lock: Path) -> dict[str, str]:
    """The versions that a lock names."""
    lines = lock.read_text().splitlines()
    return {_canonical(match[1]): match[2] for line in lines if (match := _PINNED.match(line))}


async def chain(place: Place) -> Figure:
    """The locks, the imports, an empty environment, the known holes."""
    seen = []
    for name in LOCKS:
        wrong = unhashed(TOP / name)
        total = len(pinned(TOP / name))
        seen.append(Seen(f"{name}: versions and hashes", f"{total} packages, {len(wrong)} without", not wrong))
    missing = imported() - declared()
    idle = declared() - imported()
    seen.append(Seen("imported and not declared", ", ".join(sorted(missing)) or "none", not missing))
    seen.append(Seen("declared and not imported", ", ".join(sorted(idle)) or "none", not idle))
    said, holes = audit(place.folder)
    seen.append(Seen("known vulnerabilities (pip-audit)", said, holes == 0))
    if place.count > 1:
        environment = place.folder / "empty"
        done = _installed(environment, "--require-hashes", "-r", str(TOP / LOCKS[0]))
        seen.append(Seen("pip install --require-hashes into an empty environment", f"exit {done}", done == 0))
    return of_forms(seen)


def _installed(environment: Path, *what: str) -> int:
    venv.create(environment, with_pip=True)
    command = [str(environment / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", *what]
    return subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False).returncode


def audit(folder: Path) -> tuple[str, int | None]:
    """What pip-audit says of the lock, and how many holes there are. One that cannot be asked is said, not failed."""
    if _installed(folder / "audit", "pip-audit") != 0:
        return "could not be asked: pip-audit could not be installed", 0
    command = [str(folder / "audit/bin/pip-audit"), "--disable-pip", "--require-hashes", "-r", str(TOP / LOCKS[0])]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off", "--timeout", "20"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        told = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return "could not be asked: the service is unreachable", 0
    holes = [f"{one['name']} {one['version']}: {hole['id']}" for one in told for hole in one.get("vulns", [])]
    skipped = sum("skip_reason" in one for one in told)
    looked = len(told) - skipped
    if not looked:
        return "could not be asked: the service knows none of the packages", 0
    more = f", {skipped} not known there" if skipped else ""
    return "; ".join(holes) or f"0 in {looked} packages{more}", len(holes)


def sbom(folder: Path) -> Path:
    """Write the bill of materials."""
    out = TOP / "dist" / f"relay-{__version__}.cdx.json"
    out.parent.mkdir(exist_ok=True)
    if _installed(folder / "sbom", "cyclonedx-bom") != 0:
        raise SystemExit("cyclonedx-bom could not be installed")
    command = [str(folder / "sbom/bin/cyclonedx-py"), "requirements", str(TOP / LOCKS[0])]
    more = ["--pyproject", str(TOP / "pyproject.toml"), "--output-reproducible", "--of", "JSON", "-o", str(out)]
    subprocess.run([*command, *more], check=True, timeout=_PATIENCE)
    return out


def main() -> int:
    """Do as told."""
    with tempfile.TemporaryDirectory() as folder:
        match sys.argv[1:]:
            case ["audit"]:
                said, holes = audit(Path(folder))
                print(f"pip-audit: {said}")
                return 1 if holes else 0
            case ["sbom"]:
                print(sbom(Path(folder)).relative_to(TOP))
                return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
