"""The colours of a generated face, matched to the frame that it is put into."""

from __future__ import annotations

import cv2
import numpy as np

COLOUR_MAP_SIZE = 48  # pixels, width and height, in which colours are compared
COLOUR_MAP_SIGMA = 8.0  # pixels of it, of the Gaussian that spreads a difference from the seam


def match_colours(generated: np.ndarray, own: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A generated face whose colours at the seam, where the mask is soft, are the frame's.

    The difference at the seam is spread over the face by a normalised convolution: at each place
    what is known at the seam, averaged by its distance.

    Args:
        generated: (h, w, 3) uint8.
        own: (h, w, 3) uint8, the same place of the frame.
        mask: (h, w) float32, how much of the generated face will show, 0 to 1.

    Returns:
        (h, w, 3) float32, not clipped.
    """
    height, width = mask.shape
    size = (COLOUR_MAP_SIZE, COLOUR_MAP_SIZE)
    images: tuple[np.ndarray, ...] = (own.astype(np.float32), generated.astype(np.float32), mask)
    one, other, part = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in images)
    weight = part * (1 - part) + 1e-4
    known = cv2.GaussianBlur((one - other) * weight[..., None], (0, 0), COLOUR_MAP_SIGMA)
    spread = known / cv2.GaussianBlur(weight, (0, 0), COLOUR_MAP_SIGMA)[..., None]
    matched: np.ndarray = generated + cv2.resize(spread.astype(np.float32), (width, height))
    return matched
