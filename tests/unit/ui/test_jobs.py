"""Jobs run one after the other, and end when they are told to."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.ui import jobs
from wav2lip_npu.ui.jobs import Job, JobQueue, State

SLEEPER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("started", flush=True)
{ignore}
time.sleep(600)
"""
IGNORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    made = JobQueue()
    yield made
    made.close(0.5)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module; its name is returned."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    numbers = iter(range(100))

    def write(text: str) -> str:
        name = f"script_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def job(
    visitor: str, *words: object, folder: Path, ended: list[tuple[str, bool]] | None = None
) -> Job:
    notes: list[tuple[str, bool]] = [] if ended is None else ended
    return Job(
        visitor=visitor,
        words=[str(word) for word in words],
        folder=folder,
        on_end=lambda one, done: notes.append((one.visitor, done)),
    )


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_after_the_other(
    queue: JobQueue, scripts: Callable[[str], str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    text = (
        "import sys, time\nlog = open(sys.argv[1], 'a', buffering=1)\n"
        "print('({0}', end='', file=log, flush=True)\ntime.sleep(0.2)\n"
        "print('{0})', end='', file=log)"
    )
    ended: list[tuple[str, bool]] = []
    several = [job(n, scripts(text.format(n)), log, folder=tmp_path, ended=ended) for n in "abc"]
    for one in several:
        queue.submit(one)
    assert [queue.ahead(one) for one in several[1:]] in (
        [1, 2],
        [2, 3],
    )  # b waits for a, c for both
    wait_for(lambda: all(one.is_over for one in several))
    assert [one.state for one in several] == [State.DONE] * 3
    assert log.read_text() == "(aa)(bb)(cc)"
    assert ended == [("a", True), ("b", True), ("c", True)]


def test_failures_are_told(queue: JobQueue, scripts: Callable[[str], str], tmp_path: Path) -> None:
    ended: list[tuple[str, bool]] = []
    prefix = jobs.ERROR_PREFIX
    told = job(
        "a",
        scripts(f"print('x'); raise SystemExit('{prefix}no face')"),
        folder=tmp_path,
        ended=ended,
    )
    killed = job(
        "b",
        scripts("import os\nprint('half', flush=True)\nos.kill(os.getpid(), 9)"),
        folder=tmp_path,
    )
    for one in (told, killed):
        queue.submit(one)
    wait_for(lambda: killed.is_over)
    assert (told.state, told.error) == (State.FAILED, "no face")
    assert killed.state is State.FAILED
    assert killed.error == "the process ended unexpectedly; its last line: half"
    assert ended == [("a", False)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
@pytest.mark.parametrize("ignore", ["", IGNORE])
def test_a_cancelled_job_ends_with_its_children(
    queue: JobQueue,
    scripts: Callable[[str], str],
    tmp_path: Path,
    ignore: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "STOP_SECONDS", 0.2)
    ended: list[tuple[str, bool]] = []
    pid_file = tmp_path / "pid"
    running = job(
        "a", scripts(SLEEPER.format(ignore=ignore)), pid_file, folder=tmp_path, ended=ended
    )
    waiting = job("b", scripts("pass"), folder=tmp_path, ended=ended)
    for one in (running, waiting):
        queue.submit(one)
    wait_for(lambda: len(running.log) == (2 if ignore else 1))
    child = int(pid_file.read_text())
    assert is_running(child)
    assert not queue.cancel("c")  # has none, and cannot end another's
    assert running.state is State.RUNNING
    assert queue.cancel("b") and waiting.state is State.CANCELLED
    assert ended == [("b", False)]
    assert queue.cancel("a") and running.state is State.CANCELLED
    wait_for(lambda: len(ended) == 2)
    assert ended[1] == ("a", False)
    assert running.process is not None and running.process.returncode < 0
    wait_for(lambda: not is_running(child))


def test_the_limits(queue: JobQueue, scripts: Callable[[str], str], tmp_path: Path) -> None:
    sleeper = scripts("import time; time.sleep(600)")
    queue.submit(first := job("first", sleeper, folder=tmp_path))
    wait_for(lambda: first.state is State.RUNNING)
    with pytest.raises(UserError, match="a job of this page is still running"):
        queue.submit(job("first", sleeper, folder=tmp_path))
    for number in range(jobs.MAX_WAITING):
        queue.submit(job(str(number), sleeper, folder=tmp_path))
    with pytest.raises(UserError, match="jobs are waiting already"):
        queue.submit(job("one more", sleeper, folder=tmp_path))


def test_closing_ends_everything(scripts: Callable[[str], str], tmp_path: Path) -> None:
    queue = JobQueue()
    ended: list[tuple[str, bool]] = []
    deaf = scripts(SLEEPER.format(ignore=IGNORE))
    queue.submit(running := job("a", deaf, tmp_path / "pid", folder=tmp_path, ended=ended))
    queue.submit(waiting := job("b", deaf, tmp_path / "pid", folder=tmp_path, ended=ended))
    wait_for(lambda: len(running.log) == 2)
    queue.close(0.2)
    assert running.process is not None and running.process.poll() is not None
    assert ended == [("b", False), ("a", False)]
    assert waiting.process is None
    assert not any(
        one.name == "jobs" and one.is_alive() and one is queue._thread
        for one in threading.enumerate()
    )


def test_the_environment_of_a_job(
    queue: JobQueue, scripts: Callable[[str], str], tmp_path: Path
) -> None:
    """No module is taken from a visitor's folder, and progress comes in lines."""
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "numbers.py").write_text("raise SystemExit('hostile')")
    one = job(
        "a",
        scripts(
            "import os, numbers\nprint(os.getcwd(), os.environ['WAV2LIP_NPU_PROGRESS_SECONDS'])"
        ),
        folder=tmp_path / "uploads",
    )
    queue.submit(one)
    wait_for(lambda: one.is_over)
    assert [*one.log] == [f"{Path.cwd()} 1"]
