"""The points of the chosen face in each frame, which blending needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from face_detection.landmarks import FaceLandmarks, tilt_of
from wav2lip_npu.inference.locate import LocatedFrame
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.tracking.boxes import iou

MIN_OVERLAP = 0.4  # of points and box, by their IoU; faces tilted by up to 45 degrees have 0.6


def find_points(frames: Iterator[LocatedFrame], network: FaceLandmarks) -> Iterator[LocatedFrame]:
    """Frames with the points of their face, as far as a face was found and has any.

    A frame that comes again, as a still image does, is looked at once.
    """
    before = LocatedFrame(frame=Frame(time=0.0, image=np.empty((0, 0, 3), np.uint8)), box=None)
    for located in frames:
        known = before.frame.image is located.frame.image and before.box == located.box
        if known and before.has_face == located.has_face:
            points = before.points
        else:
            points = _points(located, before.points, network)
        before = replace(located, points=points)
        yield before


def _points(
    located: LocatedFrame, before: np.ndarray | None, network: FaceLandmarks
) -> np.ndarray | None:
    if located.box is None or not located.has_face:
        return None
    tilt = None if before is None else tilt_of(before)
    points = network.detect_tilted(located.frame.image, located.box, tilt)
    around = np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
    overlap = iou(around[None], np.array([located.box], np.float32))[0, 0]
    return points if overlap >= MIN_OVERLAP else None
