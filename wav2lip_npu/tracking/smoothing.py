"""From the boxes of one face to what is cut out: interpolated, in whole pixels, smoothed.

Training crops and inference crops pass through the same functions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from face_detection import Box

SMOOTHING_WINDOW = 5  # boxes that are averaged

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceBox(Generic[Item]):
    """The box of one face in one frame."""

    item: Item  # the frame, or its number
    starts_shot: bool
    detected: bool  # whether the frame was shown to the detector
    box: np.ndarray | None  # (4,) x1, y1, x2, y2; None: the face is not there, or not known yet
    tilt: float = 0.0  # degrees by which the box is turned clockwise about its middle
    points: np.ndarray | None = None  # (468, 3), see FaceLandmarks; None: not looked for


PixelBox = tuple[FaceBox[Item], Box | None]


def interpolate_boxes(boxes: Iterator[FaceBox[Item]]) -> Iterator[FaceBox[Item]]:
    """Fill in the frames that the detector was not shown, where the face is on both sides.

    Args:
        boxes: in order of time; the last was shown to the detector.
    """
    before: np.ndarray | None = None
    waiting: list[FaceBox[Item]] = []
    for face in boxes:
        if not face.detected:
            waiting.append(face)
            continue
        for number, unknown in enumerate(waiting, start=1):
            box = None
            if before is not None and face.box is not None:
                box = before + (face.box - before) * number / (len(waiting) + 1)
            yield replace(unknown, box=box)
        yield face
        before, waiting = face.box, []


def smooth_boxes(boxes: Iterator[PixelBox[Item]], method: str) -> Iterator[PixelBox[Item]]:
    """Average the boxes of a face over time; one of ``config.SMOOTHINGS``."""
    if method == "centred":
        return _centred(boxes)
    return _forward(boxes) if method == "original" else boxes


def _centred(boxes: Iterator[PixelBox[Item]]) -> Iterator[PixelBox[Item]]:
    """Each box averaged with those of two frames before and after.

    Only as far as the face is there without a gap, and never over a shot cut.
    """
    run = 0  # number of the stretch without a gap
    ahead: deque[tuple[FaceBox[Item], Box | None, int]] = deque()
    before: deque[tuple[FaceBox[Item], Box | None, int]] = deque(maxlen=SMOOTHING_WINDOW // 2)

    def average() -> PixelBox[Item]:
        face, box, own_run = ahead.popleft()
        others = [*before, *ahead]
        before.append((face, box, own_run))
        if box is None:
            return face, None
        return _mean(
            face, [(face, box), *((one, its) for one, its, run in others if run == own_run)]
        )

    for face, box in boxes:
        run += box is None or face.starts_shot
        ahead.append((face, box, run))
        if len(ahead) > SMOOTHING_WINDOW // 2:
            yield average()
    while ahead:
        yield average()


def _forward(boxes: Iterator[PixelBox[Item]]) -> Iterator[PixelBox[Item]]:
    """Each box averaged with those of the next four frames, as in the original.

    There the last four take the mean of the last five, of which those before them are means
    already. Frames without a face take no part. (Of fewer than five frames the original averages
    only the last few; here it is all.)
    """
    ahead: deque[PixelBox[Item]] = deque()  # at most five, not yet averaged
    averages: deque[PixelBox[Item]] = deque(maxlen=SMOOTHING_WINDOW)  # the newest

    def average(face: FaceBox[Item], box: Box | None, others: list[PixelBox[Item]]) -> None:
        averages.append((face, None) if box is None else _mean(face, [(face, box), *others]))

    for pair in boxes:
        ahead.append(pair)
        if len(ahead) == SMOOTHING_WINDOW:
            face, box = ahead.popleft()
            average(face, box, [*ahead])
            yield averages[-1]
    while ahead:
        face, box = ahead.popleft()
        before = [*averages][len(ahead) + 1 - SMOOTHING_WINDOW :]
        average(face, box, [*before, *ahead])
        yield averages[-1]


def _mean(face: FaceBox[Item], pairs: list[PixelBox[Item]]) -> PixelBox[Item]:
    """The mean of all boxes, and of their tilts, as those of a face.

    Boxes that were turned with the face, and those that were not, are different ones.
    """
    turned = face.points is not None
    same = [(one, box) for one, box in pairs if (one.points is not None) == turned]
    known = [(one.tilt, box) for one, box in same if box is not None]
    x1, y1, x2, y2 = np.mean([box for _, box in known], axis=0)
    tilt = float(np.mean([tilt for tilt, _ in known]))
    return replace(face, tilt=tilt), (int(x1), int(y1), int(x2), int(y2))
