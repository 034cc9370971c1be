"""One video to clips: detect faces, follow one, write its crops and the sound.

The frames go by twice, so that the face can be chosen by the whole video while only a few frames
are held: first to detect faces, then to cut. What fits into memory is decoded once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

import face_detection
from wav2lip_npu.boxes import cut
from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.constants import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from wav2lip_npu.data.clips import AUDIO, MIN_CLIP_FRAMES
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import WavWriter, cut_wav, no_sound
from wav2lip_npu.media.video_reader import (
    VIDEO_SUFFIXES,
    Frame,
    VideoFile,
    VideoInfo,
    at_rate,
    open_video,
    read_frames,
)
from wav2lip_npu.preprocessing.report import ClipReport
from wav2lip_npu.runtime.prefetch import prefetch
from wav2lip_npu.tracking.detection import BatchedDetector
from wav2lip_npu.tracking.scan import (
    FacesFound,
    complete_track,
    crop_boxes,
    scan,
    total_area,
)
from wav2lip_npu.tracking.smoothing import FaceBox
from wav2lip_npu.tracking.upright import align

MAX_KEPT_BYTES = 2**27  # of frames between the two passes: 128 MiB, a minute of LRS2
QUEUED_FRAMES = 8  # that are decoded ahead
MISSING_SECONDS = 0.2  # of frames or sound that may be missing without a warning
VARYING_RATE = 0.02  # by which a video's mean frame rate differs from its finest, if it varies


def process_video(
    source: Path,
    work: Path,
    report: ClipReport,
    detector: face_detection.Detector,
    config: PreprocessConfig,
) -> list[ClipReport]:
    """Cut one video into ``work``, a folder for each clip, named by its ``clip``.

    In it are ``N.jpg`` for each frame N with the face, and ``audio.wav``.

    Args:
        source: the video.
        work: a folder of its own; what a process that died left there is removed.
        report: what is known of the video; its ``clip`` is the clip's name.
        detector: finds faces.
        config: the options.

    Returns:
        A report for each clip: one, unless ``--scene_cuts split`` makes several of its shots.

    Raises:
        UserError: the video cannot be used. Nothing is left then, as with any other exception.
    """
    shutil.rmtree(work, ignore_errors=True)
    try:
        return _process(source, work, report, detector, config)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _process(
    source: Path,
    work: Path,
    report: ClipReport,
    detector: face_detection.Detector,
    config: PreprocessConfig,
) -> list[ClipReport]:
    work.mkdir(parents=True)
    frames = TwoPassFrames(source)
    with open_video(source, with_sound=True) as video:
        wav = WavWriter(work / AUDIO)
        batched = BatchedDetector(detector=detector, batch_size=config.batch_size)
        first_pass = scan(frames.first_pass(video, wav), batched, config.detect_every)
        samples = wav.close()
    if not samples:
        raise no_sound(source)
    if first_pass.cuts and config.scene_cuts == "reject":
        times = ", ".join(f"{frame / FPS:.2f}" for frame in first_pass.cuts[:5])
        raise UserError(f"{source}: {len(first_pass.cuts)} shot cuts, at {times} s (--scene_cuts)")
    if not first_pass.tracks:
        raise UserError(f"{source}: no face in any of its {first_pass.frames} frames")
    cutouts = _choose_faces(report.clip, first_pass, config)
    images = frames.second_pass()
    for cutout in cutouts:
        size = (first_pass.width, first_pass.height)
        _write_crops(images, cutout, size, work / cutout.clip, config)
    report = replace(
        report,
        width=first_pass.width,
        height=first_pass.height,
        rotation=video.info.rotation,
        fps_in=round(float(video.info.fps), 3),
        shots=len(first_pass.cuts) + 1,
        audio_rate=video.audio_rate,
        audio_channels=video.audio_channels,
        warnings=_file_warnings(source, video.info),
    )
    if config.scene_cuts == "split" and first_pass.cuts:
        reports = [_finish_shot(cutout, source, work, report) for cutout in cutouts]
        (work / AUDIO).unlink()
        return reports
    (work / AUDIO).rename(work / report.clip / AUDIO)
    return [_finish_whole(cutouts[0], samples, video.info.seconds, report)]


class TwoPassFrames:
    """The frames of a video at 25 per second, twice; see the module."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._kept: list[np.ndarray] = []
        self._all_kept = True

    def first_pass(self, video: VideoFile, wav: WavWriter) -> Iterator[Frame]:
        """All frames, decoded in a thread beside; the sound goes into ``wav``."""
        left = MAX_KEPT_BYTES
        with closing(prefetch(at_rate(video.frames(wav), FPS), QUEUED_FRAMES)) as frames:
            for frame in frames:
                left -= frame.image.nbytes
                if left >= 0:
                    self._kept.append(frame.image)
                else:
                    self._all_kept = False
                yield frame

    def second_pass(self) -> Iterator[np.ndarray]:
        """The images (h, w, 3) BGR of the same frames once more, for the last time."""
        count = len(self._kept)
        while self._kept:
            yield self._kept.pop(0)
        if not self._all_kept:
            again = at_rate(read_frames(self._source), FPS)
            with closing(prefetch(again, QUEUED_FRAMES)) as frames:
                for frame in islice(frames, count, None):
                    yield frame.image


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """A stretch of a video that becomes a clip: a shot, or the whole video."""

    clip: str
    start: int  # first frame
    stop: int  # the one after the last
    faces: dict[int, FaceBox[int]]  # frame → the face that is cut out
    people: int
    sides: list[tuple[int, int]] = field(default_factory=list)  # of the crops: width, height


def _choose_faces(clip: str, found: FacesFound, config: PreprocessConfig) -> list[Cutout]:
    """The whole video, or its shots, each with the face that is largest over it."""
    split = config.scene_cuts == "split" and found.cuts
    starts = [0, *found.cuts] if split else [0]
    stops = [*starts[1:], found.frames]
    cutouts = []
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        tracks = {
            track: complete_track(boxes, found.detected)
            for track, boxes in found.tracks.items()
            if not split or track[1] == number
        }
        main = max(tracks, key=lambda track: total_area(tracks[track]), default=None)
        people = {
            track[0]
            for track, faces in tracks.items()
            if track == main or sum(face.box is not None for face in faces) >= MIN_CLIP_FRAMES
        }
        cutouts.append(
            Cutout(
                clip=f"{clip}-shot{number + 1}" if split else clip,
                start=start,
                stop=stop,
                faces={} if main is None else {face.item: face for face in tracks[main]},
                people=len(people),
            )
        )
    return cutouts


def _write_crops(
    images: Iterator[np.ndarray],
    cutout: Cutout,
    size: tuple[int, int],
    folder: Path,
    config: PreprocessConfig,
) -> None:
    """Write ``N.jpg`` for each frame N of a stretch that has the face, and note its sides.

    Args:
        images: from the stretch's first frame on.
        cutout: the stretch.
        size: width and height of the frames.
        folder: to be made.
        config: the options.
    """
    folder.mkdir(parents=True)
    numbers = range(cutout.start, cutout.stop)
    faces: Iterator[FaceBox[Frame]] = (
        FaceBox(
            item=Frame(time=(number - cutout.start) / FPS, image=image),
            starts_shot=False,
            detected=True,
            box=cutout.faces[number].box if number in cutout.faces else None,
        )
        for number, image in zip(numbers, images, strict=False)
    )
    if config.align == "tilt":
        faces = align(faces)
    placed = crop_boxes(faces, size, smooth=config.smooth_boxes)
    for number, (face, box) in enumerate(placed):
        if box is not None:
            crop = cut(face.item.image, box, face.tilt)
            (folder / f"{number}.jpg").write_bytes(cv2.imencode(".jpg", crop)[1].tobytes())
            cutout.sides.append((crop.shape[1], crop.shape[0]))


def _finish_shot(cutout: Cutout, source: Path, work: Path, report: ClipReport) -> ClipReport:
    """Cut the sound of a shot, and report it; one without a face leaves nothing."""
    folder = work / cutout.clip
    if not cutout.sides:
        shutil.rmtree(folder)
        times = f"{cutout.start / FPS:.2f} to {cutout.stop / FPS:.2f} s"
        rejected = f"{source}: no face in the shot from {times}"
        return replace(report, clip=cutout.clip, first_frame=cutout.start, rejected=rejected)
    start, stop = cutout.start * SAMPLES_PER_FRAME, cutout.stop * SAMPLES_PER_FRAME
    samples = cut_wav(work / AUDIO, folder / AUDIO, start, stop)
    return _with_measures(report, cutout, samples)


def _finish_whole(
    cutout: Cutout, samples: int, announced: float | None, report: ClipReport
) -> ClipReport:
    """Report a clip that is the whole video."""
    report = _with_measures(report, cutout, samples)
    seconds, warnings = report.frames / FPS, []
    if announced is not None and announced - seconds > MISSING_SECONDS:
        warnings.append(
            f"truncated: {seconds:.2f} s of the {announced:.2f} s that its header tells"
        )
    if report.shots > 1:
        warnings.append(f"{report.shots} shots: the face that is largest over all was taken")
    return replace(report, warnings=[*report.warnings, *warnings])


def _with_measures(report: ClipReport, cutout: Cutout, samples: int) -> ClipReport:
    sides = np.array(cutout.sides)
    width, height = sides.mean(axis=0).round(1).tolist()
    report = replace(
        report,
        clip=cutout.clip,
        first_frame=cutout.start,
        frames=cutout.stop - cutout.start,
        faces=len(cutout.sides),
        people=cutout.people,
        box_width=width,
        box_height=height,
        box_smallest=int(sides[:, 1].min()),
        box_largest=int(sides[:, 1].max()),
        audio_seconds=round(samples / SAMPLE_RATE, 3),
    )
    return replace(report, warnings=[*report.warnings, *_clip_warnings(report)])


def _file_warnings(source: Path, info: VideoInfo) -> list[str]:
    """What a user should know of a video that is used."""
    warnings = [*info.warnings]
    if source.suffix.lower() not in VIDEO_SUFFIXES:
        warnings.append(f"{source.name}: no video by its suffix, but by its content")
    if abs(info.mean_fps / info.fps - 1) > VARYING_RATE:
        mean, finest = float(info.mean_fps), float(info.fps)
        warnings.append(f"the frame rate varies: mean {mean:.2f}, at its finest {finest:.2f}")
    return warnings


def _clip_warnings(report: ClipReport) -> list[str]:
    """What a user should know of a clip that is kept."""
    missing = report.frames / FPS - report.audio_seconds
    warnings = []
    if missing > MISSING_SECONDS:
        warnings.append(f"the sound ends {missing:.2f} s before the picture")
    if report.audio_rate < SAMPLE_RATE:
        warnings.append(f"the sound has {report.audio_rate} Hz: it lacks all above half of that")
    if report.people > 1:
        warnings.append(f"{report.people} faces: the one that is largest over the clip was taken")
    if report.faces < MIN_CLIP_FRAMES:
        warnings.append(f"{report.faces} crops: training needs {MIN_CLIP_FRAMES} in a clip")
    return warnings
