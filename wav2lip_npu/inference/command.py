"""The command ``infer``: files in, files out; the stages between are in ``lip_sync``."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.lip_sync import LipSync
from wav2lip_npu.inference.locate import LocatedFrame, MissingFacePolicy
from wav2lip_npu.inference.source import FaceSource
from wav2lip_npu.media.audio import open_sound
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.tracking.detection_cache import DetectionCache

JOB_COLUMNS = ["face", "audio", "outfile"]  # of --jobs

log = logging.getLogger(__name__)


def infer(config: InferConfig) -> None:
    """Write ``--outfile``, or those of all ``--jobs``.

    Raises:
        UserError: an input is missing or cannot be used, or no frame has a face; of jobs, when the
            others are done.
    """
    lip_sync = cache(lambda: LipSync.from_config(config))  # once the first files prove usable
    if config.jobs is None:
        _infer_one(lip_sync, config)
        return
    jobs = read_jobs(config)
    failed = []
    for number, job in enumerate(jobs, start=1):
        if config.resume and job.outfile.exists():
            log.info("%d of %d: %s is there already", number, len(jobs), job.outfile)
            continue
        log.info("%d of %d: %s", number, len(jobs), job.outfile)
        try:
            _infer_one(lip_sync, job)
        except UserError as error:
            log.error("%s: %s", job.outfile, error)
            failed.append(job.outfile)
    if failed:
        names = ", ".join(map(str, failed))
        raise UserError(f"{config.jobs}: {len(failed)} of {len(jobs)} jobs failed: {names}")


def read_jobs(config: InferConfig) -> list[InferConfig]:
    """The options of each job of ``--jobs``; its files are relative to the current folder.

    Raises:
        UserError: no such file, not of these columns, or one outfile twice.
    """
    assert config.jobs is not None
    if not config.jobs.is_file():
        raise UserError(f"{config.jobs}: no such file (--jobs)")
    with config.jobs.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        if rows.fieldnames is None or sorted(rows.fieldnames) != sorted(JOB_COLUMNS):
            raise UserError(f"{config.jobs}: its first line must be {','.join(JOB_COLUMNS)}")
        jobs = []
        for row in rows:
            if None in row or not all(row.values()):
                raise UserError(f"{config.jobs}, line {rows.line_num}: three files are wanted")
            files = {name: Path(row[name]) for name in JOB_COLUMNS}
            jobs.append(replace(config, jobs=None, resume=False, **files))  # type: ignore[arg-type]
    names = [job.outfile.resolve() for job in jobs]
    twice = {str(name) for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"{config.jobs}: written more than once: {', '.join(sorted(twice))}")
    if not jobs:
        raise UserError(f"{config.jobs}: has no jobs")
    return jobs


def _infer_one(load_networks: Callable[[], LipSync], config: InferConfig) -> None:
    """Write one video: the face of a video or image, its mouth speaking the audio.

    The video lasts as long as the sound. Nothing but the face box of a frame is changed.
    """
    assert config.audio is not None
    source = FaceSource(config)
    with open_sound(config.audio) as sound:
        lip_sync = load_networks()
        missing_faces = MissingFacePolicy(policy=config.no_face, fps=source.fps)
        cache = _open_cache(lip_sync, source, config)
        located = lip_sync.locate(source.frames(), missing_faces, cache)
        located = _until_the_sound_ends(located, source, missing_faces, config.loop)
        writer = VideoWriter(
            config.outfile,
            fps=source.fps,
            sound=sound,
            like=source.info,
            crf=config.crf,
            preset=config.preset,
        )
        generated = lip_sync.generate(
            located, sound.mono_blocks(), source.fps, missing_faces, sound_name=config.audio
        )
        try:
            frames = _write(generated, writer, total=sound.announced_seconds, fps=source.fps)
        finally:
            if cache is not None:
                cache.save()
    log.info("wrote %s: %d frames, %.5g per second", config.outfile, frames, float(source.fps))


def _write(
    generated: Generator[tuple[LocatedFrame, np.ndarray], None, None],
    writer: VideoWriter,
    *,
    total: float | None,
    fps: Fraction,
) -> int:
    """Encode frames as they come, with a progress bar of ``total`` seconds; how many they were."""
    bar = tqdm(total=None if total is None else round(total * fps), unit="frame", disable=None)
    frames = 0
    with writer, closing(generated), logging_redirect_tqdm(), bar:
        for located, image in generated:
            writer.write(image, source=located.frame, changed=located.box)
            bar.update()
            frames += 1
    return frames


def _open_cache(
    lip_sync: LipSync, source: FaceSource, config: InferConfig
) -> DetectionCache | None:
    if config.face_cache is None or config.box[0] != -1:
        return None
    return DetectionCache(
        config.face_cache,
        source.path,
        detector=lip_sync.detector.name,
        s3fd=config.s3fd,
        dtype=getattr(lip_sync.detector, "dtype", None),
        fps=source.fps,
        edits=(config.resize_factor, config.rotate, config.crop),
    )


def _until_the_sound_ends(
    first_pass: Iterator[LocatedFrame],
    source: FaceSource,
    missing_faces: MissingFacePolicy,
    loop: str,
) -> Iterator[LocatedFrame]:
    """Frames without end, unless ``loop`` is "cut"; those that come again keep their boxes."""
    boxes = []
    for located in first_pass:
        boxes.append(located.box)
        yield located
    missing_faces.require_a_face()  # before all of it is done again
    if source.still:
        yield from repeat(located)
    for number, frame in source.loop(loop, len(boxes), located.frame):
        yield LocatedFrame(frame=frame, box=boxes[number])
