"""How a generated face is put into a frame."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from face_detection import Box

MIN_BLENDED_SIDE = 8  # pixels; a box with a shorter side is pasted in any case
MIN_CLONED_SIDE = 3  # pixels of the mask; OpenCV fails with fewer
# The soft mask, in shares of a box's height and width. Mouth and chin of the generated half are
# kept, and the seam lies where skin is smooth.
FADE_IN = (0.45, 0.6)  # from the top: nothing above, all below
FADE_OUT = (0.86, 1.0)  # towards the bottom
SIDE_FADE = 0.18  # from each side
COLOUR_MAP_SIZE = 48  # pixels, width and height, in which colours are compared
COLOUR_MAP_SIGMA = 8.0  # pixels of it, of the Gaussian that spreads a difference from the seam


def blend(how: str, image: np.ndarray, face: np.ndarray, box: Box) -> np.ndarray:
    """A copy of a frame with a generated face in it; nothing outside of the box changes.

    Args:
        how: one of ``config.BLENDS``.
        image: (h, w, 3) BGR uint8.
        face: BGR uint8 of any size, which is stretched to fill the box.
        box: x1, y1, x2, y2 within the frame.
    """
    x1, y1, x2, y2 = box
    generated = cv2.resize(face, (x2 - x1, y2 - y1))
    image = image.copy()
    place = image[y1:y2, x1:x2]
    if how == "paste" or min(generated.shape[:2]) < MIN_BLENDED_SIDE:
        place[:] = generated
    elif how == "feather":
        place[:] = _feathered(place, generated)
    else:
        place[:] = _cloned(place, generated)
    return image


def _feathered(place: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """The generated mouth through a soft mask, its colours shifted to those around the seam."""
    mask = _soft_mask(*place.shape[:2])
    own = place.astype(np.float32)
    new: np.ndarray = generated + _difference_at_seam(own, generated, mask)
    return np.rint(own + mask[..., None] * (new - own)).clip(0, 255).astype(np.uint8)


def _difference_at_seam(own: np.ndarray, generated: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How much colours differ where the mask is neither 0 nor 1, spread over the box.

    A normalised convolution: what is known at the seam, averaged by its distance.
    """
    height, width = mask.shape
    size = (COLOUR_MAP_SIZE, COLOUR_MAP_SIZE)
    images: tuple[np.ndarray, ...] = (own, generated.astype(np.float32), mask)
    one, other, part = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in images)
    weight = part * (1 - part) + 1e-4
    known = cv2.GaussianBlur((one - other) * weight[..., None], (0, 0), COLOUR_MAP_SIGMA)
    spread = known / cv2.GaussianBlur(weight, (0, 0), COLOUR_MAP_SIGMA)[..., None]
    return cv2.resize(spread.astype(np.float32), (width, height))


@lru_cache(maxsize=64)
def _soft_mask(height: int, width: int) -> np.ndarray:
    """How much of the generated face shows, 0 to 1, float32 (height, width)."""
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    down = _smooth_step(y, *FADE_IN) * _smooth_step(1 - y, 1 - FADE_OUT[1], 1 - FADE_OUT[0])
    across = _smooth_step(x, 0, SIDE_FADE) * _smooth_step(1 - x, 0, SIDE_FADE)
    return np.outer(down, across).astype(np.float32)


def _smooth_step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to ``low``, 1 from ``high`` on, and 3t² − 2t³ between."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _cloned(place: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """The gradients of the generated lower face in the colours around it: Poisson blending."""
    mask = (_soft_mask(*place.shape[:2]) > 0.02).astype(np.uint8) * 255
    mask[[0, 1, -2, -1]] = 0  # OpenCV needs a margin
    mask[:, [0, 1, -2, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < MIN_CLONED_SIDE:
        return generated
    middle = (x + width // 2, y + height // 2)  # where OpenCV puts the middle of the mask
    return cv2.seamlessClone(generated, np.ascontiguousarray(place), mask, middle, cv2.NORMAL_CLONE)
