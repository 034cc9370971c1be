"""Points of a face by MediaPipe's Face Mesh (Kartynnik et al. 2019), run by OpenCV on the CPU.

The network comes with this package, under Apache-2.0 (``data/NOTICE``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

WEIGHTS = Path(__file__).parent / "data" / "face_landmark.tflite"
POINTS = 468
INPUT_SIDE = 192  # pixels
BOX_GROWTH = 1.5  # of a detector's box, to what the network was trained with

# Numbers of points.
FOREHEAD, CHIN = 10, 152
UPPER_LIP_INNER, LOWER_LIP_INNER = 13, 14
UPPER_LIP_OUTER, LOWER_LIP_OUTER = 0, 17
MOUTH_CORNERS = 78, 308
EYE_CORNERS = 33, 263  # the outer ones
OUTER_LIPS = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
)
INNER_LIPS = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)


class FaceLandmarks:
    """The network; about 3 ms a face on a core."""

    def __init__(self) -> None:
        """Load it."""
        content = np.frombuffer(WEIGHTS.read_bytes(), np.uint8)  # any name, also in GBK
        self._network = cv2.dnn.readNetFromTFLite(content)

    def detect(self, image: np.ndarray, box: Sequence[float] | None = None) -> np.ndarray:
        """The points of one face.

        Args:
            image: (h, w, 3) BGR uint8.
            box: of the face, x1, y1, x2, y2 in pixels; None: the image is a crop of it. What lies
                outside of the image is its edge repeated.

        Returns:
            float32 (468, 3): x and y in pixels of the image, and depth in the same unit, smaller
            towards the camera. Of an image without a face they mean nothing.
        """
        x1, y1, x2, y2 = (0, 0, image.shape[1], image.shape[0]) if box is None else box[:4]
        side = BOX_GROWTH * max(x2 - x1, y2 - y1)
        scale = INPUT_SIDE / side
        left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        size = (INPUT_SIDE, INPUT_SIDE)
        square = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        self._network.setInput(cv2.dnn.blobFromImage(square, 1 / 255, swapRB=True))
        points: np.ndarray = self._network.forward().reshape(POINTS, 3) / scale
        return points + np.array([left, top, 0], np.float32)


def mouth_shape(points: np.ndarray) -> np.ndarray:
    """The opening, the width, and the height of the lips, in heights of the face.

    Args:
        points: (…, 468, 3), see ``FaceLandmarks``.

    Returns:
        (…, 3).
    """

    def distance(one: int, other: int) -> np.ndarray:
        between = points[..., one, :2] - points[..., other, :2]
        return np.asarray(np.linalg.norm(between, axis=-1))

    parts = (
        distance(UPPER_LIP_INNER, LOWER_LIP_INNER),
        distance(*MOUTH_CORNERS),
        distance(UPPER_LIP_OUTER, LOWER_LIP_OUTER),
    )
    return np.stack(parts, axis=-1) / distance(FOREHEAD, CHIN)[..., None]
