"""A tilted face, and its box turned with it: ``--align tilt``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from face_detection.landmarks import FaceLandmarks, tilt_of
from wav2lip_npu.boxes import ends, iou, turn_by
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.tracking.smoothing import FaceBox

MIN_OVERLAP = 0.4  # of points and box, by their IoU; faces tilted by up to 45 degrees have 0.6
MAX_TILT = 75.0  # degrees; the points of faces that are tilted more are not to be trusted

log = logging.getLogger(__name__)


def align(faces: Iterator[FaceBox[Frame]]) -> Iterator[FaceBox[Frame]]:
    """The boxes of one face turned upright with it, with their tilts and the face's points.

    A face that is tilted by more than 75 degrees, or has no points, keeps its box.

    Args:
        faces: in order of time, with the boxes that the detector gave, or interpolated.
    """
    network = FaceLandmarks()
    tilt: float | None = None
    upright, frames = 0, 0  # frames whose box stays upright, of those with a face
    try:
        for face in faces:
            if face.box is None or face.starts_shot:
                tilt = None
            if face.box is not None:
                points = network.detect_tilted(face.item.image, face.box.tolist(), tilt)
                tilt = tilt_of(points)
                frames += 1
                if abs(tilt) <= MAX_TILT and fits(points, face.box):
                    box = upright_box(face.box, points)
                    face = replace(face, box=box, tilt=tilt, points=points)
                else:
                    tilt = None
                    upright += 1
            yield face
    finally:
        if upright:
            log.info(
                "%d of %d faces are turned too far for --align tilt; their boxes stay upright",
                upright, frames,
            )  # fmt: skip


def fits(points: np.ndarray, box: np.ndarray) -> bool:
    """Whether the points of a face (468, 2 or 3) lie where its upright box (4,) is."""
    around = ends(points[:, :2]).reshape(1, 4)
    return float(iou(around, np.asarray(box, np.float32)[None])[0, 0]) >= MIN_OVERLAP


def upright_box(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The box that a detector would give for a face, were it upright.

    The points of a face reach as far from left to right, and from top to bottom, in the frame and
    in the upright face. As the box lies around the one, so the result lies around the other.

    Args:
        box: (4,) x1, y1, x2, y2, upright in the frame.
        points: of the face, see ``FaceLandmarks``.

    Returns:
        (4,): it is to be turned about its middle by ``tilt_of(points)``.
    """
    turn = turn_by(tilt_of(points))
    in_frame = ends(points[:, :2])
    in_face = ends(points[:, :2] @ turn)  # by the transpose, which turns back
    share = (box.reshape(2, 2) - in_frame[0]) / (in_frame[1] - in_frame[0])
    corners = in_face[0] + share * (in_face[1] - in_face[0])
    middle, half = turn @ corners.mean(axis=0), (corners[1] - corners[0]) / 2
    return np.concatenate([middle - half, middle + half])
