"""Where the face is in each picture of a stream: detection, choice, policy, smoothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

import face_detection
from face_detection import Box
from wav2lip_npu.config import LipSyncConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.video_reader import Frame, rectangle
from wav2lip_npu.tracking import shots as scenes
from wav2lip_npu.tracking.detection_cache import FaceCache
from wav2lip_npu.tracking.shots import Seen
from wav2lip_npu.tracking.smoothing import centred, overlaps, smoothed
from wav2lip_npu.tracking.tracker import Choice, Crowd

HELD_BYTES = 2**27  # of pictures that wait together: 128 MiB, of 720p 32, of 4K 3
STILL = 0.7  # overlap of a face with itself some frames before, above which it hardly moved
NAMED = 10  # frames without a face, or people, that a line of the log names
SHORTEST = 5  # frames for which somebody must be seen to be named

Detect = Callable[[Sequence[int], Sequence[np.ndarray]], list[np.ndarray]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """A picture, and where its face is."""

    frame: Frame
    box: Box | None


@dataclass(kw_only=True)
class Misses:
    """Frames without a face: what is done about them, and which they were."""

    policy: str  # one of config.NO_FACE_POLICIES
    fps: Fraction | float
    frames: list[int] = field(default_factory=list)
    seen: int = 0
    held: Box | None = None
    told: bool = False

    def settle(self, box: Box | None, *, cut: bool = False) -> Box | None:
        """The box to use for the next frame; none is held over a scene cut.

        Raises:
            UserError: there is no face, and the policy is "error".
        """
        number, self.seen = self.seen, self.seen + 1
        if cut or box is not None:
            self.held = box
        if box is not None:
            return box
        self.frames.append(number)
        if self.policy == "error":
            raise UserError(
                f"frame {number} ({number / float(self.fps):.2f} s): no face; --no_face pass or "
                "hold goes on, --box gives the place"
            )
        return self.held if self.policy == "hold" else None

    def conclude(self) -> None:
        """Say, once, which frames had no face.

        Raises:
            UserError: none had one.
        """
        if self.told:
            return
        self.told = True
        if len(self.frames) == self.seen:
            raise UserError(
                f"no face in any of {self.seen} frames, or not the one that is asked for; "
                "--face_select chooses, --box gives the place"
            )
        if self.frames:
            times = ", ".join(f"{first:.2f}–{last:.2f}" for first, last in self.stretches()[:NAMED])
            more = ", …" if len(self.stretches()) > NAMED else ""
            done = "left as they are" if self.policy == "pass" else "drawn at the last face's place"
            log.warning(
                "%d of %d frames without a face, %s, at seconds %s%s",
                len(self.frames), self.seen, done, times, more,
            )  # fmt: skip

    def stretches(self) -> list[tuple[float, float]]:
        """When there was no face: from and to, in seconds."""
        frames = np.array(self.frames)
        ends = np.flatnonzero(np.diff(frames) > 1)
        firsts, lasts = np.concatenate([[0], ends + 1]), np.concatenate([ends, [len(frames) - 1]])
        pairs = zip(frames[firsts].tolist(), frames[lasts].tolist(), strict=True)
        return [(first / float(self.fps), (last + 1) / float(self.fps)) for first, last in pairs]


def locate(
    frames: Iterator[Frame],
    config: LipSyncConfig,
    detector: face_detection.Detector | None,
    misses: Misses,
    cache: FaceCache | None = None,
) -> Iterator[Located]:
    """Pictures with the box of the chosen face, as they come.

    Args:
        frames: the pictures.
        config: the options.
        detector: finds faces; None where ``--box`` gives the place.
        misses: learns which frames have no face, and says what becomes of them.
        cache: what is known of these pictures already; it learns the rest.
    """
    if detector is None:
        for frame in frames:
            given = rectangle("--box", config.box, frame.image)
            yield Located(frame=frame, box=misses.settle(given))
        return
    seen = scenes.to_look_at(frames, lambda frame: frame.image, config.detect_every)
    detected = _detected(seen, _remembering(detector, cache), config.face_det_batch_size)
    chosen = _between(_chosen(detected, config, misses.fps))
    settled = ((place, _settled(place, config, misses)) for place in chosen)
    if config.nosmooth or config.smooth == "none":
        smooth: Iterator[tuple[_Place, Box | None]] = settled
    elif config.smooth == "original":
        smooth = smoothed(settled)
    else:
        smooth = centred(settled, lambda place: place.cut)
    for place, box in smooth:
        yield Located(frame=place.frame, box=box)


def _remembering(detector: face_detection.Detector, cache: FaceCache | None) -> Detect:
    """Detection of numbered pictures; the detector sees only those that are not in the cache."""

    def detect(numbers: Sequence[int], images: Sequence[np.ndarray]) -> list[np.ndarray]:
        if cache is None:
            return detector.detect(images)
        known = {number: cache.get(number) for number in numbers}
        unknown = [number for number in numbers if known[number] is None]
        asked = [image for number, image in zip(numbers, images, strict=True) if number in unknown]
        for number, found in zip(unknown, detector.detect(asked) if asked else [], strict=True):
            cache.put(number, found)
            known[number] = found
        return [found for found in known.values() if found is not None]

    return detect


def _detected(
    seen: Iterator[Seen[Frame]], detect: Detect, batch_size: int
) -> Iterator[tuple[Seen[Frame], np.ndarray | None]]:
    """Pictures with their detections (n, 5), None where nobody had to look.

    Between two pictures that were looked at the others are too, unless all faces are where they
    were: so whoever comes, goes or moves is found to the frame.
    """
    waiting: list[Seen[Frame]] = []
    before: np.ndarray | None = None  # detections of the picture before those that wait
    number = 0  # of the first that waits
    for item in seen:
        waiting.append(item)
        if not item.look or len(waiting) < at_once(batch_size, item.item.image):
            continue
        found = _look(waiting, number, before, detect)
        yield from zip(waiting, found, strict=True)
        before, number, waiting = found[-1], number + len(waiting), []
    if waiting:
        yield from zip(waiting, _look(waiting, number, before, detect), strict=True)


def _look(
    items: list[Seen[Frame]], first: int, before: np.ndarray | None, detect: Detect
) -> list[np.ndarray | None]:
    found: list[np.ndarray | None] = [None] * len(items)

    def ask(places: list[int]) -> None:
        images = [items[place].item.image for place in places]
        for place, boxes in zip(
            places, detect([first + place for place in places], images), strict=True
        ):
            found[place] = boxes

    ask([place for place, item in enumerate(items) if item.look])
    unclear: list[int] = []
    skipped: list[int] = []
    for place, boxes in enumerate(found):
        if boxes is None:
            skipped.append(place)
            continue
        if before is None or not _calm(before, boxes):
            unclear += skipped
        before, skipped = boxes, []
    if unclear:
        ask(unclear)
    return found


def _calm(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the same faces are in about the same places."""
    if len(one) != len(other):
        return False
    shared = overlaps(one[:, :4].astype(np.float64), other[:, :4].astype(np.float64))
    return bool((shared.max(axis=1, initial=0) >= STILL).all())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """A picture and the chosen person's box in it, if it is known whether there is one."""

    frame: Frame
    cut: bool
    known: bool
    box: np.ndarray | None  # (4,) x1, y1, x2, y2


def _chosen(
    detected: Iterator[tuple[Seen[Frame], np.ndarray | None]],
    config: LipSyncConfig,
    fps: Fraction | float,
) -> Iterator[_Place]:
    """The chosen person's boxes, where detections are known."""
    crowd, choice = Crowd(), Choice(config.face_select)
    for number, (seen, found) in enumerate(detected):
        frame, box = seen.item, None
        if found is not None:
            boxes = found[:, :4].astype(np.float64)
            present = crowd.see(number, frame.image, boxes, cut=seen.cut)
            height, width = frame.image.shape[:2]
            box = choice.among(present, (width, height), crowd.shot)
        yield _Place(frame=frame, cut=seen.cut, known=found is not None, box=box)
    people = [person for person in crowd.people if person.frames >= SHORTEST]
    if len(people) > 1:
        times = [f"{person.number} from {person.since / float(fps):.2f} s" for person in people]
        log.info(
            "%d people: %s%s; --face_select track:N takes the N-th",
            len(people), ", ".join(times[:NAMED]), ", …" if len(times) > NAMED else "",
        )  # fmt: skip


def _between(places: Iterator[_Place]) -> Iterator[_Place]:
    """The boxes of pictures that nobody looked at, interpolated between those on both sides."""
    before: np.ndarray | None = None
    waiting: list[_Place] = []
    for place in places:
        if not place.known:
            waiting.append(place)
            continue
        for number, unknown in enumerate(waiting, start=1):
            box = None
            if before is not None and place.box is not None:
                box = before + (place.box - before) * number / (len(waiting) + 1)
            yield replace(unknown, known=True, box=box)
        yield place
        before, waiting = place.box, []


def _settled(place: _Place, config: LipSyncConfig, misses: Misses) -> Box | None:
    """The box in whole pixels with its margins, by the policy if there is none."""
    box = None if place.box is None else face_detection.in_pixels(place.box)
    if box is not None:
        box = padded(box, config.pads, place.frame.image)
    return misses.settle(box, cut=place.cut)


def at_once(wanted: int, image: np.ndarray) -> int:
    """How many of the pictures that are wanted may wait together, each of them also as decoded."""
    return min(wanted, max(1, HELD_BYTES // (image.nbytes * 3 // 2)))


def padded(box: Box, pads: tuple[int, int, int, int], image: np.ndarray) -> Box | None:
    """A box with margins (top, bottom, left, right), within the picture; None if outside of it."""
    x1, y1, x2, y2 = box
    top, bottom, left, right = pads
    height, width = image.shape[:2]
    x1, y1 = max(0, x1 - left), max(0, y1 - top)
    x2, y2 = min(width, x2 + right), min(height, y2 + bottom)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
