"""The command ``infer``: files in, files out, the stages between in ``lip_sync``."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.lip_sync import LipSync
from wav2lip_npu.inference.locate import Located, Misses
from wav2lip_npu.inference.source import Footage
from wav2lip_npu.media import audio
from wav2lip_npu.media import video_reader as video
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.tracking.detection_cache import FaceCache

COLUMNS = ["face", "audio", "outfile"]  # of --jobs

log = logging.getLogger(__name__)


def infer(config: InferConfig) -> None:
    """Write ``--outfile``, or those of all ``--jobs``.

    Raises:
        UserError: an input is missing or cannot be used, or no frame has a face; of jobs, when the
            others are done.
    """
    networks = cache(lambda: LipSync.of(config))  # when the first files prove to be usable
    if config.jobs is None:
        _infer_one(networks, config)
        return
    jobs = read_jobs(config)
    failed = []
    for number, job in enumerate(jobs, start=1):
        if config.resume and job.outfile.exists():
            log.info("%d of %d: %s is there already", number, len(jobs), job.outfile)
            continue
        log.info("%d of %d: %s", number, len(jobs), job.outfile)
        try:
            _infer_one(networks, job)
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
        if rows.fieldnames is None or sorted(rows.fieldnames) != sorted(COLUMNS):
            raise UserError(f"{config.jobs}: its first line must be {','.join(COLUMNS)}")
        jobs = []
        for row in rows:
            if None in row or not all(row.values()):
                raise UserError(f"{config.jobs}, line {rows.line_num}: three files are wanted")
            files = {name: Path(row[name]) for name in COLUMNS}
            jobs.append(replace(config, jobs=None, resume=False, **files))  # type: ignore[arg-type]
    names = [job.outfile.resolve() for job in jobs]
    twice = {str(name) for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"{config.jobs}: written more than once: {', '.join(sorted(twice))}")
    if not jobs:
        raise UserError(f"{config.jobs}: has no jobs")
    return jobs


def _infer_one(networks: Callable[[], LipSync], config: InferConfig) -> None:
    """The face of a video or image, its mouth speaking the audio.

    The picture lasts as long as the sound. Nothing but the face box of a frame is changed.
    """
    assert config.audio is not None
    footage = Footage(config)
    total = audio.announced_seconds(config.audio)
    # A video's sound is heard where it is in that video; other sound from its first sample on.
    start = video.first_picture(config.audio)
    sound = audio.stream_audio(config.audio, start=start)
    lip_sync = networks()
    misses = Misses(policy=config.no_face, fps=footage.fps)
    known = _open_cache(lip_sync, footage, config)
    located = _shown(footage, lip_sync.locate(footage.frames(), misses, known), misses, config)
    writer = VideoWriter(
        config.outfile,
        fps=footage.fps,
        audio=config.audio,
        audio_start=start,
        like=footage.info,
        crf=config.crf,
        preset=config.preset,
    )
    frames = 0
    try:
        with (
            writer,
            closing(lip_sync.speak(located, sound, footage.fps, config.audio)) as spoken,
            logging_redirect_tqdm(),
            tqdm(
                total=None if total is None else round(total * footage.fps),
                unit="frame",
                disable=None,
            ) as bar,
        ):
            for place, image in spoken:
                writer.write(image, source=place.frame, changed=place.box)
                bar.update()
                frames += 1
            misses.conclude()
    finally:
        if known is not None:
            known.save()
    log.info("wrote %s: %d frames, %.5g a second", config.outfile, frames, float(footage.fps))


def _open_cache(lip_sync: LipSync, footage: Footage, config: InferConfig) -> FaceCache | None:
    if config.face_cache is None or config.box[0] != -1:
        return None
    return FaceCache(
        config.face_cache,
        footage.path,
        detector=lip_sync.detector.name,
        s3fd=config.s3fd,
        dtype=lip_sync.device.dtype,
        fps=footage.fps,
        edits=(config.resize_factor, config.rotate, config.crop),
    )


def _shown(
    footage: Footage, first: Iterator[Located], misses: Misses, config: InferConfig
) -> Iterator[Located]:
    """Pictures for as long as there is sound; those that come again have the boxes of before."""
    boxes = []
    for located in first:
        boxes.append(located.box)
        yield located
        if footage.still:
            misses.conclude()
            while True:
                yield located
    misses.conclude()  # before it is all done again
    for number, frame in footage.again(config.loop, len(boxes), located.frame):
        yield Located(frame=frame, box=boxes[number])
