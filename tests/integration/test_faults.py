"""A slice of ``make faults``: what is interrupted is finished by the same command."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_a_rerun_makes_what_one_run_makes() -> None:
    chosen = ("preprocess", "infer")
    words = ["--seed", "15", "--moments", "1", "--share", "0.5"]
    words += [word for name in chosen for word in ("--command", name)]
    words += [word for name in ("disk", "worker", "signals") for word in ("--fault", name)]
    done = subprocess.run(
        [sys.executable, "-m", "faults", *words], cwd=TESTS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 not as documented" in done.stdout
