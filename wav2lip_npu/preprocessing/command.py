"""Videos to training data: face crops at 25 frames a second, and 16 kHz audio.

Worker processes cut clips in ``.partial`` (see ``clip``); this one writes the report of each and
then moves it to its place. So a clip is there whole or not at all, and its report before it. A run
that was killed at any moment is continued to what one run would have made.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path

from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.config.base import CPU
from wav2lip_npu.console.progress import Progress
from wav2lip_npu.data.clips import AUDIO, publish_clip, remove_clip
from wav2lip_npu.errors import UserError
from wav2lip_npu.preprocessing import report
from wav2lip_npu.preprocessing.clip import process_video
from wav2lip_npu.preprocessing.report import ClipReport
from wav2lip_npu.preprocessing.videos import find_videos
from wav2lip_npu.run_options import options_path, write_options
from wav2lip_npu.runtime import distributed, threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import file_state, read_bytes, write_text
from wav2lip_npu.runtime.locks import folder_lock
from wav2lip_npu.runtime.signals import stop_signals
from wav2lip_npu.runtime.workers import Failure, WorkerPool
from wav2lip_npu.tracking.detection import choose_detector, open_detector

OPTIONS = "preprocess_options.json"  # what decides the crops
PARTIAL = ".partial"  # where clips are before they are published
WORKER_TIMEOUT = timedelta(days=30)  # for which processes of one run wait for the slowest
WORKERS_PER_CARD = 4  # clips at the same time: while one is decoded, another is on the card

log = logging.getLogger(__name__)

Reports = Mapping[str, list[ClipReport]]  # by the video's path in the data root


def preprocess(config: PreprocessConfig) -> list[ClipReport]:
    """Cut every video below the data root; what is there already, and whole, is left alone.

    What became of each is written to ``preprocess_report.jsonl``. Of several processes each cuts
    its share.

    Returns:
        A report for each clip, those of earlier runs included; none in a process that is not the
        first of several.

    Raises:
        UserError: no video there, the detector cannot be had, clips there were cut with other
            options, or not one clip is usable.
    """
    sources = find_videos(config.data_root)
    root = config.preprocessed_root
    device = Device.open(config.device, config.precision, strict_fp32=config.strict_fp32)
    detector = choose_detector(config)
    workers = _choose_workers(config, device, detector)
    with distributed.join(device, timeout=WORKER_TIMEOUT) as world, ExitStack() as stack:
        with world.main_first():
            if world.is_main:
                stack.enter_context(folder_lock(root, "preprocess"))
                _check_options(config, detector)
                write_options(options_path(root, config), config)
                report.merge_reports(root)  # of an earlier run that was interrupted
                _remove_partial(root)
            former = report.read_reports(root / report.REPORT)
        share = dict(islice(sources.items(), world.rank, None, world.size))
        if world.size > 1:
            log.info("%d videos, %d for each of %d processes", len(sources), len(share), world.size)
        _process_share(share, former, config, workers, world)
        world.barrier()
        if not world.is_main:
            return []
        merged = report.merge_reports(root)
        _remove_partial(root)
    reports = [entry for source in sources for entry in merged.get(source, [])]
    report.summarize(reports, root)
    return reports


def _remove_partial(root: Path) -> None:
    """Remove what runs that were killed have left; each process has a folder with a number."""
    folder = root / PARTIAL
    for work in folder.glob("*"):
        if work.name.isdecimal():
            shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):  # it is not there, or it has files that are not ours
        folder.rmdir()


def _check_options(config: PreprocessConfig, detector: str) -> None:
    """Keep crops of different kinds from being mixed.

    Raises:
        UserError: the clips there were cut with other options, or nobody knows with which.
    """
    options: dict[str, object] = {
        "detector": detector,
        "detect_every": config.detect_every,
        # Before, true was an average over the next four frames: other crops.
        "smooth_boxes": "centred" if config.smooth_boxes else False,
        "scene_cuts": config.scene_cuts,
        "align": config.align,
    }
    if detector == "s3fd":
        options["precision"] = config.precision
    path = config.preprocessed_root / OPTIONS
    if not path.exists():
        write_text(path, json.dumps(options, indent=2) + "\n")
        return
    try:
        former = json.loads(read_bytes(path))
        if not isinstance(former, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({reason(error)}); it tells the options of the clips there: "
            "if they are those of now, delete it"
        ) from error
    former = {"align": "off"} | former  # an option since 0.2
    for name in sorted(options):
        if former.get(name) != options.get(name):
            raise UserError(
                f"--preprocessed_root {path.parent}: its clips were cut with --{name} "
                f"{_spelled(former.get(name))}, not {_spelled(options.get(name))}; give that, or "
                "another folder"
            )


def _spelled(value: object) -> object:
    """An entry of the options file as on the command line."""
    if value is True:
        return "True of an earlier version, which averaged the next four frames"
    return True if value == "centred" else value


def _choose_workers(config: PreprocessConfig, device: Device, detector: str) -> list[int]:
    """A worker for each clip to be cut at the same time: how far its card is from ``device``.

    Raises:
        UserError: ``--devices`` names a card that is not there, or that is another process's.
    """
    kind = device.torch_device.type
    if detector != "s3fd" or kind == CPU:
        workers = config.num_workers or threads.share_of_cores()
        log.info("face detector: %s on cpu, clips at the same time: %d", detector, workers)
        return [0] * workers
    if config.devices and ":" in config.device:
        raise UserError(f"--devices {config.devices}: has no effect with --device {config.device}")
    cards = config.cards
    missing = [number for number in cards if number >= device.card_count()]
    if missing and len(cards) > 1:
        option = f"--devices {config.devices}" if config.devices else f"--ngpu {config.ngpu}"
        raise UserError(f"{option}: {device.card_count()} cards are here, {kind}:0 is the first")
    workers = config.num_workers or min(threads.share_of_cores(), WORKERS_PER_CARD * len(cards))
    log.info(
        "face detector: %s on %s (%s), cards: %d, clips at the same time: %d",
        detector, kind, device.reason, len(cards), max(workers, len(cards)),
    )  # fmt: skip
    return [cards[number % len(cards)] for number in range(max(workers, len(cards)))]


def _process_share(
    sources: Mapping[str, Path],
    former: Reports,
    config: PreprocessConfig,
    workers: list[int],
    world: distributed.World,
) -> None:
    """Cut and publish the videos that are not done, and write their reports.

    Raises:
        KeyboardInterrupt: stopped by a signal; what was done by then is published.
    """
    root = config.preprocessed_root
    path = report.report_path(root, world.rank)
    todo: list[ClipReport] = []
    for source, file in sources.items():
        known = former.get(source, [])
        if report.is_done(known, file, root):
            continue
        size, changed = file_state(file)
        described = ClipReport(
            clip=Path(source).with_suffix("").as_posix(),
            source=source,
            source_bytes=size,
            source_time=changed,
        )
        if not known and (root / described.clip / AUDIO).is_file():
            report.append_reports(path, [report.describe(root / described.clip, described)])
        else:
            todo.append(described)
    log.info("%d videos, %d of them done already", len(sources), len(sources) - len(todo))
    work = root / PARTIAL / str(world.rank)
    jobs = [
        ClipJob(entry=entry, work=work / str(number), batch_size=config.batch_size)
        for number, entry in enumerate(todo)
    ]
    progress = Progress("preprocess", "clip", len(jobs), shown=world.is_main)
    with stop_signals() as stop, progress:
        for job, reports in _process_all(jobs, config, workers, stop):
            _publish(job, reports, former.get(job.entry.source, []), root, path)
            progress.update()
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):  # other processes still work there
        work.parent.rmdir()
    if stop.is_set():
        log.info("stopped; the clips that are done are kept, the same command goes on from here")
        raise KeyboardInterrupt


def _process_all(
    jobs: list[ClipJob], config: PreprocessConfig, workers: list[int], stop: threading.Event
) -> Iterator[tuple[ClipJob, list[ClipReport]]]:
    """Cut videos in worker processes, and give the reports of each as it is done.

    Whatever goes wrong with a video is reported of it: the one place that decides so. What may pass
    is tried once more, with half the batch.
    """
    arguments = [(config, len(workers), card_offset) for card_offset in workers]
    pool: WorkerPool[ClipJob] = WorkerPool(ClipWorker, arguments)
    for job in jobs:
        pool.submit(job)
    try:
        for outcome in pool.outcomes(stop):
            job, failure = outcome.job, outcome.failure
            if failure is None:
                yield job, outcome.result
            elif pool.try_again(outcome, replace(job, batch_size=max(1, job.batch_size // 2))):
                log.warning("%s: %s; trying once more", job.entry.source, failure.reason)
            else:
                yield job, [_rejected(job.entry, failure, config)]
    finally:
        pool.close()


def _rejected(entry: ClipReport, failure: Failure, config: PreprocessConfig) -> ClipReport:
    source = str(config.data_root / entry.source)
    named = failure.reason if source in failure.reason else f"{source}: {failure.reason}"
    return replace(entry, rejected=named, retry=failure.is_fault)


def _publish(
    job: ClipJob, reports: list[ClipReport], former: list[ClipReport], root: Path, path: Path
) -> None:
    """Write a video's reports, then move its clips to their places.

    Raises:
        WriteError: the reports cannot be written.
    """
    report.append_reports(path, reports)
    try:
        for entry in former:
            if entry.rejected is None:
                remove_clip(root / entry.clip)
        for entry in reports:
            if entry.rejected is None:
                publish_clip(job.work / entry.clip, root / entry.clip)
    except OSError as error:
        failed = replace(job.entry, rejected=f"{root / job.entry.clip}: {reason(error)}")
        report.append_reports(path, [replace(failed, retry=True)])
    shutil.rmtree(job.work, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """A video to be cut."""

    entry: ClipReport  # what is known of it
    work: Path  # a folder of its own
    batch_size: int  # of the detector


class ClipWorker:
    """Cuts videos, in a process of its own; the detector is kept between them."""

    def __init__(self, config: PreprocessConfig, workers: int, card_offset: int) -> None:
        """Load the detector.

        Args:
            config: the options.
            workers: processes that share the cores.
            card_offset: how far this worker's card is from the device of ``config``.

        Raises:
            UserError: the detector or the device cannot be used.
        """
        threads.limit_threads(workers)
        device = Device.open(
            config.device,
            config.precision,
            strict_fp32=config.strict_fp32,
            card_offset=card_offset,
        )
        self._config = config
        self._detector = open_detector(config, device)

    def process(self, job: ClipJob) -> list[ClipReport]:
        """See ``process_video``."""
        config = replace(self._config, batch_size=job.batch_size)
        source = config.data_root / job.entry.source
        return process_video(source, job.work, job.entry, self._detector, config)
