"""``infer --jobs``: a list of videos, done one by one in a process that may die without harm.

Only that process loads torch.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.voices import inputs_of, split_line, to_path
from wav2lip_npu.media.outfile import (
    FileIdentity,
    check_files,
    file_identity,
    is_written,
    remove_leftovers,
)
from wav2lip_npu.run_options import options_path, write_options
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import read_text
from wav2lip_npu.runtime.threads import limit_threads, process_share
from wav2lip_npu.runtime.workers import WorkerPool

JOB_COLUMNS = ("face", "audio", "outfile")
MAX_NAMED = 20  # failed jobs that the last line names

log = logging.getLogger(__name__)


# Options that a line may have of its own; where its field is empty, the command's are used.
MORE_COLUMNS: dict[str, Callable[[str], object]] = {
    **{"voices": to_path, "final_audio": to_path, "face_select": str, "start": float, "end": float}
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A line of the list."""

    line: int
    face: Path
    audio: Path | None
    outfile: Path
    more: dict[str, Any] = field(default_factory=dict)  # other options, by their names
    halves_batches: bool = False  # at the second try, as memory may have been short

    def options(self, config: InferConfig) -> InferConfig:
        """The options of ``infer`` for this video alone.

        Raises:
            UserError: one of the line is missing or not allowed.
        """
        share = 2 if self.halves_batches else 1
        return replace(
            config,
            face=self.face,
            audio=self.audio,
            outfile=self.outfile,
            **self.more,
            jobs=None,
            devices=None,
            resume=False,
            wav2lip_batch_size=-(-config.wav2lip_batch_size // share),
            face_det_batch_size=-(-config.face_det_batch_size // share),
        )


class JobWorker:
    """Does jobs, in a process of its own; the networks stay loaded."""

    def __init__(self, config: InferConfig, workers: int, card_offset: int) -> None:
        """Load the networks.

        Args:
            config: the options.
            workers: processes that share the cores.
            card_offset: how far this one's card is from the device of ``config``.

        Raises:
            UserError: they cannot be loaded.
        """
        from wav2lip_npu.inference.lip_sync import LipSync

        if workers > 1:
            limit_threads(workers)
        self._config = config
        try:
            self._lip_sync = LipSync.from_config(config, card_offset=card_offset)
            if config.box[0] == -1:
                log.debug("%s is loaded", self._lip_sync.detector.name)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"the networks cannot be loaded ({reason(error)})") from error

    def process(self, job: Job) -> None:
        """Write a video."""
        from wav2lip_npu.inference.one_video import infer_video

        config = job.options(self._config)
        self._lip_sync.config = config
        infer_video(lambda: self._lip_sync, config)


def infer_jobs(config: InferConfig) -> None:
    """Do all jobs of the list, whatever becomes of the others.

    They are shared by the cards of ``--devices``; and, if torchrun started this process, by all of
    its processes: of N each takes every N-th line.

    Raises:
        UserError: the list or the networks cannot be read; or, when the others are done, of those
            that failed.
    """
    assert config.jobs is not None
    jobs, failed = read_jobs(config)
    rank, processes = process_share()
    jobs = jobs[rank::processes]
    if rank != 0:
        failed.clear()  # the first process tells
    total = len(jobs) + len(failed)
    if jobs:
        write_options(options_path(jobs[0].outfile.parent, config), config)
    for name, fault in failed.items():
        log.error("%s: %s", name, fault)
    for job, failure in do_jobs(jobs, config):
        if failure is not None:
            log.error("%s: %s", job.outfile, failure)
            failed[str(job.outfile)] = failure
    if failed:
        names = ", ".join([*failed][:MAX_NAMED]) + (", …" if len(failed) > MAX_NAMED else "")
        raise UserError(f"{config.jobs}: {len(failed)} of {total} jobs failed: {names}")


def do_jobs(jobs: Sequence[Job], config: InferConfig) -> Iterator[tuple[Job, str | None]]:
    """Do jobs on all cards, and tell of each, as it is done, why it failed, or None.

    What may pass is tried once more, with half of the batch sizes.

    Raises:
        UserError: the networks cannot be loaded.
    """
    waiting = {job.line: job for job in jobs}  # in the order in which they are begun
    cards = config.cards
    pool: WorkerPool[Job] = WorkerPool(JobWorker, [(config, len(cards), card) for card in cards])
    for job in jobs:
        pool.submit(job)
    try:
        for outcome in pool.outcomes():
            job, failure = waiting.pop(outcome.job.line), outcome.failure
            if failure is None:
                log.info("%s is done, %d to do", job.outfile, len(waiting))
                yield job, None
                continue
            remove_leftovers(job.outfile)
            smaller = replace(job, halves_batches=True)
            if pool.try_again(outcome, smaller):
                log.warning("%s: %s; it is tried again at the end", job.outfile, failure.reason)
                waiting[job.line] = smaller
            else:
                yield job, failure.reason
    finally:
        pool.close()
        for job in [*waiting.values()][: len(cards)]:
            remove_leftovers(job.outfile)


def read_jobs(config: InferConfig) -> tuple[list[Job], dict[str, str]]:
    """The jobs of ``--jobs`` that are to be done; their files are relative to the current folder.

    Returns:
        The jobs, and of each line that is wrong what it is called and why.

    Raises:
        UserError: no such file, not of these columns, or empty.
    """
    assert config.jobs is not None
    lines = [*io.StringIO(read_text(config.jobs), newline=None)]
    jobs: list[Job] = []
    faults: dict[str, str] = {}
    names: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = split_line(line)
            if not any(record):
                continue
            if not names:
                names = _columns(config.jobs, record)
                continue
            jobs.append(_job(number, names, record))
        except (csv.Error, ValueError) as error:
            faults[f"line {number}"] = str(error)
    if not names:
        raise UserError(f"{config.jobs}: its first line must be {','.join(JOB_COLUMNS)}")
    if not jobs and not faults:
        raise UserError(f"{config.jobs}: has no jobs")
    return _usable(jobs, config, faults), faults


def _columns(path: Path, record: list[str]) -> list[str]:
    required = {*JOB_COLUMNS} - ({"audio"} if "voices" in record else set())
    known = {*JOB_COLUMNS, *MORE_COLUMNS}
    if not required <= {*record} <= known or len({*record}) < len(record):
        raise UserError(
            f"{path}: its first line must be {','.join(JOB_COLUMNS)}, and may have "
            f"{','.join(MORE_COLUMNS)} besides"
        )
    return record


def _job(line: int, names: list[str], record: list[str]) -> Job:
    """Raise ValueError where the record lacks a file, or has a word for a number."""
    if len(record) != len(names):
        raise ValueError(f"{','.join(names)} are wanted, {len(record)} fields are there")
    words = {name: word for name, word in zip(names, record, strict=True) if word}
    for name in ("face", "outfile", "audio"):
        if name not in words and not (name == "audio" and "voices" in words):
            raise ValueError(f"{name} is missing")
    files = {name: to_path(words.pop(name)) for name in JOB_COLUMNS if name in words}
    more: dict[str, Any] = {}
    for name, word in words.items():
        try:
            more[name] = MORE_COLUMNS[name](word)
        except ValueError:
            raise ValueError(f"{name} {word}: must be a number") from None
    return Job(
        line=line, face=files["face"], audio=files.get("audio"), outfile=files["outfile"], more=more
    )


def _usable(jobs: list[Job], config: InferConfig, faults: dict[str, str]) -> list[Job]:
    """The jobs that are not done already and whose outfile can be written; else a fault is added.

    No video may be written over an input of any job.
    """
    inputs: dict[Path, int] = {}
    possible = []
    for job in jobs:
        try:
            for path in inputs_of(job.options(config)):
                inputs.setdefault(path, job.line)
            possible.append(job)
        except UserError as error:
            faults[f"line {job.line}"] = str(error)
    inputs_by_identity = _identities(inputs)
    written: dict[FileIdentity, int] = {}
    usable = []
    for job in possible:
        if config.resume and is_written(job.outfile):
            log.info("%s is there already", job.outfile)
            continue
        try:
            check_files(job.outfile, config.network_files)
            identity = file_identity(job.outfile)
            other = inputs_by_identity.get(identity)
            if other is not None:
                raise UserError(f"{job.outfile}: is an input of line {other}")
            if identity in written:
                raise UserError(f"{job.outfile}: line {written[identity]} writes it already")
            written[identity] = job.line
            usable.append(job)
        except (UserError, OSError) as error:
            faults[f"line {job.line}"] = reason(error)
    return usable


def _identities(lines: dict[Path, int]) -> dict[FileIdentity, int]:
    found: dict[FileIdentity, int] = {}
    for path, line in lines.items():
        try:
            found.setdefault(file_identity(path), line)
        except OSError:
            continue
    return found
