"""Makes dist/bundle/relay: a directory that runs without Python, of what PyInstaller collects and a program of our own.

`make bundle` calls it with the Python of build/bundler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bundle"
BUNDLE = ROOT / "dist" / "bundle" / "relay"
TOOLS = Path(sys.executable).parent


def main() -> None:
    """Make it anew."""
    run(
        *(TOOLS / "pyinstaller", "--noconfirm", "--log-level", "WARN", "--distpath", WORK, "--workpath", WORK / "work"),
        ROOT / "packaging" / "bundle.spec",
    )
    shutil.rmtree(BUNDLE, ignore_errors=True)
    BUNDLE.mkdir(parents=True)
    inside = shutil.copytree(WORK / "collected" / "_internal", BUNDLE / "_internal")
    for folder in inside.glob("*.libs"):
        # What a wheel has in a folder of its own is linked to from _internal, where it is looked for: once is enough.
        for path in folder.iterdir():
            if not (inside / path.name).is_file():
                raise SystemExit(f"{path} would not be found: it is not in _internal")
        shutil.rmtree(folder)
    for path in elf_files(inside):
        # Paths of the machine that this was built on: on another one they may be anybody's. Without one of its own, a
        # library looks where the program's says: in _internal.
        run(TOOLS / "patchelf", "--remove-rpath", path)
        path.chmod(0o755)
    compile_program(BUNDLE / "relay", "$ORIGIN/_internal")


def compile_program(target: Path, libraries: str, *more: str) -> None:
    """Our executable, for the libpython of the bundle; where it looks for libraries."""
    headers, inside = sysconfig.get_path("include"), BUNDLE / "_internal"
    if not Path(headers, "Python.h").is_file():
        raise SystemExit(f"there is no {headers}/Python.h: on Debian and Ubuntu, apt-get install python3-dev")
    library = next(inside.glob("libpython3.*.so.*"))
    dynload = next(inside.glob("python3*/lib-dynload")).relative_to(inside)
    run(
        *(os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-Werror", "-s", f'-DDYNLOAD="{dynload}"'),
        *(f"-I{headers}", "-o", target, ROOT / "packaging" / "program.c", library, *more),
        # The old kind of path: it holds for what libraries ask for as well.
        *(f"-Wl,--disable-new-dtags,-rpath,{libraries}", "-Wl,-z,relro,-z,now", "-pie", "-fPIE"),
    )


def elf_files(folder: Path) -> Iterator[Path]:
    """The programs and libraries below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def run(*command: object) -> None:
    """Run a tool; its failure is ours."""
    try:
        done = subprocess.run([str(word) for word in command], check=False)
    except FileNotFoundError:
        raise SystemExit(
            f"{command[0]} is missing: on Debian and Ubuntu, apt-get install gcc libc6-dev zstd libzstd-dev"
        ) from None
    if done.returncode:
        raise SystemExit(f"{command[0]} failed")


if __name__ == "__main__":
    main()
