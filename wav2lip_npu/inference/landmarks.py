"""The points of the chosen face in each frame, which blending needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from face_detection.landmarks import FaceLandmarks, tilt_of
from wav2lip_npu.boxes import iou
from wav2lip_npu.inference.locate import NO_FRAME, LocatedFrame

MIN_OVERLAP = 0.4  # of points and box, by their IoU; faces tilted by up to 45 degrees have 0.6


def find_points(frames: Iterator[LocatedFrame], network: FaceLandmarks) -> Iterator[LocatedFrame]:
    """Frames with the points of their face, as far as a face was found and has any.

    A frame that comes again, as a still image does, is looked at once.
    """
    before = LocatedFrame(frame=NO_FRAME, box=None)
    for located in frames:
        if located.points is None:  # else they were found when it was aligned
            points = before.points if _same(located, before) else _points(located, before, network)
            located = replace(located, points=points)
        yield located
        before = located


def _same(one: LocatedFrame, other: LocatedFrame) -> bool:
    places = ((frame.box, frame.tilt, frame.has_face) for frame in (one, other))
    return one.frame.image is other.frame.image and len(set(places)) == 1


def _points(
    located: LocatedFrame, before: LocatedFrame, network: FaceLandmarks
) -> np.ndarray | None:
    box = located.bounds
    if located.box is None or box is None or not located.has_face:
        return None
    tilt = None if before.points is None else tilt_of(before.points)
    points = network.detect_tilted(located.frame.image, located.box, tilt)
    around = np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
    overlap = iou(around[None], np.array([box], np.float32))[0, 0]
    return points if overlap >= MIN_OVERLAP else None
