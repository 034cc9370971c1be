"""Worker processes in which a job may fail in any way, without harm to the others.

``concurrent.futures`` ends the whole pool when a process dies. Here a process that a decoder's
crash or the system ends costs its job alone, and another one takes its place.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from wav2lip_npu.console import logs
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import failures

STOP_CHECK_SECONDS = 0.2  # between looks at whether to stop
MAX_START_FAILURES = 2  # of processes in a row that die before they are ready

log = logging.getLogger(__name__)

Job = TypeVar("Job")


class Worker(Protocol):
    """What a process does; it is made in the process, and kept between jobs."""

    def process(self, job: Any) -> Any:
        """Do a job; job and result go through a pipe."""
        ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no result."""

    reason: str  # one line
    may_pass: bool  # whether a second try makes sense
    is_fault: bool  # whether the input is not to blame: a rerun should try again


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Job]):
    """What became of a job: a result, or a failure."""

    job: Job
    result: Any = None
    failure: Failure | None = None
    is_second_try: bool = False


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A job that waits or is done."""

    job: Any
    is_second_try: bool = False


class WorkerPool(Generic[Job]):
    """Processes that do jobs side by side. Close it, which ends them at once."""

    def __init__(self, worker: type, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Start no process yet: each is started for its first job.

        Args:
            worker: a class with a method ``process``, see ``Worker``.
            arguments: what each process makes it of; as many processes as elements.
        """
        self._slots = [_Slot(worker, one) for one in arguments]
        self._tasks: deque[_Task] = deque()

    def submit(self, job: Job) -> None:
        """Add a job, also while ``outcomes`` is read."""
        self._tasks.append(_Task(job=job))

    def try_again(self, outcome: Outcome[Job], job: Job) -> bool:
        """Add a job that has failed once more, after all others, if that makes sense.

        Args:
            outcome: of its first try.
            job: the same job, maybe changed so that it needs less.

        Returns:
            False if it was its second try, or would fail again.
        """
        is_wanted = outcome.failure is not None and outcome.failure.may_pass
        if not is_wanted or outcome.is_second_try:
            return False
        self._tasks.append(_Task(job=job, is_second_try=True))
        return True

    def outcomes(self, stop: threading.Event | None = None) -> Iterator[Outcome[Job]]:
        """What becomes of the jobs, as they are done, until none is left.

        Args:
            stop: ends the iteration soon after it is set: the outcomes that are there are given,
                the jobs at hand are dropped.

        Raises:
            UserError: a worker cannot be made, or no process can be started.
        """
        while self._tasks or any(slot.task for slot in self._slots):
            stopped = stop is not None and stop.is_set()
            if not stopped:
                self._give_jobs()
            busy = {slot.connection: slot for slot in self._slots if slot.task}
            ready = wait([*busy], 0 if stopped else STOP_CHECK_SECONDS)
            for connection in ready:
                slot = busy[connection]  # type: ignore[index]
                outcome = slot.receive()
                if outcome is not None:
                    yield outcome
                elif slot.start_failures >= MAX_START_FAILURES:
                    self._give_up(slot)
            if stopped and not ready:
                return

    def _give_jobs(self) -> None:
        for slot in self._slots:
            if self._tasks and not slot.task:
                slot.give(self._tasks.popleft())

    def _give_up(self, slot: _Slot) -> None:
        """Go on without a process that does not start.

        Raises:
            UserError: it was the last.
        """
        self._slots.remove(slot)
        log.warning("a worker process could not be started: it %s", slot.start_failure)
        if not self._slots:
            raise UserError(
                f"no worker process can be started: the last one {slot.start_failure}; if memory "
                "is short, let fewer work at the same time"
            )
        assert slot.task is not None
        self._tasks.append(slot.task)

    def close(self) -> None:
        """End the processes, whatever they do."""
        for slot in self._slots:
            slot.end()


class _Slot:
    """The place of one process: another one follows when it dies."""

    def __init__(self, worker: type, arguments: tuple[Any, ...]) -> None:
        self._worker = worker
        self._arguments = arguments
        self._process: multiprocessing.process.BaseProcess | None = None
        self._ready = False  # whether the worker has been made
        self.connection: Connection
        self.task: _Task | None = None  # the one at hand
        self.start_failures = 0
        self.start_failure = ""  # the reason of the last one

    def give(self, task: _Task) -> None:
        """Start the job, and the process if there is none."""
        self.task = task
        if self._process is None:
            self._start()
        self._send(task.job)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork must not touch an accelerator
        self.connection, other = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(other, self._worker, self._arguments, logs.current_settings(), _log_level()),
        )
        self._ready = False
        self._process.start()
        other.close()

    def _send(self, job: Any) -> None:
        try:
            self.connection.send(job)
        except OSError:  # it has died; ``receive`` says so
            return

    def receive(self) -> Outcome | None:
        """What the process says: the job's outcome, or None: it has started, or could not.

        Raises:
            UserError: the worker cannot be made, for a reason that a user can mend.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self._died()
        if isinstance(message, Outcome):
            return self._finish(message)
        if isinstance(message, UserError):
            raise message
        if isinstance(message, Failure):
            self._not_started(message.reason)
            return None
        self._ready, self.start_failures = True, 0
        return None

    def _died(self) -> Outcome | None:
        assert self._process is not None
        self._process.join()
        exit_reason = failures.describe_exit(self._process.exitcode)
        if not self._ready:
            self._not_started(exit_reason)
            return None
        self.end()
        reason = f"the process that did it {exit_reason}"
        return self._finish(
            Outcome(job=None, failure=Failure(reason=reason, may_pass=True, is_fault=True))
        )

    def _finish(self, outcome: Outcome) -> Outcome:
        """The outcome of the task at hand, which is none any more."""
        assert self.task is not None
        task, self.task = self.task, None
        return replace(outcome, job=task.job, is_second_try=task.is_second_try)

    def _not_started(self, reason: str) -> None:
        self.end()
        self.start_failures += 1
        self.start_failure = reason
        if self.start_failures < MAX_START_FAILURES:
            assert self.task is not None
            self.give(self.task)

    def end(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self.connection.close()


def _log_level() -> int:
    return logging.getLogger("wav2lip_npu").getEffectiveLevel()


def _serve(
    connection: Connection,
    worker_class: type,
    arguments: tuple[Any, ...],
    settings: logs.LogSettings,
    log_level: int,
) -> None:
    """The life of a process: make the worker, say so, do jobs until the parent is gone."""
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent ends this process when it stops
    logs.set_up_worker(settings, log_level)
    try:
        worker: Worker = worker_class(*arguments)
    except UserError as error:
        connection.send(UserError(str(error)))
        return
    except Exception as error:
        connection.send(_failure(error))
        return
    connection.send(None)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(worker, job))


def _outcome(worker: Worker, job: Any) -> Outcome:
    try:
        return Outcome(job=job, result=worker.process(job))
    except Exception as error:
        log.debug("a job failed", exc_info=True)
        return Outcome(job=job, failure=_failure(error))


def _failure(error: Exception) -> Failure:
    may_pass = failures.may_pass(error)
    return Failure(
        reason=failures.reason(error),
        may_pass=may_pass,
        is_fault=may_pass or not isinstance(error, UserError),
    )


def end_with_parent() -> None:
    """In a worker process: ignore Ctrl-C, leave the parent's process group, end when it ends.

    The parent answers signals to the group. A signal to the worker itself still ends it: that is
    how Python stops workers that are left at exit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
