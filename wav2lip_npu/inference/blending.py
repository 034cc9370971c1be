"""How a drawn face comes into a picture."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from face_detection import Box

SMALL = 8  # pixels; a box with a shorter side is pasted, whatever is asked for
# Of a box's height and width. The generator draws the lower half; its mouth and chin are kept, and
# a seam lies where skin is smooth.
FADE_IN = (0.45, 0.6)  # from the top: nothing before, all after
FADE_OUT = (0.86, 1.0)  # to the bottom
SIDES = 0.18  # to each side
SEAM = 48  # pixels, width and height, in which colours are compared,
REACH = 8.0  # and how far a difference reaches from the seam, as the deviation of a Gaussian


def blend(how: str, image: np.ndarray, face: np.ndarray, box: Box) -> np.ndarray:
    """A copy of a picture with a drawn face in it; nothing outside of the box changes.

    Args:
        how: one of ``config.BLENDS``.
        image: (h, w, 3) BGR uint8.
        face: BGR uint8 of any size, which is stretched to fill the box.
        box: x1, y1, x2, y2 within the picture.
    """
    x1, y1, x2, y2 = box
    drawn = cv2.resize(face, (x2 - x1, y2 - y1))
    image = image.copy()
    place = image[y1:y2, x1:x2]
    if how == "paste" or min(drawn.shape[:2]) < SMALL:
        place[:] = drawn
    elif how == "feather":
        place[:] = _feathered(place, drawn)
    else:
        place[:] = _cloned(place, drawn)
    return image


def _feathered(place: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The drawn mouth through a soft mask, its colours moved to those around the seam."""
    mask = _soft_mask(*place.shape[:2])
    own = place.astype(np.float32)
    new: np.ndarray = drawn + _difference_at_seam(own, drawn, mask)
    return np.rint(own + mask[..., None] * (new - own)).clip(0, 255).astype(np.uint8)


def _difference_at_seam(own: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """By how much the colours differ where the mask is neither 0 nor 1, spread over the box.

    A normalised convolution: what is known at the seam, averaged by its distance.
    """
    height, width = mask.shape
    size = (SEAM, SEAM)
    images: tuple[np.ndarray, ...] = (own, drawn.astype(np.float32), mask)
    one, other, part = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in images)
    weight = part * (1 - part) + 1e-4
    known = cv2.GaussianBlur((one - other) * weight[..., None], (0, 0), REACH)
    spread = known / cv2.GaussianBlur(weight, (0, 0), REACH)[..., None]
    return cv2.resize(spread.astype(np.float32), (width, height))


@lru_cache(maxsize=64)
def _soft_mask(height: int, width: int) -> np.ndarray:
    """Where the drawn face shows, 0 to 1, float32 (height, width)."""
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    down = _smooth_step(y, *FADE_IN) * _smooth_step(1 - y, 1 - FADE_OUT[1], 1 - FADE_OUT[0])
    across = _smooth_step(x, 0, SIDES) * _smooth_step(1 - x, 0, SIDES)
    return np.outer(down, across).astype(np.float32)


def _smooth_step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to ``low``, 1 from ``high`` on, and 3t² − 2t³ between."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _cloned(place: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The gradients of the drawn lower face in the colours around it, by Poisson's equation."""
    mask = (_soft_mask(*place.shape[:2]) > 0.02).astype(np.uint8) * 255
    mask[[0, 1, -2, -1]] = 0  # OpenCV needs a margin
    mask[:, [0, 1, -2, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    if not width or not height:
        return drawn
    middle = (x + width // 2, y + height // 2)  # where OpenCV puts the middle of the mask
    return cv2.seamlessClone(drawn, np.ascontiguousarray(place), mask, middle, cv2.NORMAL_CLONE)
