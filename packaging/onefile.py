"""Makes dist/relay: the bundle, the C library and our launcher in one static executable.

`make binary` calls it with the Python of build/bundler, after the bundle is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bundle import BUNDLE, ROOT, compile_program, elf_files, run

WORK = ROOT / "build" / "onefile"
TREE = WORK / "tree"
TARGET = ROOT / "dist" / "relay"
ROOM = 1200
INTERPRETER, LIBRARIES = (("/" + filler).ljust(ROOM - 1, filler) for filler in "_=")
"""In the place of the paths of the dynamic loader and of the libraries, which are known where the file is unpacked.
($ORIGIN does not do: the loader asks /proc for it, and there may be none.)"""


def main() -> None:
    """Make it anew."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(BUNDLE, TREE)
    loader = add_libc()
    compile_program(TREE / "relay", LIBRARIES, f"-Wl,--dynamic-linker={INTERPRETER}")
    write_payload(loader)
    run(
        *(os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s", f"-I{WORK}", "-o"),
        *(WORK / "relay", ROOT / "packaging" / "launcher.c", WORK / "payload.s", "-lzstd"),
    )
    (WORK / "relay").replace(TARGET)


def add_libc() -> str:
    """What the bundle takes from the machine that it runs on; the path of the loader."""
    inside = TREE / "_internal"
    needed: dict[str, Path] = {}
    for path in elf_files(TREE):
        listed = subprocess.run(
            ["ldd", path],
            env={"LD_LIBRARY_PATH": str(inside), "PATH": os.environ["PATH"]},
            capture_output=True,
            check=False,  # it complains of what is linked statically
            text=True,
        )
        if "not found" in listed.stdout:
            raise SystemExit(f"{path} needs what is not there:\n{listed.stdout}")
        for found in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listed.stdout, re.MULTILINE):
            if not found.startswith(str(TREE)):
                needed[Path(found).name] = Path(found).resolve()
    for name, source in needed.items():
        shutil.copyfile(source, inside / name)
        (inside / name).chmod(0o755)
    loaders = [name for name in needed if name.startswith("ld-")]
    if len(loaders) != 1 or "libc.so.6" not in needed:
        raise SystemExit(f"the C library must be glibc, with one loader: found {', '.join(sorted(needed))}")
    return f"_internal/{loaders[0]}"


def write_payload(loader: str) -> None:
    """payload.zst, payload.s that puts it into the executable, contents.h that lists it."""
    rows, largest, digest = [], 0, hashlib.sha256()
    program = (TREE / "relay").read_bytes()
    with (WORK / "payload").open("wb") as payload:
        for path in sorted(TREE.rglob("*")):
            inside = path.relative_to(TREE).as_posix()
            size = 0 if path.is_dir() else path.stat().st_size
            executable = not path.is_dir() and bool(path.stat().st_mode & 0o100)
            row = f"{{{json.dumps(inside)}, {size}, {path.is_dir():d}, {executable:d}, {inside == 'relay':d}}},"
            rows.append(row)
            digest.update(row.encode())
            if not path.is_dir():
                largest = max(largest, size)
                payload.write(path.read_bytes())
                digest.update(path.read_bytes())
    run("zstd", "-q", "-f", "-19", "-T2", "--rm", WORK / "payload", "-o", WORK / "payload.zst")
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "relay" / "__init__.py").read_text())
    assert version is not None
    (WORK / "contents.h").write_text(
        f'#define VERSION "{version[1]}"\n#define DIGEST "{digest.hexdigest()}"\n#define LOADER "{loader}"\n'
        f"#define INTERPRETER_AT {program.index(INTERPRETER.encode())}\n"
        f"#define LIBRARIES_AT {program.index(LIBRARIES.encode())}\n"
        f"#define ROOM {ROOM}\n#define LARGEST {largest}\n"
        "static const struct content {\n    const char *path;\n    unsigned long size;\n"
        "    unsigned char folder, executable, program;\n} contents[] = {\n"
        + "".join(f"    {row}\n" for row in rows)
        + "    {0, 0, 0, 0, 0},\n};\n"
    )
    (WORK / "payload.s").write_text(
        f'.section .rodata\n.global payload, payload_end\npayload:\n.incbin "{WORK / "payload.zst"}"\npayload_end:\n'
        '.section .note.GNU-stack,"",@progbits\n'
    )


if __name__ == "__main__":
    main()
