"""Worker processes: what a job that fails, crashes or never ends does to the others."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.workers import Outcome, WorkerPool


class Adder:
    """Adds a number to jobs; some jobs are told to fail."""

    def __init__(self, number: int, notes: Path) -> None:
        self.number = number
        self.notes = notes

    def process(self, job: object) -> object:
        if job == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if job == "error":
            raise KeyError("a bug")
        if job == "bad input":
            raise UserError("x.mp4: no face")
        if job == "disk":
            raise OSError(5, "Input/output error")
        if job == "long":
            (self.notes / "long").touch()
            time.sleep(600)
        return os.getpid(), job + self.number  # type: ignore[operator]


class Unmakeable:
    """A worker that cannot be made."""

    def __init__(self, kind: str) -> None:
        if kind == "user":
            raise UserError("no weights")
        if kind == "memory":
            raise MemoryError
        os._exit(7)

    def process(self, job: object) -> object:
        return job


def run(pool: WorkerPool, *jobs: object) -> dict[object, Outcome]:
    for job in jobs:
        pool.submit(job)
    return {outcome.job: outcome for outcome in pool.outcomes()}


def test_a_job_that_fails_costs_itself_alone(tmp_path: Path) -> None:
    pool: WorkerPool = WorkerPool(Adder, [(10, tmp_path)])
    try:
        found = run(pool, 1, "crash", 2, "error", "bad input", "disk", 3)
    finally:
        pool.close()
    assert {job: found[job].result[1] for job in (1, 2, 3)} == {1: 11, 2: 12, 3: 13}
    pids = [found[job].result[0] for job in (1, 2, 3)]
    assert pids[0] != pids[1] == pids[2]  # kept, but for the crash
    failed = {job: found[job].failure for job in ("crash", "error", "bad input", "disk")}
    assert failed["crash"].reason == "the process that did it was ended by signal SIGSEGV"
    assert failed["error"].reason == "KeyError: 'a bug'"
    assert failed["bad input"].reason == "x.mp4: no face"
    assert failed["disk"].reason == "Input/output error"
    assert {job: (one.may_pass, one.is_fault) for job, one in failed.items()} == {
        "crash": (True, True),
        "error": (False, True),
        "bad input": (False, False),
        "disk": (True, True),
    }


def test_a_job_may_be_submitted_again_while_others_run(tmp_path: Path) -> None:
    pool: WorkerPool = WorkerPool(Adder, [(1, tmp_path), (1, tmp_path)])
    pool.submit("error")
    answers = []
    try:
        for outcome in pool.outcomes():
            answers.append(outcome.job)
            if len(answers) == 1:
                pool.submit(5)
    finally:
        pool.close()
    assert answers == ["error", 5]


def test_what_may_pass_is_tried_once_more_after_the_others(tmp_path: Path) -> None:
    pool: WorkerPool = WorkerPool(Adder, [(1, tmp_path)])
    for job in ("crash", "disk", "error", "bad input", 4):
        pool.submit(job)
    answers = []
    try:
        for outcome in pool.outcomes():
            smaller = 5 if outcome.job == "disk" else outcome.job
            if not pool.try_again(outcome, smaller):
                answers.append((outcome.job, outcome.is_second_try))
    finally:
        pool.close()
    assert answers == [
        ("error", False),
        ("bad input", False),
        (4, False),
        ("crash", True),
        (5, True),
    ]


def test_stop_drops_the_jobs_at_hand_at_once(tmp_path: Path) -> None:
    pool: WorkerPool = WorkerPool(Adder, [(1, tmp_path)])
    stop = threading.Event()

    def stop_when_it_runs() -> None:
        while not (tmp_path / "long").exists():
            time.sleep(0.05)
        stop.set()

    threading.Thread(target=stop_when_it_runs).start()
    for job in (1, "long", 2):
        pool.submit(job)
    answers = [outcome.job for outcome in pool.outcomes(stop)]
    assert stop.is_set()
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 20  # of the ten minutes that the job would take
    assert answers == [1]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("user", "^no weights$"),
        ("memory", "the last one out of memory; if memory is short"),
        ("exit", "the last one exited with code 7"),
    ],
)
def test_workers_that_cannot_start_end_the_run(kind: str, message: str) -> None:
    pool: WorkerPool = WorkerPool(Unmakeable, [(kind,)])
    pool.submit(1)
    try:
        with pytest.raises(UserError, match=message):
            list(pool.outcomes())
    finally:
        pool.close()
