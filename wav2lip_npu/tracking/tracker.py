"""Who is who in a video whose frames come by once: known by place, by appearance, or by both.

Tracking by detection, as in SORT (Bewley et al. 2016), with an appearance so that a person is known
again who crosses another, comes back, or is in another shot. Preprocessing and inference both use
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from wav2lip_npu.boxes import iou
from wav2lip_npu.tracking.detection import DetectedFrame
from wav2lip_npu.tracking.shots import MarkedFrame

SAME_FACE_IOU = 0.1  # overlap with where the face should be by now
MAX_AGE_FRAMES = 25  # 1 s for which a face may be missed and still be known by its place
APPEARANCE_MARGIN = 0.15  # of a face's sides, beyond its box: hair belongs to the appearance
APPEARANCE_SIZE = 48  # pixels, width and height, in which colours are counted
COLOUR_BINS = (32, 32, 8)  # of CIELAB's a and b, and of lightness
# On eight videos of one person each, appearances within a video were alike by 0.96 or more, and
# those of different videos by 0.83 or less.
SAME_APPEARANCE = 0.9  # similarity of one person elsewhere, or in another shot
OTHER_APPEARANCE = 0.75  # similarity below which it is somebody else, though at the same place
APPEARANCE_WEIGHT = 3.0  # against the overlap of places, where both are known
APPEARANCE_UPDATE = 0.05  # share of the newest appearance in a person's
MAX_IDENTITIES = 64  # people who are known when they come back
VELOCITY_FRAMES = 3  # over which a person's movement is measured
MAX_UNSEEN_FRAMES = 3  # for which a face may be missed without a doubt about who it is


@dataclass(kw_only=True, eq=False)
class Identity:
    """A person in the video."""

    number: int  # from 1, in order of appearance
    first_frame: int
    last_frame: int
    shot: int  # the one of the last frame
    box: np.ndarray  # (4,) x1, y1, x2, y2 there
    appearance: np.ndarray  # colours, a vector of length 1
    velocity: np.ndarray  # (2,) pixels per frame, right and down
    frames: int = 0  # in which the face was found
    same_as: Identity | None = None  # who it turned out to be
    not_same_as: set[Identity] = field(default_factory=set)  # in a frame with this newcomer

    def resolved(self) -> Identity:
        """The person whom this is, as far as it is known by now."""
        return self if self.same_as is None else self.same_as.resolved()

    def predicted_box(self, frame: int) -> np.ndarray:
        """Where the face should be by now, (4,)."""
        passed = min(frame - self.last_frame, MAX_AGE_FRAMES)
        return self.box + np.tile(self.velocity, 2) * passed

    def update(self, frame: int, shot: int, box: np.ndarray, appearance: np.ndarray) -> None:
        """Note where the face is now, and its appearance."""
        passed = frame - self.last_frame
        if shot == self.shot and passed <= MAX_AGE_FRAMES:
            moved = (box - self.box).reshape(2, 2).mean(axis=0) / passed
            self.velocity += (moved - self.velocity) * min(1.0, passed / VELOCITY_FRAMES)
        else:
            self.velocity = np.zeros(2)
        self.appearance = (1 - APPEARANCE_UPDATE) * self.appearance + APPEARANCE_UPDATE * appearance
        self.box, self.last_frame, self.shot = box, frame, shot
        self.frames += 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedFrame:
    """A frame, and who is in it."""

    marked: MarkedFrame
    shot: int  # number of the shot, from 0
    people: dict[Identity, np.ndarray] | None  # boxes (4,), from left to right; None: not detected


def track_faces(frames: Iterator[DetectedFrame], tracker: Tracker) -> Iterator[TrackedFrame]:
    """Tell who is in each frame that the detector was shown."""
    for detected in frames:
        marked, people = detected.marked, None
        if detected.detections is not None:
            boxes = detected.detections[:, :4].astype(np.float64)
            people = tracker.update(
                marked.number, marked.frame.image, boxes, starts_shot=marked.starts_shot
            )
        yield TrackedFrame(marked=marked, shot=tracker.shot, people=people)


class Tracker:
    """Everybody in a video so far."""

    def __init__(self) -> None:
        self.identities: list[Identity] = []  # without those who turned out to be another
        self.shot = 0
        self._known: list[Identity] = []  # those who may be known again
        self._count = 0  # numbers given
        self._last_update = -1  # frame of the last call of ``update``

    def update(
        self, frame: int, image: np.ndarray, boxes: np.ndarray, *, starts_shot: bool
    ) -> dict[Identity, np.ndarray]:
        """Tell who is in a frame.

        Args:
            frame: its number, higher than that of any before.
            image: (h, w, 3) BGR.
            boxes: (n, 4) the faces' x1, y1, x2, y2.
            starts_shot: whether a shot began since the last call.

        Returns:
            People and their boxes, from left to right.
        """
        self.shot += starts_shot
        appearances = [_appearance(image, box) for box in boxes]
        found: dict[int, Identity] = {}  # by the number of the box
        for identity, number in self._candidates(frame, boxes, appearances):
            if number not in found and identity not in found.values():
                found[number] = identity
        for number, identity in found.items():
            found[number] = self._recognise(identity, appearances[number], found.values())
        left_to_right = sorted(range(len(boxes)), key=lambda n: float(boxes[n][0]))
        for number in left_to_right:
            if number not in found:
                found[number] = self._add(frame, boxes[number], appearances[number])
            found[number].update(frame, self.shot, boxes[number], appearances[number])
        self._last_update = frame
        for identity in found.values():
            if identity.frames <= MAX_AGE_FRAMES:
                identity.not_same_as.update(found.values())
        return {found[number]: boxes[number] for number in left_to_right}

    def _candidates(
        self, frame: int, boxes: np.ndarray, appearances: Sequence[np.ndarray]
    ) -> list[tuple[Identity, int]]:
        """People with the numbers of boxes that may be theirs, the likeliest first."""
        if not len(boxes) or not self._known:
            return []
        places = np.stack([identity.predicted_box(frame) for identity in self._known])
        overlaps = iou(places, boxes)
        scored = []
        for row, identity in enumerate(self._known):
            passed = frame - identity.last_frame
            has_place = identity.shot == self.shot and passed <= MAX_AGE_FRAMES
            was_away = passed > MAX_UNSEEN_FRAMES and identity.last_frame < self._last_update
            for number, appearance in enumerate(appearances):
                alike = _similarity(identity.appearance, appearance)
                overlap = float(overlaps[row, number]) if has_place else 0.0
                # Somebody who has been away for a moment may have been replaced.
                replaced = was_away and alike < OTHER_APPEARANCE
                if overlap >= SAME_FACE_IOU and not replaced:
                    scored.append((2 + overlap + APPEARANCE_WEIGHT * alike, identity, number))
                elif alike >= SAME_APPEARANCE:
                    scored.append((alike, identity, number))
        scored.sort(key=lambda pair: -pair[0])
        return [(identity, number) for _, identity, number in scored]

    def _recognise(
        self, identity: Identity, appearance: np.ndarray, present: Collection[Identity]
    ) -> Identity:
        """Who a newcomer is: somebody who comes from behind another is known only once visible."""
        if identity.frames > MAX_AGE_FRAMES:
            return identity
        likely = [
            (_similarity(other.appearance, appearance), other)
            for other in self._known
            if other.number < identity.number
            and other not in present
            and other not in identity.not_same_as
        ]
        alike, other = max(likely, key=lambda pair: pair[0], default=(0.0, identity))
        if alike < SAME_APPEARANCE:
            return identity
        self.identities.remove(identity)
        self._known.remove(identity)
        identity.same_as = other
        return other

    def _add(self, frame: int, box: np.ndarray, appearance: np.ndarray) -> Identity:
        self._count += 1  # a number is never given twice, or track:N would name two people
        identity = Identity(
            number=self._count,
            first_frame=frame,
            last_frame=frame - 1,
            shot=self.shot,
            box=box,
            appearance=appearance,
            velocity=np.zeros(2),
        )
        self.identities.append(identity)
        self._known.append(identity)
        if len(self._known) > MAX_IDENTITIES:
            self._forget(frame)
        return identity

    def _forget(self, frame: int) -> None:
        """Drop the person with the fewest frames: long films have countless extras."""
        away = [person for person in self._known if frame - person.last_frame > MAX_AGE_FRAMES]
        if away:
            least = min(away, key=lambda person: person.frames)
            self._known.remove(least)
            least.appearance = np.zeros(0)


def _appearance(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """How often each colour is in and around a face, as a vector of length 1."""
    x1, y1, x2, y2 = box
    right, down = APPEARANCE_MARGIN * (x2 - x1), APPEARANCE_MARGIN * (y2 - y1)
    height, width = image.shape[:2]
    left, top = int(max(0, x1 - right)), int(max(0, y1 - down))
    part = image[top : int(min(height, y2 + down)) + 1, left : int(min(width, x2 + right)) + 1]
    if not part.size:
        return np.zeros(np.prod(COLOUR_BINS))
    small = cv2.resize(part, (APPEARANCE_SIZE,) * 2, interpolation=cv2.INTER_AREA)
    colours = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    counts = cv2.calcHist([colours], [1, 2, 0], None, list(COLOUR_BINS), [0, 256] * 3)
    counts = np.sqrt(cv2.GaussianBlur(counts, (3, 3), 0).ravel().astype(np.float64))
    return counts / max(float(np.linalg.norm(counts)), 1e-9)


def _similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Bhattacharyya's coefficient of two appearances, 0 to 1."""
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
