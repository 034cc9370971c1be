"""Face boxes: how much they share, in whole pixels of a frame, and what is cut out by them.

A box with a tilt is the rectangle of its corners, turned clockwise about its middle.
"""

from __future__ import annotations

import cv2
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
    box: np.ndarray,
    size: tuple[int, int],
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    tilt: float = 0.0,
) -> Box | None:
    """A box in whole pixels, with margins, within the frame if it has no tilt.

    Args:
        box: (4,) x1, y1, x2, y2 in pixels; truncated, as the original does.
        size: width and height of the frame.
        pads: pixels to add at the top, bottom, left and right, before it is turned.
        tilt: by which it is turned.

    Returns:
        x1, y1, x2, y2, the last two exclusive; None if nothing of the box is in the frame.
    """
    top, bottom, left, right = pads
    if tilt != 0:
        x1, y1, x2, y2 = (int(value) for value in box)
        most = max(size)
        top, bottom, left, right = (min(pad, most) for pad in pads)
        turned = (x1 - left, y1 - top, x2 + right, y2 + bottom)
        return turned if x2 > x1 and y2 > y1 and bounds(turned, tilt, size) else None
    x1, y1, x2, y2 = (int(max(value, 0.0)) for value in box)
    if x2 <= x1 or y2 <= y1:
        return None
    x1, y1 = max(0, x1 - left), max(0, y1 - top)
    x2, y2 = min(size[0], x2 + right), min(size[1], y2 + bottom)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def from_crop(box: Box, tilt: float) -> np.ndarray:
    """The affine map (2, 3) from pixels of what ``cut`` gives to pixels of the frame."""
    x1, y1, x2, y2 = box
    turn = turn_by(tilt)
    middle = np.array([x1 + x2 - 1, y1 + y2 - 1]) / 2
    half = np.array([x2 - x1 - 1, y2 - y1 - 1]) / 2
    return np.column_stack([turn, middle - turn @ half])


def to_crop(points: np.ndarray, box: Box, tilt: float) -> np.ndarray:
    """Points (n, 2 or more) of the frame, in pixels of what ``cut`` gives: (n, 2)."""
    matrix = from_crop(box, tilt)
    return np.asarray((points[:, :2] - matrix[:, 2]) @ matrix[:, :2])  # turned back


def cut(image: np.ndarray, box: Box, tilt: float = 0.0) -> np.ndarray:
    """The upright face in a box; what lies outside of the frame is its edge repeated.

    Args:
        image: (h, w, 3) BGR uint8.
        box: x1, y1, x2, y2; without a tilt within the frame.
        tilt: by which the box is turned.

    Returns:
        (y2 - y1, x2 - x1, 3) uint8; without a tilt a view of the frame.
    """
    x1, y1, x2, y2 = box
    if tilt == 0:
        return image[y1:y2, x1:x2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix, size = from_crop(box, tilt), (x2 - x1, y2 - y1)
    return cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def bounds(box: Box, tilt: float, size: tuple[int, int]) -> Box | None:
    """The smallest upright box of the frame that holds a turned one; None: it lies outside.

    Args:
        box: x1, y1, x2, y2.
        tilt: by which it is turned.
        size: width and height of the frame.
    """
    if tilt == 0:
        return box
    width, height = box[2] - box[0], box[3] - box[1]
    corners = np.array([(-1, -1), (width, -1), (width, height), (-1, height)])
    matrix = from_crop(box, tilt)
    low, high = ends(corners @ matrix[:, :2].T + matrix[:, 2])
    x1, y1 = np.floor(low).astype(int).clip(0).tolist()
    x2, y2 = np.minimum(np.ceil(high).astype(int) + 1, size).tolist()
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def turn_by(tilt: float) -> np.ndarray:
    """The matrix (2, 2) that turns clockwise, with y downwards."""
    angle = np.radians(tilt)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def ends(points: np.ndarray) -> np.ndarray:
    """The least and the largest x and y of points (n, 2): (2, 2)."""
    return np.stack([points.min(axis=0), points.max(axis=0)])
