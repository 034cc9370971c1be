"""Runs the tests of ``tests/npu`` where the emulated Ascend cards are: a process for each file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ascend import Unavailable, environment

TESTS = Path(__file__).parents[1] / "npu"


OVERFLOW = "test_overflow.py"
SLOW = {"test_doctor.py", "test_infer_on_cards.py"}  # on the CPU their tests always run
FILES = sorted({path.name for path in TESTS.glob("test_*.py")} - {OVERFLOW})
SATURATING = {"INF_NAN_MODE_FORCE_DISABLE": "1"}  # of the 910B, which keeps infinities by itself


@pytest.mark.parametrize(
    "file",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FILES],
)
def test_on_emulated_cards(file: str, tmp_path: Path) -> None:
    """All tests of a file, on two cards of an Atlas A2."""
    run_tests(file, tmp_path)


@pytest.mark.parametrize(
    ("soc", "variables"),
    [
        ("Ascend910B2", {}),
        pytest.param("Ascend910B2", SATURATING, marks=pytest.mark.slow),
        pytest.param("Ascend910_9391", {}, marks=pytest.mark.slow),
        ("Ascend910ProB", {}),
        pytest.param("Ascend310P3", {}, marks=pytest.mark.slow),
    ],
)
def test_overflow_on_cards_of_all_kinds(
    soc: str, variables: dict[str, str], tmp_path: Path
) -> None:
    """Those that keep infinities, and those that saturate."""
    run_tests(OVERFLOW, tmp_path, soc=soc, **variables)


def run_tests(file: str, tmp_path: Path, **chosen: str) -> None:
    """Run a file's tests; all pass, and there is at least one."""
    try:
        emulated = environment(**chosen)
    except Unavailable as error:
        pytest.skip(str(error))
    words = ["-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'npu'}", "-ra"]
    done = subprocess.run(
        [sys.executable, *words, str(TESTS / file)],
        env=emulated, cwd=TESTS.parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
