"""The commands that the pages show: run with small files, parsed, or listed with a reason."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_each_command_of_the_pages_works() -> None:
    """``make docs-commands`` prints which one does not, and a command that is in no class."""
    done = subprocess.run(
        [sys.executable, "-m", "docs_commands"],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " run, " in done.stdout
