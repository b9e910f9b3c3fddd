"""packaging/interpreter: which Python `make` takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

INTERPRETER = Path(__file__).resolve().parent.parent / "packaging" / "interpreter"
SYSTEMS = Path("/usr/bin/python3")


def chosen(folder: Path, built: str, version: str = "(3, 11, 7)", prefix: str = "/opt/python") -> str:
    """What is said where PATH has a Python of this build."""
    python3 = folder / "python3"
    # The script asks it by -c: the system's answers in its name.
    python3.write_text(f"""#!/bin/sh
shift
exec {SYSTEMS} -c "
import sys, sysconfig, types
sys.version_info, sys.base_prefix = {version}, '{prefix}'
sysconfig.get_config_var = lambda name: \\"{built}\\"
sys.modules['ensurepip'] = types.ModuleType('ensurepip')
$1"
""")
    python3.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run([INTERPRETER], env={"PATH": path}, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def can_make_venvs() -> bool:
    code = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    return SYSTEMS.exists() and subprocess.run([SYSTEMS, "-c", code], capture_output=True).returncode == 0


@pytest.mark.skipif(not SYSTEMS.exists(), reason="there is no /usr/bin/python3")
class TestChosen:
    @pytest.mark.parametrize("built", ["'--enable-optimizations' '--with-lto'", "--enable-optimizations"])
    def test_the_first_of_path_where_a_profile_was_used(self, tmp_path: Path, built: str) -> None:
        assert chosen(tmp_path, built) == "python3"

    def test_that_of_a_distribution_which_does_not_say_how_it_was_built(self, tmp_path: Path) -> None:
        assert chosen(tmp_path, "'--enable-shared'", prefix="/usr") == "python3"

    @pytest.mark.parametrize(
        ("built", "version"), [("'--enable-shared'", "(3, 12, 1)"), ("'--enable-optimizations'", "(3, 10, 4)")]
    )
    def test_the_systems_in_place_of_a_plain_or_an_old_one(self, tmp_path: Path, built: str, version: str) -> None:
        expected = str(SYSTEMS) if can_make_venvs() else "python3"
        assert chosen(tmp_path, built, version) == expected

    def test_the_systems_where_path_has_none(self, tmp_path: Path) -> None:
        done = subprocess.run(["/bin/sh", INTERPRETER], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
        assert done.stdout.strip() == (str(SYSTEMS) if can_make_venvs() else "python3")
