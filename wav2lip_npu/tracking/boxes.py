"""Face boxes: how much they share, and in whole pixels of a frame."""

from __future__ import annotations

import numpy as np

from face_detection import Box


def iou(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of these boxes (m, 4) with each of those (n, 4): (m, n)."""
    one, other = ones[:, None], others[None]
    near, far = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    common = np.maximum(far - near, 0).prod(axis=-1)
    both = sum((box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (one, other)) - common
    return np.divide(common, both, out=np.zeros_like(common), where=both > 0)


def area_of(boxes: np.ndarray) -> float:
    """The area of boxes (n, 4) together."""
    return float((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum())


def to_pixels(
    box: np.ndarray, size: tuple[int, int], pads: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> Box | None:
    """A box in whole pixels, with margins, within the frame.

    Args:
        box: (4,) x1, y1, x2, y2 in pixels; truncated, as the original does.
        size: width and height of the frame.
        pads: pixels to add at the top, bottom, left and right.

    Returns:
        x1, y1, x2, y2, the last two exclusive; None if nothing of the box is in the frame.
    """
    x1, y1, x2, y2 = (int(max(value, 0.0)) for value in box)
    if x2 <= x1 or y2 <= y1:
        return None
    top, bottom, left, right = pads
    x1, y1 = max(0, x1 - left), max(0, y1 - top)
    x2, y2 = min(size[0], x2 + right), min(size[1], y2 + bottom)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
