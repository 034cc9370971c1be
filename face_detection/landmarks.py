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
UPRIGHT = 12.0  # degrees; such a tilt moves its points by some 1.5 % of the face's height
MAX_PASSES = 4  # 45 degrees need three
FIRST_TILTS = (0.0, 40.0, -40.0)  # degrees, to begin with where nothing is known
TURN = 15.0  # degrees
TRUSTED_TILT = 25.0  # degrees; a larger one that follows from a known one may have been wrong
MAX_MOVEMENT = 0.04  # sides of a box

# Numbers of points.
FOREHEAD, CHIN = 10, 152
UPPER_LIP_INNER, LOWER_LIP_INNER = 13, 14
UPPER_LIP_OUTER, LOWER_LIP_OUTER = 0, 17
MOUTH_CORNERS = [78, 308]
EYE_CORNERS = [33, 263]  # the outer ones
EYES = (33, 133), (362, 263)  # outer and inner corner, inner and outer corner
NOSE_TIP, UNDER_NOSE = 4, 2
OUTER_MOUTH_CORNERS = 61, 291
OUTER_LIPS = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
)
INNER_LIPS = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)

# Along the jaw from one ear to the other, then over the cheeks and under the nose.
LOWER_FACE = (
    *(93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323),
    *(352, 411, 425, 423, 327, 2, 98, 203, 205, 187, 123),
)


class FaceLandmarks:
    """The network; about 3 ms a face on a core."""

    def __init__(self) -> None:
        """Load it."""
        content = np.frombuffer(WEIGHTS.read_bytes(), np.uint8)  # any name, also in GBK
        self._network = cv2.dnn.readNetFromTFLite(content)

    def detect(
        self, image: np.ndarray, box: Sequence[float] | None = None, tilt: float = 0.0
    ) -> np.ndarray:
        """The points of one face.

        Args:
            image: (h, w, 3) BGR uint8.
            box: of the face, x1, y1, x2, y2 in pixels; None: the image is a crop of it. What lies
                outside of the image is its edge repeated.
            tilt: of the head, see ``tilt_of``. The network knows upright faces: from 20 degrees on
                its points are wrong without it.

        Returns:
            float32 (468, 3): x and y in pixels of the image, and depth in the same unit, smaller
            towards the camera. Of an image without a face they mean nothing.
        """
        x1, y1, x2, y2 = (0, 0, image.shape[1], image.shape[0]) if box is None else box[:4]
        side = BOX_GROWTH * max(x2 - x1, y2 - y1)
        middle = (float(x1 + x2) / 2, float(y1 + y2) / 2)
        scale = INPUT_SIDE / side
        matrix = np.asarray(cv2.getRotationMatrix2D(middle, tilt, scale), np.float64)
        matrix[:, 2] += INPUT_SIDE / 2 - np.array(middle)
        size = (INPUT_SIDE, INPUT_SIDE)
        square = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        self._network.setInput(cv2.dnn.blobFromImage(square, 1 / 255, swapRB=True))
        points: np.ndarray = self._network.forward().reshape(POINTS, 3)
        back = cv2.invertAffineTransform(matrix)
        points[:, :2] = points[:, :2] @ back[:, :2].T + back[:, 2]
        points[:, 2] /= scale
        return points

    def detect_tilted(
        self, image: np.ndarray, box: Sequence[float], tilt: float | None = None
    ) -> np.ndarray:
        """The points of a face that may be tilted, as ``detect`` gives them.

        What the network is shown is turned until the face is upright in it.

        Args:
            image: (h, w, 3) BGR uint8.
            box: see ``detect``.
            tilt: of the head in the frame before; None: not known.
        """
        if tilt is not None:
            points = self._upright(image, box, tilt)
            is_small = abs(tilt_of(points)) < TRUSTED_TILT
            if is_small or self._movement(image, box, points) < MAX_MOVEMENT:
                return points
        found = []
        for start in FIRST_TILTS:
            points = self._upright(image, box, start)
            found.append((self._movement(image, box, points), points))
            if found[-1][0] < MAX_MOVEMENT:
                break
        return min(found, key=lambda one: one[0])[1]

    def _upright(self, image: np.ndarray, box: Sequence[float], tilt: float) -> np.ndarray:
        for _ in range(MAX_PASSES):
            points = self.detect(image, box, tilt)
            before, tilt = tilt, tilt_of(points)
            if abs(_angle(tilt - before)) < UPRIGHT:
                break
        return points

    def _movement(self, image: np.ndarray, box: Sequence[float], points: np.ndarray) -> float:
        """How far points move, in sides of the box, if what the network is shown is turned.

        Those of a face hardly do. Of a face that is too tilted the network makes an upright one,
        which turns with what it is shown.
        """
        turned = self.detect(image, box, tilt_of(points) + TURN)
        distance = np.linalg.norm(turned[:, :2] - points[:, :2], axis=1).mean()
        return float(distance / max(box[2] - box[0], box[3] - box[1]))


def tilt_of(points: np.ndarray) -> float:
    """By how many degrees the line from the eyes to the mouth is turned clockwise; 0: upright.

    Args:
        points: (468, 2 or 3), see ``FaceLandmarks``.
    """
    x, y = (points[MOUTH_CORNERS, :2].mean(axis=0) - points[EYE_CORNERS, :2].mean(axis=0)).tolist()
    return float(np.degrees(np.arctan2(-x, y)))


def _angle(degrees: float) -> float:
    """The same angle from -180 to 180 degrees."""
    return (degrees + 180) % 360 - 180


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
