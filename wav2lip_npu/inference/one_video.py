"""One video, from files to a file: what ``infer`` does for each job."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from itertools import repeat

import numpy as np

from wav2lip_npu.config import InferConfig
from wav2lip_npu.config.inference import SPEAKING
from wav2lip_npu.console.progress import Progress
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.lip_sync import LipSync
from wav2lip_npu.inference.locate import NO_FRAME, LocatedFrame, no_face, targets_of
from wav2lip_npu.inference.source import FaceSource
from wav2lip_npu.inference.speaking import (
    KeptDetections,
    SpeakerSelector,
    find_speakers,
    listen,
)
from wav2lip_npu.inference.voices import Voice, voices_of
from wav2lip_npu.media.audio import SoundFile, open_sound
from wav2lip_npu.media.image_sequence import ImageSequenceWriter
from wav2lip_npu.media.mix import Mix
from wav2lip_npu.media.outfile import is_sequence
from wav2lip_npu.media.sound_track import TrackSound
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.tracking.detection import BatchedDetector, Detections
from wav2lip_npu.tracking.detection_cache import DetectionCache

SHORT_SECONDS = 0.2  # by which a sound track may be short without a warning

log = logging.getLogger(__name__)


def infer_video(load_networks: Callable[[], LipSync], config: InferConfig) -> None:
    """Write one video: faces of a video or image, their mouths speaking their sounds.

    The video lasts as long as the longest sound. Nothing but the faces' boxes are changed.

    Args:
        load_networks: called once the inputs prove usable.
        config: the options, with the names of the files.

    Raises:
        UserError: an input cannot be used, no frame has a face, or the file cannot be written.
    """
    source = FaceSource(config)
    if source.has_alpha:
        _require_effect(config)
    with ExitStack() as files:
        voices = voices_of(config)
        sounds = [files.enter_context(open_sound(voice.audio)) for voice in voices]
        sound = _sound_track(config, voices, sounds, files)
        lip_sync = load_networks()
        seconds = _longest(sounds)
        _warn_of_short_sound(seconds, sound, config)
        targets = targets_of([voice.person for voice in voices], config.no_face, source.fps)
        cache: Detections | None = _open_cache(lip_sync, source, config)
        if config.face_select == SPEAKING:
            cache = KeptDetections() if cache is None else cache
            selector = _find_speakers(lip_sync, source, config, cache, seconds)
            targets = [replace(targets[0], selector=selector)]
        located = lip_sync.locate(source.frames(), targets, cache)
        located = _until_the_sound_ends(located, source, config.loop)
        writer = _writer(config, source, sound)
        heard = [(one.path, one.mono_blocks(shared=one is sound)) for one in sounds]
        generated = lip_sync.generate(located, heard, source.fps, targets)
        # Closed last, as that waits for a thread's batch: an interrupted run may not have the time.
        with closing(generated):
            try:
                frames = _write(generated, writer, total=seconds, fps=source.fps)
            finally:
                if isinstance(cache, DetectionCache):
                    cache.save()
    log.info("wrote %s: %d frames, %.5g per second", config.outfile, frames, float(source.fps))


def _require_effect(config: InferConfig) -> None:
    """Refuse options of encoders that ProRes, which keeps transparency in .mov, does not have.

    Raises:
        UserError: one of them was given.
    """
    for name in ("crf", "preset"):
        value = getattr(config, name)
        if config.outfile.suffix.lower() == ".mov" and value != getattr(InferConfig, name):
            raise UserError(
                f"--{name} {value}: has no effect with ProRes 4444, which keeps the transparency "
                f"of {config.face} in .mov"
            )


def _writer(
    config: InferConfig, source: FaceSource, sound: TrackSound
) -> VideoWriter | ImageSequenceWriter:
    if is_sequence(config.outfile):
        return ImageSequenceWriter(config.outfile, fps=source.fps, sound=sound)
    return VideoWriter(
        config.outfile,
        fps=source.fps,
        sound=sound,
        like=source.info,
        crf=config.crf,
        preset=config.preset,
    )


def _sound_track(
    config: InferConfig, voices: Sequence[Voice], sounds: Sequence[SoundFile], files: ExitStack
) -> TrackSound:
    """What becomes the sound of the video: ``--final_audio``, the mix of the voices, or the voice.

    Args:
        config: the options.
        voices: who says what.
        sounds: of each voice, for the networks.
        files: closes what is opened.
    """
    if config.final_audio is not None:
        return files.enter_context(open_sound(config.final_audio))
    if config.voices is None:
        return sounds[0]
    again = [files.enter_context(open_sound(voice.audio)) for voice in voices]
    gains = [voice.gain for voice in voices]
    return Mix(config.voices, [*zip(again, gains, strict=True)])


def _longest(sounds: Sequence[SoundFile]) -> float | None:
    """How many seconds the longest has, if each says how many."""
    known = [one.announced_seconds for one in sounds if one.announced_seconds is not None]
    return max(known) if len(known) == len(sounds) else None


def _warn_of_short_sound(wanted: float | None, sound: TrackSound, config: InferConfig) -> None:
    given = sound.announced_seconds
    if config.final_audio is None or given is None or wanted is None:
        return
    if given < wanted - SHORT_SECONDS:
        log.warning(
            "--final_audio %s: has %.2f s, and --%s %.2f s; what is left is silent",
            sound.path, given, "audio" if config.voices is None else "voices", wanted,
        )  # fmt: skip


def _write(
    generated: Generator[tuple[LocatedFrame, np.ndarray], None, None],
    writer: VideoWriter | ImageSequenceWriter,
    *,
    total: float | None,
    fps: Fraction,
) -> int:
    """Encode frames as they come, of ``total`` seconds if that is known; how many they were."""
    frames = 0
    expected = None if total is None else round(total * fps)
    with writer, Progress("infer", "frame", expected) as progress:
        for located, image in generated:
            writer.write(image, source=located.frame, changed=located.changing)
            progress.update()
            frames += 1
    return frames


def _find_speakers(
    lip_sync: LipSync,
    source: FaceSource,
    config: InferConfig,
    cache: Detections,
    seconds: float | None,
) -> SpeakerSelector:
    """Who speaks in the video; so far as its frames are needed, where ``seconds`` are known.

    Raises:
        UserError: it is a picture, it has no sound, or nobody who is seen speaks.
    """
    if source.still:
        raise UserError(f"--face_select {SPEAKING}: {source.path}: is used as a still image")
    detector = BatchedDetector(
        detector=lip_sync.detector, batch_size=config.face_det_batch_size, cache=cache
    )
    try:
        with open_sound(source.path) as own:
            voice = listen(own)
        return find_speakers(
            source.frames(),
            detector,
            config.detect_every,
            voice,
            fps=source.fps,
            start=config.start,
            total=None if seconds is None else math.ceil(seconds * source.fps),
        )
    except UserError as error:
        raise UserError(f"--face_select {SPEAKING}: {error}") from error


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
        faces = tuple(replace(face, points=None) for face in located.faces)
        places.append(replace(located, frame=NO_FRAME, faces=faces))
        yield located
    if not any(face.found for place in places for face in place.faces):
        raise no_face(len(places))  # before all of it is done again
    if source.still:
        yield from repeat(located)
    for number, frame in source.loop(loop, len(places), located.frame):
        yield replace(places[number], frame=frame)
