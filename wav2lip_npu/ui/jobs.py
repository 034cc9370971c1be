"""Jobs of visitors: processes, one at a time, the others wait."""

from __future__ import annotations

import enum
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wav2lip_npu.console.progress import SECONDS_VARIABLE, ProgressLine, parse_line
from wav2lip_npu.errors import UserError
from wav2lip_npu.ui.processes import ERROR_PREFIX, end_process, start

MAX_WAITING = 20  # jobs of all visitors
LOG_LINES = 200  # of a job's output that are kept
STOP_SECONDS = 3.0  # from the request to end to the end
PROGRESS_SECONDS = "1"  # between two lines that tell how far a command is


class State(enum.Enum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(kw_only=True, eq=False)
class Job:
    """A process of a visitor."""

    visitor: str
    words: Sequence[str]  # of its command line, after ``python -m``
    folder: Path  # for its files
    on_end: Callable[[Job, bool], None]  # keeps its result if it is done, and removes its folder
    state: State = State.WAITING
    result: Path | None = None  # the file to show
    report: dict[str, Any] = field(default_factory=dict)  # see ``inspection``
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    progress: ProgressLine | None = None  # the last line of progress
    process: subprocess.Popen[str] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it ended, or never will begin."""
        return self.state in (State.DONE, State.FAILED, State.CANCELLED)

    @property
    def error(self) -> str:
        """Why it failed, in one line."""
        lines = [line for line in self.log if line.startswith(ERROR_PREFIX)]
        if lines:
            return lines[-1].removeprefix(ERROR_PREFIX)
        last = self.log[-1] if self.log else "it said nothing"
        return f"the process ended unexpectedly; its last line: {last}"

    def take(self, line: str) -> None:
        """Note a line that the process has written."""
        progress = parse_line(line)
        if progress is None:
            self.log.append(line)
        else:
            self.progress = progress


class JobQueue:
    """Runs jobs in the order in which they come. Safe to use from several threads."""

    def __init__(self) -> None:
        """Start the thread that runs jobs."""
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run_jobs, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            UserError: its visitor has a job already, or too many wait.
        """
        with self._changed:
            if any(other.visitor == job.visitor for other in self._jobs()):
                raise UserError("a job of this page is still running; cancel it first")
            if len(self._waiting) >= MAX_WAITING:
                raise UserError(f"{MAX_WAITING} jobs are waiting already; try again later")
            self._waiting.append(job)
            self._changed.notify_all()

    def ahead(self, job: Job) -> int:
        """How many jobs are to end before a waiting job begins."""
        with self._changed:
            running = self._running is not None
            return self._waiting.index(job) + running if job in self._waiting else 0

    def cancel(self, visitor: str) -> bool:
        """End the job of a visitor, if there is one."""
        with self._changed:
            jobs = [job for job in self._jobs() if job.visitor == visitor]
            for job in jobs:
                self._end(job)
            return bool(jobs)

    def close(self, seconds: float) -> None:
        """End all jobs; those that do not end in so many seconds are killed."""
        with self._changed:
            self._closed = True
            for job in self._jobs():
                self._end(job)
            running = self._running
            self._changed.notify_all()
        self._thread.join(seconds)
        if running is not None and running.process is not None:
            end_process(running.process, kill=True)
            self._thread.join(seconds)

    def _jobs(self) -> list[Job]:
        return [*self._waiting, *([self._running] if self._running else [])]

    def _end(self, job: Job) -> None:
        job.state = State.CANCELLED
        if job in self._waiting:
            self._waiting.remove(job)
            job.on_end(job, False)
        elif (process := job.process) is not None:
            end_process(process, kill=False)
            timer = threading.Timer(STOP_SECONDS, end_process, [process], {"kill": True})
            timer.daemon = True
            timer.start()

    def _run_jobs(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
                job.state = State.RUNNING
            is_done = False
            try:
                is_done = self._run(job)
                job.on_end(job, is_done)
            except OSError as error:
                is_done = False
                job.log.append(f"{ERROR_PREFIX}{error}")
            with self._changed:
                if job.state is State.RUNNING:
                    job.state = State.DONE if is_done else State.FAILED
                self._running = None

    def _run(self, job: Job) -> bool:
        """Run a job to its end; whether it did what it was to do."""
        with self._changed:
            if job.is_over:  # cancelled meanwhile
                return False
            job.process = start(
                job.words,
                stderr=subprocess.STDOUT,
                env={**os.environ, SECONDS_VARIABLE: PROGRESS_SECONDS, "PYTHONUNBUFFERED": "1"},
            )
        output = job.process.stdout
        assert output is not None
        with output:
            for line in output:
                job.take(line.rstrip("\n"))
        return job.process.wait() == 0 and job.state is State.RUNNING
