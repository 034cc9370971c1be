"""How much of a generated face shows at each place of its box: 0 is the frame's own pixel."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from face_detection.landmarks import LOWER_FACE

# The mask without landmarks, in shares of a box's height and width. Mouth and chin of the
# generated half are kept, and the seam lies where skin is smooth.
FADE_IN = (0.45, 0.6)  # from the top: nothing above, all below
FADE_OUT = (0.86, 1.0)  # towards the bottom
SIDE_FADE = 0.18  # from each side

OUTLINE_SIDE = 128  # pixels, width and height, in which the lower face's outline is drawn
OUTLINE_BITS = 4  # of a pixel's fraction, for OpenCV
EDGE_SIGMA = 0.035  # of the Gaussian that softens the outline, in shares of the box
EDGE_FADE = 0.04  # from the sides of a box that cuts the face


@lru_cache(maxsize=64)
def box_mask(height: int, width: int) -> np.ndarray:
    """Mouth and chin, as far as a box without landmarks tells: float32 (height, width)."""
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    down = _smooth_step(y, *FADE_IN) * _smooth_step(1 - y, 1 - FADE_OUT[1], 1 - FADE_OUT[0])
    across = _smooth_step(x, 0, SIDE_FADE) * _smooth_step(1 - x, 0, SIDE_FADE)
    return np.outer(down, across).astype(np.float32)


def mouth_mask(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The lower face within jaw, cheeks and nose: nothing outside of this outline shows.

    Args:
        points: (468, 2) in pixels of the crop, see ``FaceLandmarks``.
        size: width and height of the crop.

    Returns:
        float32 (height, width).
    """
    outline = (points[LOWER_FACE, :] + 0.5) / size * OUTLINE_SIDE - 0.5
    filled = np.zeros((OUTLINE_SIDE, OUTLINE_SIDE), np.float32)
    drawn = np.rint(outline * 2**OUTLINE_BITS).astype(np.int32)
    cv2.fillPoly(filled, [drawn], 1.0, shift=OUTLINE_BITS)
    soft = cv2.GaussianBlur(filled, (0, 0), EDGE_SIGMA * OUTLINE_SIDE)
    inside = (2 * soft - 1).clip(0, 1) * _edge_fade()  # half of the Gaussian lies outside
    return cv2.resize(inside, size)


def mix(own: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Another picture through a soft mask.

    Args:
        own: (h, w, 3) uint8, what shows where the mask is 0.
        other: (h, w, 3) of any type, what shows where it is 1.
        mask: (h, w) float32.

    Returns:
        (h, w, 3) uint8.
    """
    mixed = own + mask[..., None] * (other - own.astype(np.float32))
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _edge_fade() -> np.ndarray:
    place = (np.arange(OUTLINE_SIDE) + 0.5) / OUTLINE_SIDE
    fade = _smooth_step(place, 0, EDGE_FADE) * _smooth_step(1 - place, 0, EDGE_FADE)
    return np.outer(fade, fade).astype(np.float32)


def _smooth_step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to ``low``, 1 from ``high`` on, and 3t² − 2t³ between."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)
