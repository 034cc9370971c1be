"""A mouth that is opened more or less than it is, by moving its lips: ``--strength``."""

from __future__ import annotations

import cv2
import numpy as np

from face_detection import Box
from face_detection.landmarks import (
    CHIN,
    INNER_LIPS,
    OUTER_LIPS,
    OUTER_MOUTH_CORNERS,
    UNDER_NOSE,
)

LOWER_SHARE = 0.75  # of a change of the opening; the rest is the upper lip's
INNER_RIM = 0.12  # of the opening, that is seen of it beyond the points of each lip
SIDE_MARGIN = 0.15  # widths of the mouth, which are seen beside it
COLUMNS, ROWS = 48, 64  # of the grid in which movements are computed
SMOOTHING = 1.0  # nodes, of the Gaussian that smooths them


def scale_opening(image: np.ndarray, box: Box, points: np.ndarray, factor: float) -> np.ndarray:
    """A copy of a frame with the mouth so many times as open as it is.

    The lips keep their thickness, and move up and down in the face. What is between them, and from
    them to the nose and to the chin, is stretched. Nothing outside of that changes.

    Args:
        image: (h, w, 3) BGR uint8.
        box: around the face, within the frame; nothing outside of it changes.
        points: (468, 2 or 3) of the face in the frame, see ``FaceLandmarks``.
        factor: 0 shuts it.
    """
    points = points[:, :2].astype(np.float64)
    left, right = points[list(OUTER_MOUTH_CORNERS)]
    width = float(np.linalg.norm(right - left))
    if width < 1:
        return image.copy()
    across = (right - left) / width
    down = np.array([-across[1], across[0]])
    axes = np.stack([across, down])
    mouth = (points - left) @ axes.T  # to the right, and down
    top, bottom = mouth[UNDER_NOSE, 1], mouth[CHIN, 1]
    columns = np.linspace(-SIDE_MARGIN, 1 + SIDE_MARGIN, COLUMNS) * width
    rows = np.linspace(top, bottom, ROWS)
    moved = cv2.GaussianBlur(_movement(mouth, columns, rows, factor), (0, 0), SMOOTHING)
    moved[[0, -1]], moved[:, [0, -1]] = 0, 0
    # From nodes of the grid to pixels of the part of the frame that they cover.
    steps = np.array([columns[1] - columns[0], rows[1] - rows[0]])
    matrix = np.column_stack([axes.T * steps, left + np.array([columns[0], top]) @ axes])
    ends = np.array([(c, r) for c in (0, COLUMNS - 1) for r in (0, ROWS - 1)])
    corners = ends @ matrix[:, :2].T + matrix[:, 2]
    x1, y1 = (int(max(v)) for v in zip(box[:2], np.floor(corners.min(axis=0)), strict=True))
    x2, y2 = (int(min(v)) for v in zip(box[2:], np.ceil(corners.max(axis=0)) + 1, strict=True))
    result = image.copy()
    if x1 >= x2 or y1 >= y2:
        return result
    matrix[:, 2] -= x1, y1
    field = cv2.warpAffine(moved, matrix, (x2 - x1, y2 - y1))
    y, x = np.indices(field.shape, dtype=np.float32)
    x += field * np.float32(down[0]) + np.float32(x1)
    y += field * np.float32(down[1]) + np.float32(y1)
    result[y1:y2, x1:x2] = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return result


def _movement(
    mouth: np.ndarray, columns: np.ndarray, rows: np.ndarray, factor: float
) -> np.ndarray:
    """By how many pixels further down each node's picture comes from: float32 (rows, columns).

    Args:
        mouth: (468, 2) points, to the right and down from a corner of the mouth.
        columns: of the grid, from left to right.
        rows: of the grid, from the nose to the chin.
        factor: see ``scale_opening``.
    """
    upper, lower = _lips(mouth, INNER_LIPS, columns)
    above, below = _lips(mouth, OUTER_LIPS, columns)
    above, below = np.minimum(above, upper), np.maximum(below, lower)
    gap = np.maximum(0, lower - upper)
    # Between the points of both lips lies a little less than all that is seen of teeth.
    upper = np.maximum(above, upper - INNER_RIM * gap)
    lower = np.minimum(below, lower + INNER_RIM * gap)
    change = (factor - 1) * np.maximum(0, lower - upper)
    # So much that the lips do not leave the grid.
    most = np.maximum(0, np.minimum(above - rows[0], rows[-1] - below))
    change = np.clip(change, -np.inf, most)
    rises, falls = (1 - LOWER_SHARE) * change, LOWER_SHARE * change
    ends = np.full(len(columns), rows[0]), np.full(len(columns), rows[-1])
    sources = np.stack([ends[0], above, upper, lower, below, ends[1]])
    targets = sources + np.stack([0 * change, -rises, -rises, falls, falls, 0 * change])
    come_from = [np.interp(rows, *pair) for pair in zip(targets.T, sources.T, strict=True)]
    return (np.stack(come_from, axis=1) - rows[:, None]).astype(np.float32)


def _lips(
    mouth: np.ndarray, ring: tuple[int, ...], columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far down the upper and the lower edge of a ring of points is in each column.

    The ring begins in one corner, and reaches the other half-way over the upper edge. Beyond the
    corners both are the same.
    """
    half = len(ring) // 2
    edges = []
    for edge in (ring[: half + 1], (*ring[half:], ring[0])[::-1]):
        line = mouth[list(edge)]
        line = line[np.argsort(line[:, 0])]
        edges.append(np.interp(columns, line[:, 0], line[:, 1]))
    corners = np.sort(mouth[[ring[0], ring[half]], 0])
    outside = (columns < corners[0]) | (columns > corners[1])
    upper, lower = edges
    middle = (upper + lower) / 2
    return np.where(outside, middle, upper), np.where(outside, middle, lower)
