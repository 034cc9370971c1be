"""The points of the chosen faces in each frame, which blending needs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from itertools import repeat

import numpy as np

from face_detection.landmarks import FaceLandmarks, tilt_of
from wav2lip_npu.boxes import bounds
from wav2lip_npu.inference.locate import LocatedFace, LocatedFrame
from wav2lip_npu.tracking.upright import fits


def find_points(
    frames: Generator[LocatedFrame, None, None], network: FaceLandmarks
) -> Generator[LocatedFrame, None, None]:
    """Frames with the points of their faces, as far as a face was found and has any.

    A frame that comes again, as a still image does, is looked at once.
    """
    before: LocatedFrame | None = None
    with closing(frames):
        for located in frames:
            others = repeat(None) if before is None else before.faces
            faces = [
                _with_points(located, face, before, other, network)
                for face, other in zip(located.faces, others, strict=False)
            ]
            before = replace(located, faces=tuple(faces))
            yield before


def _with_points(
    located: LocatedFrame,
    face: LocatedFace,
    before: LocatedFrame | None,
    other: LocatedFace | None,
    network: FaceLandmarks,
) -> LocatedFace:
    """A face with its points; ``other`` is the same one in the frame before."""
    if face.points is not None or face.detected is None:  # found when it was aligned, or not there
        return face
    if before is None or other is None or before.shot != located.shot:
        return replace(face, points=_points(located, face, None, network))
    places = ((one.box, one.tilt, one.found) for one in (face, other))
    if located.frame.image is before.frame.image and len(set(places)) == 1:
        return replace(face, points=other.points)
    tilt = None if other.points is None else tilt_of(other.points)
    return replace(face, points=_points(located, face, tilt, network))


def _points(
    located: LocatedFrame, face: LocatedFace, tilt: float | None, network: FaceLandmarks
) -> np.ndarray | None:
    image, box = located.frame.image, face.detected
    assert box is not None
    points = network.detect_tilted(image, box.tolist(), face.tilt or tilt)
    x1, y1, x2, y2 = (int(side) for side in box)
    around = bounds((x1, y1, x2, y2), face.tilt, (image.shape[1], image.shape[0]))
    return points if around is not None and fits(points, np.array(around)) else None
