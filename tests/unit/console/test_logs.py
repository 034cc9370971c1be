"""``--log_file`` and ``--quiet``: in this process, in commands, in worker processes."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wav2lip_npu import cli
from wav2lip_npu.config import InferConfig
from wav2lip_npu.console import logs
from wav2lip_npu.console.logs import LogSettings, current_settings, logging_to
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.workers import WorkerPool

DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
WORDS = ["infer", "--checkpoint_path", "c", "--face", "f", "--audio", "a"]
log = logging.getLogger("wav2lip_npu.tests")


def open_files() -> int:
    """How many files this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    return len([*folder.iterdir()]) if folder.is_dir() else 0


def test_messages_are_added_with_date_and_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "日志.log"
    for number in range(2):
        with logging_to(LogSettings(file=path)):
            log.info("message %d of 中文 \udcff", number)
            log.warning("careful")
    log.warning("too late")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert re.fullmatch(rf"{DATE} INFO message 0 of 中文 \\udcff", lines[0])
    assert re.fullmatch(rf"{DATE} WARNING careful", lines[3])


def test_all_is_as_before_after_a_run(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, [*root.handlers], [handler.level for handler in root.handlers])
    files = open_files()
    with logging_to(LogSettings(file=tmp_path / "a.log", quiet=True)):
        assert current_settings().quiet
    assert (root.level, root.handlers, [handler.level for handler in root.handlers]) == before
    assert current_settings() == LogSettings()
    assert files == open_files()


def test_a_log_file_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    before = [*logging.getLogger().handlers]
    for path in (tmp_path, tmp_path / "file" / "log", tmp_path / "a\0b"):
        with (
            pytest.raises(UserError, match=r"--log_file .*: cannot be written \("),
            logging_to(LogSettings(file=path)),
        ):
            pytest.fail("it cannot be opened")
    assert cli.main([*WORDS, "--log_file", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"wav2lip-npu: error: --log_file {tmp_path}: cannot be written (Is a directory)\n"
    )
    assert logging.getLogger().handlers == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), logging_to(LogSettings(file=Path("/dev/full"))):
        log.info("one")
        log.info("two")
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert warnings == [
        "--log_file /dev/full: cannot be written any more (No space left on device)"
    ]


COMMAND = """
import logging, sys
from wav2lip_npu import cli
from wav2lip_npu.config import InferConfig
from wav2lip_npu.console.progress import track
from wav2lip_npu.errors import UserError

def run(config):
    log = logging.getLogger("wav2lip_npu.test")
    log.info("an information")
    list(track("abc", "infer", "letter", 3))
    log.warning("a warning")
    raise UserError("no such thing")

cli.COMMANDS["infer"] = cli.Command(InferConfig, run)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command(quiet: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    words = [*WORDS, "--log-file", str(path), *(["--quiet"] if quiet else [])]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    shown = [re.sub(r"(?<=100 %\)).*", "", line) for line in done.stderr.splitlines()]
    told = ["an information", "infer: 3 of 3 letters (100 %)"]
    end = ["a warning", "wav2lip-npu: error: no such thing"]
    assert shown == [*([] if quiet else told), *end]
    lines = path.read_text(encoding="utf-8").splitlines()  # which has all of it, quiet or not
    assert re.match(rf"{DATE} INFO wav2lip-npu infer --checkpoint_path c ", lines[0])
    messages = [re.sub(rf"^{DATE} \w+ |(?<=100 %\)).*", "", line) for line in lines[1:]]
    assert messages == [*told, "a warning", "error: no such thing"]


class Talking:
    """A worker that says something."""

    def process(self, job: str) -> LogSettings:
        log.info("job %s", job)
        return current_settings()


def test_worker_processes_do_the_same(tmp_path: Path) -> None:
    settings = LogSettings(file=tmp_path / "a.log", quiet=True)
    with logging_to(settings):
        logging.getLogger("wav2lip_npu").setLevel(logging.INFO)
        pool: WorkerPool[str] = WorkerPool(Talking, [()])
        pool.submit("one")
        try:
            (outcome,) = pool.outcomes()
        finally:
            pool.close()
            logging.getLogger("wav2lip_npu").setLevel(logging.NOTSET)
    assert outcome.result == settings
    assert (tmp_path / "a.log").read_text().endswith(" INFO job one\n")


def test_the_words_that_hand_settings_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``demo`` gives them to the commands that it starts."""
    found = []
    monkeypatch.setitem(
        cli.COMMANDS, "infer", cli.Command(InferConfig, lambda _: found.append(current_settings()))
    )
    settings = LogSettings(file=tmp_path / "a b.log", quiet=True)
    assert cli.main([*WORDS, *settings.words]) == 0
    assert cli.main([*WORDS, *LogSettings().words]) == 0
    assert found == [settings, LogSettings()]
    logs.note("nowhere")  # no file: nothing happens
