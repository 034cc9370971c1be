"""One video to clips: detect, follow the face, crop, and write crops and audio.

The pictures go by twice, so that the face can be chosen by the whole video while only a few
pictures are held: once to look for faces, and once to cut. What fits into memory is decoded once.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

import face_detection
from face_detection import Box
from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.constants import FPS, SAMPLE_RATE
from wav2lip_npu.data.clips import AUDIO, MIN_FRAMES
from wav2lip_npu.errors import UserError
from wav2lip_npu.media import audio
from wav2lip_npu.media import video_reader as video
from wav2lip_npu.preprocessing.report import ClipReport
from wav2lip_npu.runtime.prefetch import prefetch
from wav2lip_npu.tracking import shots as scenes
from wav2lip_npu.tracking import smoothing as tracks

KEPT_BYTES = 2**27  # of pictures between the two passes: 128 MiB, a minute of LRS2
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
MISSING = 0.2  # seconds of picture or sound that may be missing unnamed
VARYING = 0.02  # by which a video's mean frame rate differs from its finest, if it varies


def cut_video(
    source: Path,
    work: Path,
    report: ClipReport,
    detector: face_detection.Detector,
    config: PreprocessConfig,
) -> list[ClipReport]:
    """Cut one video into ``work``, a folder for each clip, named by its ``clip``.

    In it are ``N.jpg`` for each frame N with the face and ``audio.wav``. A video that cannot be
    used is reported, not raised, and leaves nothing.

    Args:
        source: the video.
        work: a folder of its own, which need not be there.
        report: what is known of the video; its ``clip`` is the clip's name.
        detector: finds faces.
        config: the options.

    Returns:
        A report for each clip: one, unless ``--scene_cuts split`` makes several of its shots.
    """
    try:
        return _cut(source, work, report, detector, config)
    except UserError as error:
        shutil.rmtree(work, ignore_errors=True)
        return [replace(report, rejected=str(error))]
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _cut(
    source: Path,
    work: Path,
    report: ClipReport,
    detector: face_detection.Detector,
    config: PreprocessConfig,
) -> list[ClipReport]:
    info = video.probe(source)
    rate, channels = audio.rate_and_channels(source)
    work.mkdir(parents=True)
    with ThreadPoolExecutor(1) as beside:
        blocks = audio.stream_audio(source, start=info.start)
        sound = beside.submit(audio.write_wav, work / AUDIO, blocks)
        pictures = Pictures(source)
        survey = look(pictures.first(), detector, config)
        samples = sound.result()
    if survey.cuts and config.scene_cuts == "reject":
        times = ", ".join(f"{frame / FPS:.2f}" for frame in survey.cuts[:5])
        raise UserError(f"{source}: {len(survey.cuts)} scene cuts, at {times} s (--scene_cuts)")
    followed = tracks.follow(survey.seen, survey.cuts)
    if not followed:
        raise UserError(f"{source}: no face in any of its {survey.frames} frames")
    shots = _shots(report.clip, survey, followed, config)
    _write_crops(pictures.second(), shots, work)
    report = replace(
        report,
        width=survey.width,
        height=survey.height,
        rotation=info.rotation,
        fps_in=round(float(info.fps), 3),
        shots=len(survey.cuts) + 1,
        audio_rate=rate,
        audio_channels=channels,
        warnings=_about_file(source, info),
    )
    if config.scene_cuts == "split" and survey.cuts:
        reports = [_finish_shot(shot, source, work, report) for shot in shots]
        (work / AUDIO).unlink()
        return reports
    (work / AUDIO).rename(work / report.clip / AUDIO)
    return [_finish_whole(shots[0], samples, info.seconds, report)]


@dataclass(kw_only=True)
class Survey:
    """What the first pass saw."""

    seen: dict[int, np.ndarray] = field(default_factory=dict)  # frame → detections (n, 5)
    cuts: list[int] = field(default_factory=list)  # first frames of the shots but the first
    frames: int = 0
    width: int = 0
    height: int = 0


def look(
    images: Iterator[np.ndarray], detector: face_detection.Detector, config: PreprocessConfig
) -> Survey:
    """Look for faces and scene cuts."""
    survey = Survey()
    looked_at = _looked_at(images, config.detect_every, survey)
    while batch := list(islice(looked_at, config.batch_size)):
        found = detector.detect([image for _, image in batch])
        survey.seen |= {number: boxes for (number, _), boxes in zip(batch, found, strict=True)}
    return survey


def _looked_at(
    images: Iterator[np.ndarray], every: int, survey: Survey
) -> Iterator[tuple[int, np.ndarray]]:
    """The pictures to look for faces in, with their numbers."""
    for number, seen in enumerate(scenes.to_look_at(images, lambda image: image, every)):
        survey.frames = number + 1
        survey.height, survey.width = seen.item.shape[:2]
        if seen.cut:
            survey.cuts.append(number)
        if seen.look:
            yield number, seen.item


class Pictures:
    """The pictures of a video at 25 a second, twice; see the module."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self._kept: list[np.ndarray] = []
        self._all_kept = True

    def first(self) -> Iterator[np.ndarray]:
        """All pictures, (h, w, 3) BGR, decoded in a thread beside."""
        left = KEPT_BYTES
        for image in self._decode():
            left -= image.nbytes
            if left >= 0:
                self._kept.append(image)
            else:
                self._all_kept = False
            yield image

    def second(self) -> Iterator[np.ndarray]:
        """The same once more, for the last time."""
        count = len(self._kept)
        while self._kept:
            yield self._kept.pop(0)
        if not self._all_kept:
            yield from islice(self._decode(), count, None)

    def _decode(self) -> Iterator[np.ndarray]:
        frames = video.at_rate(video.read_frames(self.source), FPS)
        with closing(prefetch((frame.image for frame in frames), 8)) as images:
            yield from images


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A stretch of a video that becomes a clip."""

    clip: str
    start: int  # first frame
    stop: int  # the one after the last
    boxes: dict[int, Box]  # frame → where its crop is
    faces: int  # people in it, about


def _shots(
    clip: str, survey: Survey, followed: list[tracks.Track], config: PreprocessConfig
) -> list[Shot]:
    """The whole video, or its shots, each with the face that is largest over it."""
    split = config.scene_cuts == "split" and survey.cuts
    starts = [0, *survey.cuts] if split else [0]
    stops = [*starts[1:], survey.frames]
    shots = []
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True), start=1):
        inside = [
            tracks.filled(track, config.detect_every)
            for track in followed
            if start <= track.last < stop
        ]
        main = max(inside, key=lambda track: track.size, default=None)
        shots.append(
            Shot(
                clip=f"{clip}-shot{number}" if split else clip,
                start=start,
                stop=stop,
                boxes=_boxes(main, start, stop, config) if main else {},
                faces=sum(track is main or len(track.boxes) >= MIN_FRAMES for track in inside),
            )
        )
    return shots


def _boxes(track: tracks.Track, start: int, stop: int, config: PreprocessConfig) -> dict[int, Box]:
    """A face's boxes in whole pixels, smoothed if asked for."""
    places = (
        (frame, face_detection.in_pixels(track.boxes[frame]) if frame in track.boxes else None)
        for frame in range(start, stop)
    )
    located = tracks.smoothed(places) if config.smooth_boxes else places
    return {frame: box for frame, box in located if box is not None}


def _write_crops(images: Iterator[np.ndarray], shots: list[Shot], work: Path) -> None:
    waiting = deque(shots)
    for number, image in enumerate(images):
        while number >= waiting[0].stop:
            waiting.popleft()
        shot = waiting[0]
        if number == shot.start:
            (work / shot.clip).mkdir(parents=True)
        if (box := shot.boxes.get(number)) is not None:
            x1, y1, x2, y2 = box
            path = work / shot.clip / f"{number - shot.start}.jpg"
            if not cv2.imwrite(str(path), image[y1:y2, x1:x2]):
                raise OSError(f"{path}: cannot be written")


def _finish_shot(shot: Shot, source: Path, work: Path, report: ClipReport) -> ClipReport:
    """Cut the sound of a shot, and tell of it; one without a face leaves nothing."""
    folder = work / shot.clip
    if not shot.boxes:
        shutil.rmtree(folder)
        times = f"{shot.start / FPS:.2f} to {shot.stop / FPS:.2f} s"
        rejected = f"{source}: no face in the shot from {times}"
        return replace(report, clip=shot.clip, first_frame=shot.start, rejected=rejected)
    start, stop = shot.start * SAMPLES_PER_FRAME, shot.stop * SAMPLES_PER_FRAME
    samples = audio.cut_wav(work / AUDIO, folder / AUDIO, start, stop)
    return _measured(report, shot, samples)


def _finish_whole(
    shot: Shot, samples: int, announced: float | None, report: ClipReport
) -> ClipReport:
    """Tell of a clip that is the whole video."""
    report = _measured(report, shot, samples)
    seconds, warnings = report.frames / FPS, []
    if announced is not None and announced - seconds > MISSING:
        told = f"{seconds:.2f} s of the {announced:.2f} s that its header tells"
        warnings.append(f"truncated: {told}")
    if report.shots > 1:
        warnings.append(f"{report.shots} shots: the face that is largest over all was taken")
    return replace(report, warnings=[*report.warnings, *warnings])


def _measured(report: ClipReport, shot: Shot, samples: int) -> ClipReport:
    sides = np.array([(x2 - x1, y2 - y1) for x1, y1, x2, y2 in shot.boxes.values()])
    width, height = sides.mean(axis=0).round(1).tolist()
    report = replace(
        report,
        clip=shot.clip,
        first_frame=shot.start,
        frames=shot.stop - shot.start,
        faces=len(shot.boxes),
        people=shot.faces,
        box_width=width,
        box_height=height,
        box_smallest=int(sides[:, 1].min()),
        box_largest=int(sides[:, 1].max()),
        audio_seconds=round(samples / SAMPLE_RATE, 3),
    )
    return replace(report, warnings=[*report.warnings, *_about_clip(report)])


def _about_file(source: Path, info: video.VideoInfo) -> list[str]:
    """What a user should know of a video that is used."""
    found = []
    if source.suffix.lower() not in video.VIDEO_SUFFIXES:
        found.append(f"{source.name}: no video by its suffix, but by its content")
    if abs(info.mean_fps / info.fps - 1) > VARYING:
        mean, finest = float(info.mean_fps), float(info.fps)
        found.append(f"the frame rate varies: {mean:.2f} on the mean, {finest:.2f} at its finest")
    return found


def _about_clip(report: ClipReport) -> list[str]:
    """What a user should know of a clip that is kept."""
    missing = report.frames / FPS - report.audio_seconds
    found = []
    if missing > MISSING:
        found.append(f"the sound ends {missing:.2f} s before the picture")
    if report.audio_rate < SAMPLE_RATE:
        found.append(f"the sound has {report.audio_rate} Hz: nothing above half of that is in it")
    if report.people > 1:
        found.append(f"{report.people} faces: the one that is largest over the clip was taken")
    if report.faces < MIN_FRAMES:
        found.append(f"{report.faces} crops: training leaves out clips of less than {MIN_FRAMES}")
    return found
