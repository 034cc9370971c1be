"""The points of the chosen face in each frame, which blending needs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import numpy as np

from face_detection.landmarks import FaceLandmarks, tilt_of
from wav2lip_npu.boxes import bounds
from wav2lip_npu.inference.locate import NO_FRAME, LocatedFrame
from wav2lip_npu.tracking.upright import fits


def find_points(
    frames: Generator[LocatedFrame, None, None], network: FaceLandmarks
) -> Generator[LocatedFrame, None, None]:
    """Frames with the points of their face, as far as a face was found and has any.

    A frame that comes again, as a still image does, is looked at once.
    """
    before = LocatedFrame(frame=NO_FRAME, box=None)
    with closing(frames):
        for located in frames:
            if located.points is None:  # else they were found when it was aligned
                same = _same(located, before)
                points = before.points if same else _points(located, before, network)
                located = replace(located, points=points)
            yield located
            before = located


def _same(one: LocatedFrame, other: LocatedFrame) -> bool:
    places = ((frame.box, frame.tilt, frame.has_face) for frame in (one, other))
    return one.frame.image is other.frame.image and len(set(places)) == 1


def _points(
    located: LocatedFrame, before: LocatedFrame, network: FaceLandmarks
) -> np.ndarray | None:
    image, box = located.frame.image, located.face_box
    if box is None:
        return None
    tilt = located.tilt or None
    if tilt is None and before.points is not None and before.shot == located.shot:
        tilt = tilt_of(before.points)
    points = network.detect_tilted(image, box.tolist(), tilt)
    x1, y1, x2, y2 = (int(side) for side in box)
    around = bounds((x1, y1, x2, y2), located.tilt, (image.shape[1], image.shape[0]))
    return points if around is not None and fits(points, np.array(around)) else None
