"""packaging/interpreter: which Python `make` takes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

INTERPRETER = Path(__file__).resolve().parent.parent / "packaging" / "interpreter"
PROFILED, PLAIN = "'--with-lto' '--enable-optimizations'", "'--enable-shared'"

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="the system's is never taken there")


@dataclass(frozen=True)
class Python:
    """One that may be there."""

    built: str = PROFILED
    version: tuple[int, int] = (3, 11)
    prefix: str = "/opt/python"
    venvs: bool = True

    def write(self, path: Path) -> None:
        """Make it: today's, which says of itself that it is this one."""
        lacking = "" if self.venvs else "sys.modules['ensurepip'] = None"
        path.write_text(f"""#!/bin/sh
shift
exec {sys.executable} -c "
import sys, sysconfig, types
sys.version_info, sys.base_prefix = {self.version}, '{self.prefix}'
sysconfig.get_config_var = lambda name: \\"{self.built}\\"
sys.modules['ensurepip'] = types.ModuleType('ensurepip')
{lacking}
$1"
""")
        path.chmod(0o755)


def chosen(folder: Path, of_path: Python | None, systems: Python | None) -> str:
    """Which of the two is taken: `python3` is that of PATH."""
    if of_path is not None:
        (folder / "python3").symlink_to(folder / "of-path")
        of_path.write(folder / "of-path")
    if systems is not None:
        systems.write(folder / "systems")
    # Nothing else of PATH is to be found but what the script itself needs.
    (folder / "uname").symlink_to("/bin/uname")
    done = subprocess.run(
        ["/bin/sh", INTERPRETER, folder / "systems"],
        env={**os.environ, "PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip().removeprefix(f"{folder}/")


GOOD = Python()


@pytest.mark.parametrize("of_path", [GOOD, Python(PLAIN, prefix="/usr"), Python(version=(3, 14))])
def test_that_of_path_where_it_was_built_well(tmp_path: Path, of_path: Python) -> None:
    assert chosen(tmp_path, of_path, GOOD) == "python3"


@pytest.mark.parametrize("of_path", [Python(PLAIN), Python(version=(3, 10)), Python(venvs=False), None])
@pytest.mark.parametrize("systems", [GOOD, Python(PLAIN, prefix="/usr")])
def test_the_systems_in_place_of_one_that_was_not_or_cannot_do(
    tmp_path: Path, of_path: Python | None, systems: Python
) -> None:
    assert chosen(tmp_path, of_path, systems) == "systems"


@pytest.mark.parametrize("systems", [Python(PLAIN), Python(version=(3, 9)), Python(venvs=False), None])
@pytest.mark.parametrize("of_path", [Python(PLAIN), None])
def test_that_of_path_where_the_systems_is_no_better(
    tmp_path: Path, of_path: Python | None, systems: Python | None
) -> None:
    assert chosen(tmp_path, of_path, systems) == "python3"
