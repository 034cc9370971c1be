"""Faces followed through a video: who is who from frame to frame, and where between detections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from face_detection import Box

SMOOTHED = 5  # boxes that are averaged, this frame's and four others
SAME_FACE = 0.1  # overlap (intersection over union) with the box before that makes it the same face
PATIENCE = 25  # frames, 1 s, for which a face may be missed and still be known by its place

Place = TypeVar("Place")


@dataclass(kw_only=True)
class Track:
    """One face through one shot."""

    shot: int  # its first frame
    boxes: dict[int, np.ndarray] = field(default_factory=dict)  # frame → x1, y1, x2, y2; rising

    @property
    def last(self) -> int:
        """The newest frame."""
        return next(reversed(self.boxes))

    @property
    def size(self) -> float:
        """The boxes' areas together, in pixels: who is in the picture largest and longest."""
        return float(sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in self.boxes.values()))


def follow(seen: Mapping[int, np.ndarray], cuts: Sequence[int]) -> list[Track]:
    """Join detections into tracks, none of which goes on over a scene cut.

    In each frame the pair of track and detection that overlap most are joined first; a detection
    that is left over begins a track.

    Args:
        seen: frames that were looked at, rising, with their detections (n, 5).
        cuts: the first frame of each shot but the first.

    Returns:
        The tracks in the order in which they begin.
    """
    tracks: list[Track] = []
    starts = deque(sorted(cuts))
    shot = 0
    for frame, detections in seen.items():
        while starts and starts[0] <= frame:
            shot = starts.popleft()
        known = [t for t in tracks if t.shot == shot and frame - t.last <= PATIENCE]
        for track, box in _joined(known, detections[:, :4].astype(np.float64)):
            if track is None:
                track = Track(shot=shot)
                tracks.append(track)
            track.boxes[frame] = box
    return tracks


def _joined(known: Sequence[Track], boxes: np.ndarray) -> Iterator[tuple[Track | None, np.ndarray]]:
    """Each box with the track that it goes on, or None; the best pairs first."""
    free = dict(enumerate(boxes))
    if known and free:
        shared = overlaps(np.stack([track.boxes[track.last] for track in known]), boxes)
        going_on: set[int] = set()
        places, numbers = np.nonzero(shared >= SAME_FACE)
        for pair in np.argsort(-shared[places, numbers], kind="stable"):
            place, number = int(places[pair]), int(numbers[pair])
            if number in free and place not in going_on:
                going_on.add(place)
                yield known[place], free.pop(number)
    for box in free.values():
        yield None, box


def overlaps(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of these boxes (m, 4) with each of those (n, 4): (m, n)."""
    one, other = ones[:, None], others[None]
    near, far = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    common = np.maximum(far - near, 0).prod(axis=-1)
    both = sum((box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (one, other)) - common
    return np.divide(common, both, out=np.zeros_like(common), where=both > 0)


def filled(track: Track, every: int) -> Track:
    """The track with the frames between two detections, at most ``every`` apart, interpolated."""
    boxes: dict[int, np.ndarray] = {}
    for frame, box in track.boxes.items():
        before = next(reversed(boxes), frame)
        if frame - before <= every:
            for between in range(before + 1, frame):
                share = (between - before) / (frame - before)
                boxes[between] = (1 - share) * boxes[before] + share * box
        boxes[frame] = box
    return Track(shot=track.shot, boxes=boxes)


def smoothed(located: Iterable[tuple[Place, Box | None]]) -> Iterator[tuple[Place, Box | None]]:
    """Each box averaged with those of the next four frames, in whole pixels.

    As in the original the last four take the mean of the last five, of which those before them are
    means already. Frames without a face take no part. (Of fewer than five frames the original
    averages only the last few; here it is all.)
    """
    ahead: deque[tuple[Place, Box | None]] = deque()  # at most five, not yet averaged
    tail: deque[Box | None] = deque(maxlen=SMOOTHED)  # the newest averages
    for pair in located:
        ahead.append(pair)
        if len(ahead) == SMOOTHED:
            place, box = ahead.popleft()
            tail.append(box and _mean([box, *(later for _, later in ahead)]))
            yield place, tail[-1]
    while ahead:
        place, box = ahead.popleft()
        before = [*tail][len(ahead) + 1 - SMOOTHED :]
        tail.append(box and _mean([*before, box, *(later for _, later in ahead)]))
        yield place, tail[-1]


def centred(
    located: Iterable[tuple[Place, Box | None]], begins: Callable[[Place], bool]
) -> Iterator[tuple[Place, Box | None]]:
    """Each box averaged with those of two frames before and after, in whole pixels.

    Only as far as the face is there without a gap, and never over a scene cut.

    Args:
        located: in order of time.
        begins: tells of a place whether a scene begins there.
    """
    run = 0  # of frames in which the face is there
    ahead: deque[tuple[Place, Box | None, int]] = deque()
    before: deque[tuple[Box | None, int]] = deque(maxlen=SMOOTHED // 2)

    def average() -> tuple[Place, Box | None]:
        place, box, own = ahead.popleft()
        others = [*before, *((later, number) for _, later, number in ahead)]
        before.append((box, own))
        if box is None:
            return place, None
        return place, _mean([box, *(other for other, number in others if number == own)])

    for place, box in located:
        run += box is None or begins(place)
        ahead.append((place, box, run))
        if len(ahead) > SMOOTHED // 2:
            yield average()
    while ahead:
        yield average()


def _mean(boxes: list[Box | None]) -> Box:
    x1, y1, x2, y2 = np.mean([box for box in boxes if box is not None], axis=0)
    return int(x1), int(y1), int(x2), int(y2)
