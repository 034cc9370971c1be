"""Short processes: their errors, and their end."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.ui.processes import ERROR_PREFIX, Processes


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Writes a module; the words that run it are returned."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(text: str) -> list[str]:
        (tmp_path / "script_of_test.py").write_text(text)
        return ["script_of_test"]

    return write


def test_what_it_prints(script: Callable[[str], list[str]]) -> None:
    words = script("import sys; print('answer'); print('log', file=sys.stderr)")
    assert Processes().run(words, 60) == "answer\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"raise SystemExit('{ERROR_PREFIX}no face')", "^no face$"),
        ("import os; os.kill(os.getpid(), 9)", "the process crashed"),
    ],
)
def test_what_is_wrong(script: Callable[[str], list[str]], text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Processes().run(script(text), 60)


def test_one_that_does_not_end(script: Callable[[str], list[str]]) -> None:
    with pytest.raises(UserError, match=r"did not end within 0\.5 s"):
        Processes().run(script("import time; time.sleep(600)"), 0.5)


def test_closing_ends_them(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    """With what they started: nothing writes to a folder that is removed then."""
    words = script(
        "import pathlib, subprocess, sys, time\n"
        "code = 'import pathlib, time; pathlib.Path(\"started\").touch(); time.sleep(600)'\n"
        "subprocess.run([sys.executable, '-c', code.replace('started', sys.argv[1])])\n"
    )
    processes, errors = Processes(), []

    def run() -> None:
        try:
            processes.run([*words, str(tmp_path / "started")], 600)
        except UserError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    processes.close()
    thread.join()
    assert errors == ["the process crashed"]
    with pytest.raises(UserError, match="the page was closed"):
        processes.run(words, 60)
