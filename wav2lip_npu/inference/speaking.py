"""Who speaks in each shot of a video: whose mouth moves with its sound, by landmarks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

import numpy as np

from face_detection.landmarks import FaceLandmarks, mouth_shape, tilt_of
from wav2lip_npu.alignment.lags import LAGS, correlations
from wav2lip_npu.alignment.mouth import VOWEL_GROUPS, voice_features
from wav2lip_npu.console.progress import Progress
from wav2lip_npu.constants import FPS
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.hearing import hear
from wav2lip_npu.media.audio import SoundFile
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.runtime.prefetch import prefetch
from wav2lip_npu.tracking.detection import BatchedDetector, detect_faces
from wav2lip_npu.tracking.shots import mark_detection_frames
from wav2lip_npu.tracking.tracker import Identity, TrackedFrame, Tracker, track_faces
from wav2lip_npu.tracking.upright import fits

# Mean change of the opening from a frame to the next of 25 a second, averaged over three, in
# heights of the face. People who speak had 0.0012 and more (109 clips), shut mouths 0.0005.
MIN_MOVEMENT = 0.001
LEAST_SHARE = 0.5  # of the movement of whoever moves most; with less, a mouth only follows the head
MIN_SPOKEN_FRAMES = 10  # of a shot; with fewer nobody speaks
MAX_LAG = 4  # frames by which the sound may be early or late
# What goes with the voice: how open the mouth is, the height of the lips, and how fast it changes.
WEIGHTS = np.array([0.6, 0.4, 0.5])
CHANGE_FRAMES = 5  # over which changes are averaged
MARGIN_SECONDS = 10.0  # of video that are looked at after the part that is needed
MAX_LOGGED = 10  # shots that a line of the log names
QUEUED_FRAMES = 4

log = logging.getLogger(__name__)


class KeptDetections(dict[int, np.ndarray]):
    """Detections of the first of two passes, for the second; see ``tracking.detection``."""

    def put(self, frame: int, detections: np.ndarray) -> None:
        """Remember the detections of a frame."""
        self[frame] = detections


@dataclass(frozen=True, kw_only=True)
class Voice:
    """What is heard in each frame of 25 a second."""

    level: np.ndarray  # (n,) of the bands of vowels
    spoken: np.ndarray  # bool (n,), whether somebody speaks


def listen(sound: SoundFile) -> Voice:
    """Listen to a whole sound.

    Raises:
        UserError: it cannot be decoded, or there is too little of it.
    """
    blocks = sound.mono_blocks(shared=False)
    level, spoken = [], []
    for ((chunk, weight),) in hear([(sound.path, blocks)], FPS, "source", as_trained=False):
        level.append(float(voice_features(chunk)[0, VOWEL_GROUPS].mean()))
        spoken.append(weight > 0)
    return Voice(level=np.array(level), spoken=np.array(spoken))


class SpeakerSelector:
    """Whoever speaks in each shot; see ``tracking.selection.TargetSelector``."""

    def __init__(self, speakers: Mapping[int, frozenset[int]]) -> None:
        """Of each shot with a speaker, the numbers that this person is given there."""
        self._speakers = speakers

    def select(
        self, people: Mapping[Identity, np.ndarray], size: tuple[int, int], shot: int
    ) -> Identity | None:
        """See ``TargetSelector``."""
        numbers = self._speakers.get(shot, frozenset())
        return next((person for person in people if person.number in numbers), None)

    def expects(self, shot: int) -> bool:
        """See ``Selector``: where somebody speaks."""
        return shot in self._speakers


@dataclass(kw_only=True)
class _Seen:
    """The mouth of one person in one shot."""

    times: list[float] = field(default_factory=list)  # seconds
    shapes: list[np.ndarray] = field(default_factory=list)  # (3,) each, see ``mouth_shape``
    box: np.ndarray | None = None  # the last one
    tilt: float | None = None

    def resampled(self) -> tuple[int, np.ndarray]:
        """Number of the first frame of 25 a second, and the shape in each (n, 3)."""
        first, last = int(np.ceil(self.times[0] * FPS)), int(self.times[-1] * FPS)
        wanted = np.arange(first, last + 1) / FPS
        columns = zip(*self.shapes, strict=True)
        return first, np.stack([np.interp(wanted, self.times, one) for one in columns], axis=1)


def find_speakers(
    frames: Iterator[Frame],
    detector: BatchedDetector,
    detect_every: int,
    voice: Voice,
    *,
    fps: Fraction | float,
    start: float = 0.0,
    total: int | None = None,
) -> SpeakerSelector:
    """Look at all people in a video, and listen to its sound.

    Args:
        frames: in order of time.
        detector: finds faces.
        detect_every: see ``mark_detection_frames``.
        voice: in the sound of the video.
        fps: frames per second.
        start: seconds of the sound before the first frame.
        total: frames that are needed, if that is known; few more are looked at.

    Raises:
        UserError: nobody who is seen speaks.
    """
    tracker, network = Tracker(), FaceLandmarks()
    shots: dict[int, dict[Identity, _Seen]] = {}
    starts: dict[int, float] = {}
    stop = None if total is None else total + round(MARGIN_SECONDS * fps)
    progress = Progress("who speaks", "frame", total)
    with closing(prefetch(islice(frames, stop), QUEUED_FRAMES)) as ahead, progress:
        marked = mark_detection_frames(ahead, detect_every)
        for number, tracked in enumerate(track_faces(detect_faces(marked, detector), tracker)):
            starts.setdefault(tracked.shot, number / float(fps))
            people = shots.setdefault(tracked.shot, {})
            _look(tracked, people, number / float(fps) + start, network)
            progress.update()
    speakers = {}
    for shot, people in shots.items():
        speaker = _speaker(_joined(people), voice)
        if speaker is not None:
            numbers = (person.number for person in people if person.resolved() is speaker)
            speakers[shot] = frozenset({*numbers, speaker.number})
    if not speakers:
        raise UserError(f"nobody who is seen speaks in {len(shots)} shots; choose another rule")
    _log_speakers(starts, speakers)
    return SpeakerSelector(speakers)


def _joined(people: Mapping[Identity, _Seen]) -> dict[Identity, _Seen]:
    """What was seen of newcomers belongs to whom they turned out to be."""
    joined: dict[Identity, _Seen] = {}
    for person, seen in people.items():
        known = joined.setdefault(person.resolved(), _Seen())
        pairs = [*zip(known.times + seen.times, known.shapes + seen.shapes, strict=True)]
        pairs.sort(key=lambda pair: pair[0])
        known.times, known.shapes = [time for time, _ in pairs], [shape for _, shape in pairs]
    return joined


def _look(
    tracked: TrackedFrame, people: dict[Identity, _Seen], time: float, network: FaceLandmarks
) -> None:
    """Note the mouth of each person; where nothing was detected, at the last places."""
    for person, box in (tracked.people or {}).items():
        people.setdefault(person, _Seen()).box = box
    for person, seen in people.items():
        if tracked.people is not None and person not in tracked.people:
            seen.box = None
        if seen.box is None:
            continue
        points = network.detect_tilted(tracked.marked.frame.image, seen.box.tolist(), seen.tilt)
        seen.tilt = tilt_of(points) if fits(points, seen.box) else None
        if seen.tilt is not None:
            seen.times.append(time)
            seen.shapes.append(mouth_shape(points))


def _speaker(people: Mapping[Identity, _Seen], voice: Voice) -> Identity | None:
    """Who of those whose mouth moves while somebody speaks goes best with the sound."""
    movements: dict[Identity, float] = {}
    agreements: dict[Identity, float] = {}
    for person, seen in people.items():
        if len(seen.times) < MIN_SPOKEN_FRAMES:
            continue
        first, shapes = seen.resampled()
        level, spoken = (x[first : first + len(shapes)] for x in (voice.level, voice.spoken))
        shapes = shapes[: len(level)]
        if spoken.sum() >= MIN_SPOKEN_FRAMES:
            movements[person] = _movement(shapes[:, 0], spoken)
            agreements[person] = agreement(shapes, level)
    least = max(MIN_MOVEMENT, LEAST_SHARE * max(movements.values(), default=0.0))
    moving = [person for person, movement in movements.items() if movement >= least]
    return max(moving, key=agreements.__getitem__, default=None)


def _movement(opening: np.ndarray, spoken: np.ndarray) -> float:
    steady = np.convolve(np.pad(opening, 1, "edge"), np.ones(3) / 3, "valid")
    return float(np.abs(np.gradient(steady))[spoken].mean())


def agreement(shapes: np.ndarray, level: np.ndarray) -> float:
    """How well a mouth goes with a voice, at the lag at which it does so best.

    Args:
        shapes: (n, 3) of the mouth, see ``mouth_shape``.
        level: (n,) of the voice.

    Returns:
        In standard errors of a correlation.
    """
    seen = np.stack([shapes[:, 0], shapes[:, 2], _change(shapes[:, 0])], axis=1)
    heard = np.stack([level, level, _change(level)], axis=1)
    scores = correlations(heard, seen) @ WEIGHTS
    return float(scores[np.abs(LAGS) <= MAX_LAG].max())


def _change(values: np.ndarray) -> np.ndarray:
    return np.convolve(np.abs(np.gradient(values)), np.ones(CHANGE_FRAMES) / CHANGE_FRAMES, "same")


def _log_speakers(starts: Mapping[int, float], speakers: Mapping[int, frozenset[int]]) -> None:
    named = [
        f"{seconds:.2f} s: {min(speakers[shot]) if shot in speakers else 'nobody'}"
        for shot, seconds in starts.items()
    ]
    more = ", …" if len(named) > MAX_LOGGED else ""
    log.info("who speaks in the shots from %s%s", ", ".join(named[:MAX_LOGGED]), more)
