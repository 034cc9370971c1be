"""Progress: lines that other programs read, and where nothing is shown."""

import logging
import re
import threading
from collections.abc import Iterator

import pytest

from wav2lip_npu.console import progress
from wav2lip_npu.console.logs import LogSettings, logging_to
from wav2lip_npu.console.progress import Progress, ProgressLine, format_line, parse_line, track
from wav2lip_npu.errors import UserError

KNOWN = ProgressLine(label="infer", done=120, total=500, unit="frames", rate=12.3, eta_seconds=31)
# As the docs have them.
LINES = {
    "infer: 120 of 500 frames (24 %), 12.3 frames/s, 0:31 left": KNOWN,
    "infer: 120 frames, 12.3 frames/s": ProgressLine(
        label="infer", done=120, total=None, unit="frames", rate=12.3, eta_seconds=None
    ),
    "train-syncnet: 0 of 7 steps (0 %), 0.000 steps/s, ? left": ProgressLine(
        label="train-syncnet", done=0, total=7, unit="steps", rate=0.0, eta_seconds=None
    ),
    "reading a: 3 of 4 b.txt: 999 of 1000 clips (99 %), 0.042 clips/s, 26:03:04 left": ProgressLine(
        label="reading a: 3 of 4 b.txt", done=999, total=1000, unit="clips", rate=0.042,
        eta_seconds=26 * 3600 + 3 * 60 + 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", LINES)
def test_lines_are_written_and_read(text: str) -> None:
    assert format_line(LINES[text]) == text
    assert parse_line(f"{text}\n") == LINES[text]


@pytest.mark.parametrize(
    "text",
    [
        "step 120: loss 0.5, samples_per_second 12.3",
        "infer: 120 of 500 frames (24 %), 12.3 steps/s, 0:31 left",
        "infer: 120 of 500 frames (24 %), 12.3 frames/s",
        "infer: 120 frames, 12.3 frames/s, 0:31 left",
        "infer: 120 of 500 frames (24 %), 12.3 frames/s, 0:31 left!",
        "a\ninfer: 120 frames, 12.3 frames/s",
        "",
    ],
)
def test_other_lines_are_not_progress(text: str) -> None:
    assert parse_line(text) is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, which stands still but for what tests add."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now


def test_share_rate_and_time_left(clock: list[float]) -> None:
    with Progress("train", "step", 1000, initial=400, shown=False) as shown:
        assert shown.line().eta_seconds is None  # nothing is known of the speed
        clock[0] += 20
        shown.update(50)
        line = shown.line()
    assert (line.done, line.rate, line.eta_seconds) == (450, 2.5, 220)  # 550 steps, 2.5 a second
    assert format_line(line) == "train: 450 of 1000 steps (45 %), 2.50 steps/s, 3:40 left"


def test_the_share_is_100_only_at_the_end() -> None:
    for done, share in ((0, 0), (999, 99), (1000, 100), (1001, 100)):
        line = ProgressLine(label="a", done=done, total=1000, unit="steps", rate=1.0, eta_seconds=0)
        assert f"({share} %)" in format_line(line)


def test_a_line_each_interval_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(progress.SECONDS_VARIABLE, "0.01")
    three = threading.Event()

    def count(record: logging.LogRecord) -> bool:
        if len(caplog.records) >= 3:
            three.set()
        return True

    monkeypatch.setattr(progress.log, "filters", [count])
    with caplog.at_level(logging.INFO):
        for item in track("abc", "some", "letter", 3):
            if item == "b":
                assert three.wait(60)  # though nothing is done meanwhile
    lines = [parse_line(message) for message in caplog.messages]
    assert all(lines) and {line.done for line in lines[:2]} <= {0, 1}
    assert caplog.messages[-1].startswith("some: 3 of 3 letters (100 %), ")


def test_work_that_fails_has_a_last_line_too(caplog: pytest.LogCaptureFixture) -> None:
    failing = Progress("some", "letter", 3)
    with caplog.at_level(logging.INFO), pytest.raises(KeyError), failing:
        failing.update()
        raise KeyError
    assert [parse_line(message).done for message in caplog.messages] == [1]


def test_where_nothing_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        with Progress("some", "letter", 3, shown=False) as hidden:
            hidden.update(3)
        with Progress("some", "letter", 0):
            pass
        with logging_to(LogSettings(quiet=True)), Progress("some", "letter", 1) as quiet:
            quiet.update()
    assert not caplog.messages


class Terminal:
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_has_a_bar(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO), logging_to(LogSettings(quiet=quiet)):
        list(track("abc", "some", "letter", 3))
    assert bool(re.search(r"some: 100%.*\| 3/3 \[.*letter/s\]", terminal.text)) is not quiet
    assert not caplog.messages


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e30"])
def test_no_interval(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.SECONDS_VARIABLE, text)
    with pytest.raises(UserError, match=f"={re.escape(text)}: must be a number of seconds above 0"):
        progress.interval_seconds()


def test_the_interval_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(progress.SECONDS_VARIABLE, raising=False)
    assert progress.interval_seconds() == 30
