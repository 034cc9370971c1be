"""A frame with a generated face in it."""

from __future__ import annotations

import cv2
import numpy as np

from face_detection import Box
from wav2lip_npu.blending.colours import match_colours
from wav2lip_npu.blending.masks import box_mask, mouth_mask

MIN_BLENDED_SIDE = 8  # pixels; a box with a shorter side is pasted in any case
MIN_CLONED_SIDE = 3  # pixels of the mask; OpenCV fails with fewer


def blend(
    how: str, image: np.ndarray, face: np.ndarray, box: Box, points: np.ndarray | None = None
) -> np.ndarray:
    """A copy of a frame with a generated face in it; nothing outside of the box changes.

    Args:
        how: one of ``config.BLENDS``. "mouth" without points is "feather".
        image: (h, w, 3) BGR uint8.
        face: BGR uint8 of any size, which is stretched to fill the box.
        box: x1, y1, x2, y2 within the frame.
        points: (468, 2 or 3) of the face in the frame, see ``FaceLandmarks``.
    """
    x1, y1, x2, y2 = box
    generated = cv2.resize(face, (x2 - x1, y2 - y1))
    image = image.copy()
    place = image[y1:y2, x1:x2]
    if how == "paste" or min(generated.shape[:2]) < MIN_BLENDED_SIDE:
        place[:] = generated
    elif how == "poisson":
        place[:] = _cloned(place, generated)
    elif how == "mouth" and points is not None:
        place[:] = _mixed(place, generated, mouth_mask(points, box))
    else:
        place[:] = _mixed(place, generated, box_mask(*place.shape[:2]))
    return image


def _mixed(place: np.ndarray, generated: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The generated face through a soft mask, its colours shifted to those around the seam."""
    own = place.astype(np.float32)
    new = match_colours(generated.astype(np.float32), own, mask)
    return np.rint(own + mask[..., None] * (new - own)).clip(0, 255).astype(np.uint8)


def _cloned(place: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """The gradients of the generated lower face in the colours around it: Poisson blending."""
    mask = (box_mask(*place.shape[:2]) > 0.02).astype(np.uint8) * 255
    mask[[0, 1, -2, -1]] = 0  # OpenCV needs a margin
    mask[:, [0, 1, -2, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < MIN_CLONED_SIDE:
        return generated
    middle = (x + width // 2, y + height // 2)  # where OpenCV puts the middle of the mask
    return cv2.seamlessClone(generated, np.ascontiguousarray(place), mask, middle, cv2.NORMAL_CLONE)
