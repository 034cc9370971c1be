"""One video, from files to a file: what ``infer`` does for each job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import repeat

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from wav2lip_npu.config import InferConfig
from wav2lip_npu.inference.lip_sync import LipSync
from wav2lip_npu.inference.locate import NO_FRAME, LocatedFrame, MissingFacePolicy, no_face
from wav2lip_npu.inference.source import FaceSource
from wav2lip_npu.media.audio import SoundFile, open_sound
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.tracking.detection_cache import DetectionCache

SHORT_SECONDS = 0.2  # by which a sound track may be short without a warning

log = logging.getLogger(__name__)


def infer_video(load_networks: Callable[[], LipSync], config: InferConfig) -> None:
    """Write one video: the face of a video or image, its mouth speaking the audio.

    The video lasts as long as the sound. Nothing but the face box of a frame is changed.

    Args:
        load_networks: called once the inputs prove usable.
        config: the options, with the names of the files.

    Raises:
        UserError: an input cannot be used, no frame has a face, or the file cannot be written.
    """
    assert config.audio is not None
    source = FaceSource(config)
    with open_sound(config.audio) as voice, _final_sound(config, voice) as sound:
        lip_sync = load_networks()
        _warn_of_short_sound(voice, sound)
        missing_faces = MissingFacePolicy(policy=config.no_face, fps=source.fps)
        cache = _open_cache(lip_sync, source, config)
        located = lip_sync.locate(source.frames(), missing_faces, cache)
        located = _until_the_sound_ends(located, source, config.loop)
        writer = VideoWriter(
            config.outfile,
            fps=source.fps,
            sound=sound,
            like=source.info,
            crf=config.crf,
            preset=config.preset,
        )
        generated = lip_sync.generate(
            located,
            voice.mono_blocks(shared=sound is voice),
            source.fps,
            missing_faces,
            sound_name=config.audio,
        )
        # Closed last, as that waits for a thread's batch: an interrupted run may not have the time.
        with closing(generated):
            try:
                frames = _write(generated, writer, total=voice.announced_seconds, fps=source.fps)
            finally:
                if cache is not None:
                    cache.save()
    log.info("wrote %s: %d frames, %.5g per second", config.outfile, frames, float(source.fps))


def _final_sound(config: InferConfig, voice: SoundFile) -> AbstractContextManager[SoundFile]:
    """What becomes the sound track: the voice itself, or another file's sound."""
    return nullcontext(voice) if config.final_audio is None else open_sound(config.final_audio)


def _warn_of_short_sound(voice: SoundFile, sound: SoundFile) -> None:
    given, wanted = sound.announced_seconds, voice.announced_seconds
    if given is not None and wanted is not None and given < wanted - SHORT_SECONDS:
        log.warning(
            "--final_audio %s: has %.2f s, and --audio %.2f s; what is left is silent",
            sound.path, given, wanted,
        )  # fmt: skip


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
    with writer, logging_redirect_tqdm(), bar:
        for located, image in generated:
            writer.write(image, source=located.frame, changed=located.bounds)
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
        edits=(config.resize_factor, config.rotate, config.crop, *_cut(config)),
    )


def _cut(config: InferConfig) -> tuple[float, ...]:
    """Which frame is number 0: nothing where it is the video's first, as in version 0.1."""
    return (config.start,) if config.start > 0 else ()


def _until_the_sound_ends(
    first_pass: Iterator[LocatedFrame], source: FaceSource, loop: str
) -> Generator[LocatedFrame, None, None]:
    """Frames without end, unless ``loop`` is "cut"; those that come again keep their boxes."""
    places = []  # without the images
    for located in first_pass:
        places.append(replace(located, frame=NO_FRAME, points=None))
        yield located
    if not any(place.has_face for place in places):
        raise no_face(len(places))  # before all of it is done again
    if source.still:
        yield from repeat(located)
    for number, frame in source.loop(loop, len(places), located.frame):
        yield replace(places[number], frame=frame)
