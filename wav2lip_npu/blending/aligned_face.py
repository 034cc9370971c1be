"""A face as a small picture in which each part of it always has the same place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from face_detection import Box
from face_detection.landmarks import (
    CHIN,
    EYE_CORNERS,
    FOREHEAD,
    INNER_LIPS,
    LOWER_FACE,
    OUTER_LIPS,
    POINTS,
    UNDER_NOSE,
)

SIDE = 72  # pixels of the picture, width and height
SIDE_MARGIN = 0.1  # of the lower face's width, that is seen beside it
CHIN_MARGIN = 0.12  # heights of the face, that are seen below the chin
# By how many pixels of the picture the lower face grows to what is around it and shrinks to its
# inner part, how wide the rim of that is, and by how many the lips grow: kernels.
AROUND, STRIP, RIM, LIPS = (np.ones((side, side), np.uint8) for side in (5, 7, 5, 5))
UPPER_MARGIN = 3  # pixels of the picture, between the face's sides and the upper face

# How points that the affine map does not meet bend the picture: by Gaussians of this width in
# heights of the face, and not so far that each point is met; the more damped, the smoother.
BEND_SIGMA, BEND_DAMPING = 0.12, 0.3
BENDING_POINTS = np.arange(0, POINTS, 3)
BEND_GRID = 18  # nodes, across and down; between them bends are interpolated

NO_LIPS = np.setdiff1d(np.arange(POINTS), [*OUTER_LIPS, *INNER_LIPS])


ROWS, COLUMNS = np.indices((SIDE, SIDE), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """Where the pixels of the picture are in one frame."""

    matrix: np.ndarray  # (2, 3), from pixels of the picture to pixels of the frame
    bend: np.ndarray  # float32 (SIDE, SIDE, 2), what is to be added, in pixels of the frame

    def picture(self, image: np.ndarray) -> np.ndarray:
        """The face of a frame (h, w, 3): (SIDE, SIDE, 3) of the same type."""
        matrix = self.matrix.astype(np.float32)
        x, y = (
            COLUMNS * line[0] + ROWS * line[1] + (line[2] + self.bend[..., axis])
            for axis, line in enumerate(matrix)
        )
        # Of what is far larger, each pixel counts: blocks of them are averaged.
        block = max(1, min(int(np.hypot(*matrix[:, 0])), *image.shape[:2]))
        x1, x2 = _span(x, image.shape[1], block)
        y1, y2 = _span(y, image.shape[0], block)
        part = image[y1:y2, x1:x2]
        if block > 1:
            size = ((x2 - x1) // block, (y2 - y1) // block)
            part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        x, y = ((place - low + 0.5) / block - 0.5 for place, low in ((x, x1), (y, y1)))
        return cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def to_box(self, mask: np.ndarray, box: Box) -> np.ndarray:
        """A mask of the picture, float32 (SIDE, SIDE), as one of a box of the frame: (h, w)."""
        moved = self.bend @ np.linalg.inv(self.matrix[:, :2]).T.astype(np.float32)
        moved_mask = cv2.remap(
            mask, COLUMNS - moved[..., 0], ROWS - moved[..., 1], cv2.INTER_LINEAR
        )
        matrix = self.matrix.copy()
        matrix[:, 2] -= box[:2]
        return cv2.warpAffine(moved_mask, matrix, (box[2] - box[0], box[3] - box[1]))


class AlignedFace:
    """The face that later ones are aligned with, and its parts in the picture.

    Attributes:
        lower: bool (SIDE, SIDE), within jaw, cheeks and nose.
        around: bool (SIDE, SIDE), and a little more.
        inner: bool (SIDE, SIDE), the lower face without a strip inside its outline, into which what
            is behind the face comes where the head turns.
        rim: bool (SIDE, SIDE), the outermost pixels of that.
        lips: bool (SIDE, SIDE), and what is near them.
        upper: bool (SIDE, SIDE), from the eyes to the nose, above the lower face.
        height: of the face, in pixels of the picture.
    """

    def __init__(self, points: np.ndarray) -> None:
        """Take the first face, (468, 2 or 3) points in pixels of a frame, as the model."""
        points = points[:, :2].astype(np.float64)
        up = points[FOREHEAD] - points[CHIN]
        height = float(np.linalg.norm(up))
        up /= height
        axes = np.array([[-up[1], up[0]], -up]).T  # to the right, and down
        upright = (points - points[CHIN]) @ axes / height
        left, right = np.sort(upright[LOWER_FACE, 0])[[0, -1]]
        side = (right - left) * (1 + SIDE_MARGIN)
        corner = np.array([(left + right - side) / 2, CHIN_MARGIN - side])
        self.height = SIDE / side
        self._points = (upright - corner) * self.height
        self.lower = self._filled(LOWER_FACE) > 0
        lower = self.lower.astype(np.uint8)
        inner = cv2.erode(lower, STRIP)
        self.around = cv2.dilate(lower, AROUND) > 0
        self.inner, self.rim = inner > 0, inner > cv2.erode(inner, RIM)
        self.lips = cv2.dilate(self._filled(OUTER_LIPS), LIPS) > 0
        self.upper = self._upper() & ~self.lower
        self._weights = self._bend_weights()

    def align(self, points: np.ndarray) -> Alignment:
        """Where the picture's pixels are in a frame in which the face has these points."""
        matrix, _ = fit(self._points, points)
        known = self._points[BENDING_POINTS] @ matrix[:, :2].T + matrix[:, 2]
        bend = self._weights @ (points[BENDING_POINTS, :2] - known)
        grid = bend.reshape(BEND_GRID, BEND_GRID, 2).astype(np.float32)
        return Alignment(matrix=matrix, bend=cv2.resize(grid, (SIDE, SIDE)))

    def _filled(self, outline: tuple[int, ...]) -> np.ndarray:
        corners = np.rint(self._points[outline, :]).astype(np.int32)
        return cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [corners], 1)

    def _upper(self) -> np.ndarray:
        eyes, nose = self._points[EYE_CORNERS, 1].min(), self._points[UNDER_NOSE, 1]
        left, right = np.sort(self._points[LOWER_FACE, 0])[[0, -1]]
        inside = (left + UPPER_MARGIN < COLUMNS) & (right - UPPER_MARGIN > COLUMNS)
        upper: np.ndarray = (eyes < ROWS) & (nose > ROWS) & inside
        return upper

    def _bend_weights(self) -> np.ndarray:
        """How much each bending point moves each node of the grid, by ridge regression."""
        line = (np.arange(BEND_GRID) + 0.5) * SIDE / BEND_GRID - 0.5
        nodes = np.stack(np.meshgrid(line, line), axis=2).reshape(-1, 2)
        points = self._points[BENDING_POINTS]
        near = _gaussian(points, points, BEND_SIGMA * self.height)
        damped = near + BEND_DAMPING * np.eye(len(points))
        weights: np.ndarray = np.linalg.solve(
            damped, _gaussian(points, nodes, BEND_SIGMA * self.height)
        ).T
        return weights


def fit(points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
    """The affine map (2, 3) from one face's points to another's, but the lips'; and its misfit.

    Args:
        points: (468, 2 or 3), see ``FaceLandmarks``.
        targets: as many.

    Returns:
        The map, and the root mean square of what it leaves, in heights of the targets' face.
    """
    ones = np.ones((len(NO_LIPS), 1))
    sources, wanted = np.hstack([points[NO_LIPS, :2], ones]), targets[NO_LIPS, :2]
    found = np.linalg.lstsq(sources, wanted, rcond=None)[0]
    error = np.linalg.norm(sources @ found - wanted, axis=1)
    height = np.linalg.norm(targets[FOREHEAD, :2] - targets[CHIN, :2])
    return np.ascontiguousarray(found.T), float(np.sqrt(np.mean(error**2)) / height)


def _span(places: np.ndarray, size: int, block: int) -> tuple[int, int]:
    """From where to where pixels are needed along one side, in whole blocks within the frame."""
    low = max(0, min(int(places.min()), size - block))
    blocks = max(1, -(-(int(places.max()) + 2 - low) // block))
    return low, low + block * min(blocks, (size - low) // block)


def _gaussian(ones: np.ndarray, others: np.ndarray, sigma: float) -> np.ndarray:
    distance = np.linalg.norm(ones[:, None] - others[None], axis=2)
    return np.asarray(np.exp(-((distance / sigma) ** 2) / 2))
