"""The faults: each is injected into a command, which is then run again and compared."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzz import judge, zygote
from fuzz.mutations import make_writable
from fuzz.zygote import Ending, Limits

from faults import commands
from faults.commands import OUT, PARTIAL, Command

INTERRUPTED = 130
STOP_SECONDS = {"preprocess": 2.0}  # within which Ctrl-C and SIGTERM must be obeyed
MAX_STOP_SECONDS = 15.0
LIMITS = Limits(seconds=60)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table."""

    fault: str
    command: str
    ending: str
    left: str  # on the disk
    rerun: str
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where faults are injected into one command."""

    command: Command
    base: Path
    folder: Path
    expected: dict[str, str]  # what an undisturbed run makes
    seconds: float  # how long that takes
    size: int  # bytes that it writes

    def new_case(self) -> Path:
        """A folder with good files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        return commands.prepare(self.command, self.base, self.folder / "case")

    def text(self, name: str) -> str:
        """What the command has printed: its standard error."""
        path = self.folder / f"{name}err"
        return path.read_text(errors="replace") if path.is_file() else ""


def observe(command: Command, base: Path, folder: Path) -> Place:
    """Run a command undisturbed.

    Raises:
        RuntimeError: it fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    case = commands.prepare(command, base, folder / "case")
    ending = zygote.run(lambda: commands.run(command.words), case, LIMITS)
    if ending.code != 0:
        raise RuntimeError(f"{command.name}: {(folder / 'stderr').read_text()}")
    size = sum(path.stat().st_size for path in (case / OUT).rglob("*") if path.is_file())
    return Place(
        command=command, base=base, folder=folder, expected=commands.made(case),
        seconds=ending.seconds, size=size,
    )  # fmt: skip


def finish(place: Place, case: Path, fault: str, ending: Ending, problems: list[str]) -> Row:
    """Run the command again and compare."""
    left = commands.left(case)
    again = zygote.run(lambda: commands.run(place.command.words), case, LIMITS, name="again")
    text, rerun = place.text("again"), "equal"
    problems = [*problems, *_crash_problems(text)]
    done = "steps are done already" in text  # it had ended before the fault came
    if again.code != 0 and not done:
        rerun = f"exit code {again.code}: {text.rstrip().splitlines()[-1:]}"
        problems.append(f"the rerun: {rerun}")
    else:
        found = commands.made(case)
        # A training that is stopped saves the step that it has come to.
        names = {n for n in found if "checkpoint_step" not in n} | {*place.expected}
        differing = sorted(n for n in names if found.get(n) != place.expected.get(n))
        if differing:
            rerun = f"differs: {differing[:3]}"
            lasting = [n for n in differing if PARTIAL not in n or place.command.resumes]
            problems += [f"the rerun: {rerun}"] if lasting else []
    code = "hangs" if ending.timed_out else f"{ending.code}"
    return Row(
        fault=fault, command=place.command.name, ending=code, left=left, rerun=rerun,
        problems=problems,
    )  # fmt: skip


def _error_problems(place: Place, ending: Ending, codes: tuple[int, ...]) -> list[str]:
    text = place.text("std")
    return judge.ending_problems(ending, "", text, 0, codes)


def _crash_problems(text: str) -> list[str]:
    """Words of a crash, with all that was said: the moment will not come again."""
    return [f"says {word!r}:\n{text}" for word in judge.CRASH_WORDS if word in text]


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system in memory of this size.

    Raises:
        PermissionError: it cannot be mounted here.
    """
    words = ["mount", "-t", "tmpfs", "-o", f"size={max(4096, size)}", "none", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermissionError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(place: Place, share: float) -> Row:
    """A disk that holds a part of what the command writes; then it gets room."""
    case = place.new_case()
    with small_disk(case / OUT, int(place.size * share)):
        ending = zygote.run(lambda: commands.run(place.command.words), case, LIMITS)
        problems = _error_problems(place, ending, (0, judge.REFUSED))
        if ending.code == judge.REFUSED and "space" not in place.text("std").lower():
            problems.append("does not say that the disk is full")
        size = f"remount,size={place.size * 3 + (64 << 20)}"
        subprocess.run(["mount", "-o", size, str(case / OUT)], check=True)
        return finish(place, case, f"disk of {share:.0%}", ending, problems)


def read_only(place: Place) -> Row:
    """A folder that cannot be written; then it can."""
    case = place.new_case()
    (case / OUT).chmod(0o555)
    ending = zygote.run(lambda: commands.run(place.command.words), case, LIMITS)
    make_writable(case)
    problems = _error_problems(place, ending, (judge.REFUSED,))
    return finish(place, case, "read-only folder", ending, problems)


def signalled(place: Place, number: int, random: Random, *, group: bool) -> Row:
    """A signal at a random moment, to the process or to its group."""
    case, started = place.new_case(), time.monotonic()
    words = place.command.words
    pid = zygote.fork(lambda: commands.run(words), case, LIMITS)
    moment = random.uniform(0.0, 1.05) * place.seconds
    time.sleep(moment)
    sent = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, number)
    ending = zygote.wait(pid, started, LIMITS)
    taken = time.monotonic() - sent
    problems = []
    if number != signal.SIGKILL:
        # In the first moments Python has not set its handler yet; at the end, when all is written,
        # it has none any more.
        ended = commands.made(case) == place.expected
        codes = (0, INTERRUPTED, -number) if moment < 0.2 or ended else (0, INTERRUPTED)
        problems = [] if ending.code in codes else _error_problems(place, ending, codes)
        problems += _crash_problems(place.text("std"))
        if taken > STOP_SECONDS.get(place.command.name, MAX_STOP_SECONDS):
            problems.append(f"stopped after {taken:.1f} s")
        if ending.code == INTERRUPTED and PARTIAL in commands.left(case):
            problems.append("partial files are left")
    name = f"{signal.Signals(number).name}{' to the group' if group else ''} at {moment:.2f} s"
    return finish(place, case, name, ending, problems)


def killed_worker(place: Place, random: Random) -> Row:
    """SIGKILL to a worker process at a random moment."""
    case, started = place.new_case(), time.monotonic()
    pid = zygote.fork(lambda: commands.run(place.command.words), case, LIMITS)
    deadline = started + place.seconds
    children: list[int] = []
    while not children and time.monotonic() < deadline:
        children = _children(pid)
        time.sleep(0.01)
    moment = random.uniform(0.0, 0.8) * place.seconds
    time.sleep(moment)
    for child in _children(pid)[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    ending = zygote.wait(pid, started, LIMITS)
    problems = _error_problems(place, ending, (0,))
    return finish(place, case, f"worker killed at {moment:.2f} s", ending, problems)


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def second_run(place: Place) -> Row:
    """The same command, while the first one runs."""
    case, started = place.new_case(), time.monotonic()
    first = zygote.fork(lambda: commands.run(place.command.words), case, LIMITS)
    time.sleep(min(0.25, place.seconds / 3))
    second = zygote.run(lambda: commands.run(place.command.words), case, LIMITS, name="second")
    ending = zygote.wait(first, started, LIMITS)
    problems = _error_problems(place, ending, (0,))
    text = place.text("second")
    if second.code != judge.REFUSED or "another run" not in text:
        problems.append(f"the second run: exit code {second.code}, {text.splitlines()[-1:]}")
    return finish(place, case, "a second run", ending, problems)


def jumping_clock(place: Place, random: Random) -> Row:
    """A clock that goes forward and back by a year, from call to call."""
    case = place.new_case()
    real = time.time

    def run() -> int:
        time.time = lambda: real() + random.choice((-1, 0, 1)) * 365 * 86_400
        return commands.run(place.command.words)

    ending = zygote.run(run, case, LIMITS)
    problems = _error_problems(place, ending, (0,))
    return finish(place, case, "a clock that jumps", ending, problems)


Injection = Callable[[Place], Row]
