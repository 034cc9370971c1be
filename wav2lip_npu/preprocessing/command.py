"""Videos to training data: face crops at 25 frames a second, and 16 kHz audio.

Worker processes cut clips in ``.partial`` (see ``clip``); this one writes the report of each and
then moves it to its place. So a clip is there whole or not at all, and its report before it. A run
that was killed at any moment is continued to what one run would have made.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from itertools import islice
from pathlib import Path

from tqdm import tqdm

import face_detection
from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.config_base import CPU
from wav2lip_npu.data.clips import AUDIO
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.video_reader import VIDEO_SUFFIXES, is_video
from wav2lip_npu.preprocessing import report
from wav2lip_npu.preprocessing.clip import process_video
from wav2lip_npu.preprocessing.report import ClipReport
from wav2lip_npu.runtime import distributed, threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import publish_folder, write_text
from wav2lip_npu.runtime.workers import end_with_parent
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
    device = Device.open(config.device, config.precision)
    detector = choose_detector(config)
    workers = _choose_workers(config, device, detector)
    with distributed.join(device, timeout=WORKER_TIMEOUT) as world:
        with world.main_first():
            if world.is_main:
                _check_options(config, detector)
                report.merge_reports(root)  # of an earlier run that was interrupted
                shutil.rmtree(root / PARTIAL, ignore_errors=True)
            former = report.read_reports(root / report.REPORT)
        share = dict(islice(sources.items(), world.rank, None, world.size))
        if world.size > 1:
            log.info("%d videos, %d for each of %d processes", len(sources), len(share), world.size)
        _process_share(share, former, config, workers, world)
        world.barrier()
        if not world.is_main:
            return []
        merged = report.merge_reports(root)
        shutil.rmtree(root / PARTIAL, ignore_errors=True)
    reports = [entry for source in sources for entry in merged.get(source, [])]
    report.summarize(reports, root)
    return reports


def find_videos(root: Path) -> dict[str, Path]:
    """The videos below a folder: path in it → file.

    A file with an unknown suffix is opened to find out.

    Raises:
        UserError: no such folder, no video in it, or two that differ in their suffix only.
    """
    if not root.is_dir():
        raise UserError(f"--data_root {root}: no such folder")
    videos: dict[str, Path] = {}
    by_clip: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and is_video(path):
            source = path.relative_to(root)
            clip = source.with_suffix("").as_posix()
            if clip in by_clip:
                raise UserError(f"{path} and {by_clip[clip]}: would both become {clip}; rename one")
            by_clip[clip] = videos[source.as_posix()] = path
    if not videos:
        kinds = " ".join(sorted(VIDEO_SUFFIXES))
        raise UserError(f"--data_root {root}: no video in it, at any depth ({kinds})")
    return videos


def _check_options(config: PreprocessConfig, detector: str) -> None:
    """Keep crops of different kinds from being mixed.

    Raises:
        UserError: the clips there were cut with other options.
    """
    options = {
        "detector": detector,
        "detect_every": config.detect_every,
        # Before, true was an average over the next four frames: other crops.
        "smooth_boxes": "centred" if config.smooth_boxes else False,
        "scene_cuts": config.scene_cuts,
    }
    if detector == "s3fd":
        options["precision"] = config.precision
    path = config.preprocessed_root / OPTIONS
    if not path.is_file():
        write_text(path, json.dumps(options, indent=2) + "\n")
        return
    former = json.loads(path.read_text(encoding="utf-8"))
    for name in sorted(former.keys() | options.keys()):
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
    for number in config.cards if config.devices else []:
        Device.open(f"{kind}:{number}")
    cards = config.cards
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
    """Cut and publish the videos that are not done, and write their reports."""
    root = config.preprocessed_root
    path = report.report_path(root, world.rank)
    todo: list[ClipReport] = []
    for source, file in sources.items():
        known = former.get(source, [])
        if report.is_done(known, file, root):
            continue
        status = file.stat()
        described = ClipReport(
            clip=Path(source).with_suffix("").as_posix(),
            source=source,
            source_bytes=status.st_size,
            source_time=status.st_mtime_ns,
        )
        if not known and (root / described.clip / AUDIO).is_file():
            report.append_reports(path, [report.describe(root / described.clip, described)])
        else:
            todo.append(described)
    log.info("%d videos, %d of them done already", len(sources), len(sources) - len(todo))
    work = root / PARTIAL / str(os.getpid())
    done = _process_all(todo, work, config, workers)
    for reports in tqdm(done, total=len(todo), unit="clip", disable=world.hide_progress):
        _publish(reports, former.get(reports[0].source, []), work, root, path)


def _publish(
    reports: list[ClipReport], former: list[ClipReport], work: Path, root: Path, path: Path
) -> None:
    """Write a video's reports, then move its clips to their places."""
    report.append_reports(path, reports)
    for entry in former:
        if entry.rejected is None:
            shutil.rmtree(root / entry.clip, ignore_errors=True)
    folder = work / reports[0].source
    for entry in reports:
        if entry.rejected is None:
            target = root / entry.clip
            shutil.rmtree(target, ignore_errors=True)  # of a run that was interrupted
            publish_folder(folder / entry.clip, target)
    shutil.rmtree(folder, ignore_errors=True)


def _process_all(
    todo: list[ClipReport], work: Path, config: PreprocessConfig, workers: list[int]
) -> Iterator[list[ClipReport]]:
    """Cut videos in worker processes and give the reports of each as it is done."""
    if not todo:
        return
    context = multiprocessing.get_context("spawn")  # a fork must not touch an accelerator
    cards = context.Queue()
    for card in workers:
        cards.put(card)
    start = (config, len(workers), cards)
    pool = ProcessPoolExecutor(len(workers), context, _Worker.start, start)
    try:
        jobs = [pool.submit(_Worker.process, entry, work) for entry in todo]
        for job in as_completed(jobs):
            yield job.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that cuts clips was killed, possibly out of memory: run again, which goes "
            f"on from here, with --num_workers below {len(workers)}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """What a worker process keeps between clips."""

    config: PreprocessConfig
    card_offset: int
    detector: face_detection.Detector | None

    @classmethod
    def start(cls, config: PreprocessConfig, workers: int, cards: multiprocessing.Queue) -> None:
        end_with_parent()  # which lets a worker finish its clip
        threads.limit_threads(workers)
        cls.config = config
        cls.card_offset = cards.get()
        cls.detector = None

    @classmethod
    def process(cls, entry: ClipReport, work: Path) -> list[ClipReport]:
        if cls.detector is None:  # here, so that its error reaches the parent as it is
            device = Device.open(cls.config.device, cls.config.precision)
            device = device.with_index_offset(cls.card_offset)
            cls.detector = open_detector(cls.config, device)
        source = cls.config.data_root / entry.source
        return process_video(source, work / entry.source, entry, cls.detector, cls.config)
