"""A frame with a generated face in it."""

from __future__ import annotations

import cv2
import numpy as np

from face_detection import Box
from wav2lip_npu.blending.colours import match_colours
from wav2lip_npu.blending.masks import box_mask, mix, mouth_mask
from wav2lip_npu.boxes import bounds, from_crop, to_crop

MIN_BLENDED_SIDE = 8  # pixels; a box with a shorter side is pasted in any case
MIN_CLONED_SIDE = 3  # pixels of the mask; OpenCV fails with fewer


def blend(
    how: str,
    image: np.ndarray,
    face: np.ndarray,
    box: Box,
    *,
    tilt: float = 0.0,
    points: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of a frame with a generated face in it; nothing outside of the box changes.

    Args:
        how: one of ``config.BLENDS``. "mouth" without points is "feather".
        image: (h, w, 3) BGR uint8.
        face: BGR uint8 of any size, which is stretched to fill the box.
        box: x1, y1, x2, y2, see ``boxes``.
        tilt: by which the box is turned.
        points: (468, 2 or 3) of the face in the frame, see ``FaceLandmarks``.
    """
    image = image.copy()
    x1, y1, x2, y2 = box
    size = (x2 - x1, y2 - y1)
    around = bounds(box, tilt, (image.shape[1], image.shape[0]))
    if around is None:
        return image
    generated = cv2.resize(face, size)
    if min(*size, around[2] - around[0], around[3] - around[1]) < MIN_BLENDED_SIDE:
        how = "paste"
    if how == "paste":
        mask = np.ones((size[1], size[0]), np.float32)
    elif how == "mouth" and points is not None:
        mask = mouth_mask(to_crop(points, box, tilt), size)
    else:
        mask = box_mask(size[1], size[0])
    if tilt != 0:
        generated, mask = _turned(generated, mask, box, tilt, around)
    place = image[around[1] : around[3], around[0] : around[2]]
    if how == "paste":
        place[:] = generated if tilt == 0 else mix(place, generated, mask)
    elif how == "poisson":
        place[:] = _cloned(place, generated, mask)
    else:
        place[:] = mix(place, match_colours(generated, place, mask), mask)
    return image


def _turned(
    generated: np.ndarray, mask: np.ndarray, box: Box, tilt: float, around: Box
) -> tuple[np.ndarray, np.ndarray]:
    """A generated face and its mask, turned to their place in the part ``around`` of a frame."""
    matrix = from_crop(box, tilt)
    matrix[:, 2] -= around[:2]
    size = (around[2] - around[0], around[3] - around[1])
    face = cv2.warpAffine(generated, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return face, cv2.warpAffine(mask, matrix, size)


def _cloned(place: np.ndarray, generated: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """The gradients of the generated lower face in the colours around it: Poisson blending."""
    mask = (soft > 0.02).astype(np.uint8) * 255
    mask[[0, 1, -2, -1]] = 0  # OpenCV needs a margin
    mask[:, [0, 1, -2, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < MIN_CLONED_SIDE:
        return mix(place, generated, soft)
    middle = (x + width // 2, y + height // 2)  # where OpenCV puts the middle of the mask
    return cv2.seamlessClone(generated, np.ascontiguousarray(place), mask, middle, cv2.NORMAL_CLONE)
