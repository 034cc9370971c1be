"""Videos to training data: face crops at 25 frames a second, and 16 kHz audio."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import face_detection
from wav2lip_npu import audio, device, distributed, video
from wav2lip_npu.clips import AUDIO
from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.windows import FPS

REPORT = "preprocess_report.jsonl"
PATIENCE = timedelta(days=30)  # of the first process of several, which ends last

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClipReport:
    """What became of one video."""

    clip: str  # its path in the data root, without suffix
    frames: int = 0  # at 25 a second
    faces: int = 0  # frames with a face, each a crop
    fps: float = 0.0  # of the source
    audio_seconds: float = 0.0
    rejected: str | None = None  # the reason, if nothing was written


def preprocess(config: PreprocessConfig) -> list[ClipReport]:
    """Cut every video below the data root; clips already there are left alone.

    A clip's folder appears when it is complete. What became of each is written to
    ``preprocess_report.jsonl``. Of several processes each cuts its share.

    Returns:
        A report for each clip, those of earlier runs included; only those of its share in a process
        that is not the first.

    Raises:
        UserError: no video there, the detector cannot be had, or not one clip is usable.
    """
    sources = find_videos(config.data_root)
    root = config.preprocessed_root
    place = device.Device.open(config.device)
    with distributed.join(place, patience=PATIENCE) as world:
        if world.leads:
            _merge_reports(root)  # of an earlier run that was interrupted
        world.wait_for_all()
        if world.size > 1:
            log.info("%d videos, shared by %d processes; of this one:", len(sources), world.size)
        share = dict(islice(sources.items(), world.rank, None, world.size))
        reports = _preprocess_share(share, config, place, world)
        world.wait_for_all()
        if world.leads:
            _merge_reports(root)
            if world.size > 1:
                merged = _read_reports(root / REPORT)
                reports = [merged[clip] for clip in sources if clip in merged]
            _summarize(reports, root / REPORT)
    return reports


def _preprocess_share(
    sources: dict[str, Path],
    config: PreprocessConfig,
    place: device.Device,
    world: distributed.World,
) -> list[ClipReport]:
    reports = _read_reports(config.preprocessed_root / REPORT)
    todo: dict[str, Path] = {}
    for clip, path in sources.items():
        folder = config.preprocessed_root / clip
        if not (folder / AUDIO).is_file():  # written last
            todo[clip] = path
        elif clip not in reports or reports[clip].rejected is not None:
            reports[clip] = _describe(folder, clip)
    log.info("%d videos, %d of them cut already", len(sources), len(sources) - len(todo))
    if todo:
        workers = _choose_workers(config, place)
        path = _report_path(config.preprocessed_root, world.rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as lines:
            cut = _cut_all(todo, config, workers)
            for report in tqdm(cut, total=len(todo), unit="clip", disable=world.hides_progress):
                reports[report.clip] = report
                print(json.dumps(asdict(report)), file=lines, flush=True)
    return [reports[clip] for clip in sources if clip in reports]


def find_videos(root: Path) -> dict[str, Path]:
    """The videos below a folder: path in it without suffix → file.

    Raises:
        UserError: no such folder, no video in it, or two that differ in their suffix only.
    """
    if not root.is_dir():
        raise UserError(f"--data_root {root}: no such folder")
    videos: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in video.VIDEO_SUFFIXES and path.is_file():
            clip = path.relative_to(root).with_suffix("").as_posix()
            if clip in videos:
                raise UserError(f"{path} and {videos[clip]}: would both become {clip}; rename one")
            videos[clip] = path
    if not videos:
        kinds = " ".join(sorted(video.VIDEO_SUFFIXES))
        raise UserError(f"--data_root {root}: no video in it, at any depth ({kinds})")
    return videos


def cut_clip(
    source: Path, target: Path, clip: str, detector: face_detection.Detector, batch_size: int
) -> ClipReport:
    """Cut one video into ``target``: ``N.jpg`` for each frame N with a face, and ``audio.wav``.

    Work is done in a folder beside, which takes the name ``target`` at the end: a clip is there
    whole or not at all. A video that cannot be used is reported, not raised.
    """
    work = target.with_name(f".{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        info = video.probe(source)
        sound = audio.load_audio(source, start=info.start)
        work.mkdir(parents=True)
        frames = faces = 0
        for batch in _batches(video.at_rate(video.read_frames(source), FPS), batch_size):
            for image, found in zip(batch, detector.detect(batch), strict=True):
                box = face_detection.best_box(found)
                if box is not None:
                    x1, y1, x2, y2 = box
                    cv2.imwrite(str(work / f"{frames}.jpg"), image[y1:y2, x1:x2])
                    faces += 1
                frames += 1
        if not faces:
            raise UserError(f"{source}: no face in any of its {frames} frames")
        audio.write_wav(work / AUDIO, sound)
        shutil.rmtree(target, ignore_errors=True)  # the rest of a cut that was interrupted
        work.rename(target)
    except UserError as error:
        return ClipReport(clip=clip, rejected=str(error))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ClipReport(
        clip=clip,
        frames=frames,
        faces=faces,
        fps=round(float(info.fps), 3),
        audio_seconds=round(len(sound) / audio.SAMPLE_RATE, 3),
    )


def _batches(frames: Iterator[video.Frame], size: int) -> Iterator[list[np.ndarray]]:
    while batch := [frame.image for frame in islice(frames, size)]:
        yield batch


def _choose_workers(config: PreprocessConfig, place: device.Device) -> int:
    """How many clips to cut at the same time: one on each accelerator, else one on each core."""
    detector = _open_detector(config)
    on_card = detector.name == "s3fd" and place.torch_device.type != "cpu"
    workers = config.num_workers or (config.ngpu if on_card else device.share_of_cores())
    where = f"{place.torch_device.type} ({place.reason})" if on_card else "cpu"
    log.info("face detector: %s on %s, clips at the same time: %d", detector.name, where, workers)
    return workers


def _cut_all(todo: dict[str, Path], config: PreprocessConfig, workers: int) -> Iterator[ClipReport]:
    """Cut clips in worker processes and report on each as it is done."""
    context = multiprocessing.get_context("spawn")  # a fork must not touch an accelerator
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(workers, context, _Worker.start, (config, workers, numbers))
    try:
        jobs = [pool.submit(_Worker.cut, clip, path) for clip, path in todo.items()]
        for job in as_completed(jobs):
            yield job.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that cuts clips was killed, for want of memory perhaps: run again, which "
            f"goes on from here, with --num_workers below {workers}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """What a worker process keeps between clips."""

    config: PreprocessConfig
    detector: face_detection.Detector

    @classmethod
    def start(cls, config: PreprocessConfig, workers: int, numbers: multiprocessing.Queue) -> None:
        distributed.follow_parent()  # which lets a worker finish its clip
        device.limit_threads(workers)
        cls.config = config
        cls.detector = _open_detector(config, card=numbers.get() % config.ngpu)

    @classmethod
    def cut(cls, clip: str, source: Path) -> ClipReport:
        target = cls.config.preprocessed_root / clip
        return cut_clip(source, target, clip, cls.detector, cls.config.batch_size)


def _open_detector(config: PreprocessConfig, *, card: int = 0) -> face_detection.Detector:
    place = device.Device.open(config.device).further(card)
    return face_detection.open_detector(
        config.detector,
        device=place.torch_device,
        s3fd_weights=config.s3fd,
        fixed_batches=place.wants_fixed_shapes,
    )


def _describe(folder: Path, clip: str) -> ClipReport:
    """The report of a clip that an interrupted run, or another program, has left without one."""
    numbers = [int(path.stem) for path in folder.glob("*.jpg") if path.stem.isdecimal()]
    return ClipReport(clip=clip, frames=max(numbers, default=-1) + 1, faces=len(numbers))


def _report_path(root: Path, rank: int) -> Path:
    """Where a process writes; those after the first have files of their own until the end."""
    path = root / REPORT
    return path if rank == 0 else path.with_suffix(f".{rank}{path.suffix}")


def _read_reports(path: Path) -> dict[str, ClipReport]:
    """The newest report of each clip, from earlier runs."""
    reports = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):  # a line that was being written when power failed
                report = ClipReport(**json.loads(line))
                reports[report.clip] = report
    return reports


def _merge_reports(root: Path) -> None:
    """Put what several processes have written into the one file."""
    path = root / REPORT
    parts = sorted(root.glob(f"{path.stem}.*{path.suffix}"))
    if not parts:
        return
    reports = _read_reports(path)
    for part in parts:
        reports |= _read_reports(part)
    partial = path.with_suffix(".partial")
    lines = (json.dumps(asdict(report)) + "\n" for report in reports.values())
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)
    for part in parts:
        part.unlink()


def _summarize(reports: list[ClipReport], path: Path) -> None:
    """Log what there is now and name what was rejected."""
    usable = [report for report in reports if report.rejected is None]
    frames, faces = sum(r.frames for r in usable), sum(r.faces for r in usable)
    log.info(
        "%d of %d clips usable: %d frames, %d with a face (%.2f %%), %.1f minutes of audio",
        len(usable), len(reports), frames, faces, 100 * faces / max(frames, 1),
        sum(r.audio_seconds for r in usable) / 60,
    )  # fmt: skip
    for report in reports:
        if report.rejected is not None:
            log.warning("rejected %s", report.rejected)
    log.info("report: %s", path)
    if not usable:
        raise UserError(f"not one of {len(reports)} videos is usable; {path} has the reasons")
