"""A slice of ``make fuzz``: commands on damaged, odd and hostile files, each judged."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SEED, CASES = 15, 25  # the same cases each time


def test_each_case_ends_as_documented(tmp_path: Path) -> None:
    words = ["--seed", f"{SEED}", "--cases", f"{CASES}", "--jobs", "2", "--folder", f"{tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *words], cwd=TESTS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CASES}" in done.stdout
