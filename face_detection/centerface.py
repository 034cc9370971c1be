"""CenterFace (Xu et al. 2019), run by OpenCV on the CPU; its weights are in ``data``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from face_detection.nms import best_first

OUTPUT_LAYERS = ("537", "538", "539", "540")  # heat map, log size, offset, landmarks (not used)
STRIDE = 4  # pixels per cell
SIDE_MULTIPLE = 32  # width and height of the network's input must be multiples of this
# Larger images are reduced to the first size: talking heads are found as reliably and five times as
# fast. The next size is used only if no face is found.
MAX_SIDES = (320, 640)  # pixels, of the longer side
MAX_NETWORKS = 4  # of different input sizes, kept in memory: two videos' worth
MIN_SCORE = 0.35
MAX_OVERLAP = 0.3  # of two faces, see ``nms.suppress``


class CenterFace:
    """The detector. Images are padded, not stretched, so that boxes keep their aspect ratio."""

    name = "centerface"

    def __init__(self, weights: Path) -> None:
        """Read the weight file, an ONNX network."""
        self._model = weights.read_bytes()
        self._networks: dict[tuple[int, ...], cv2.dnn.Net] = {}  # the last ones used

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See ``face_detection.Detector``."""
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: np.ndarray) -> np.ndarray:
        for longest in MAX_SIDES:
            found = self._detect_at(image, min(1.0, longest / max(image.shape[:2])))
            if len(found) or longest >= max(image.shape[:2]):
                break
        return found

    def _detect_at(self, image: np.ndarray, scale: float) -> np.ndarray:
        if scale < 1.0:
            # Of an image that is thousands of times as long as wide, a pixel stays.
            down, across = (max(scale, 1 / side) for side in image.shape[:2])
            image = cv2.resize(image, None, fx=across, fy=down, interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(
            image,
            0,
            -height % SIDE_MULTIPLE,
            0,
            -width % SIDE_MULTIPLE,
            borderType=cv2.BORDER_CONSTANT,
        )
        network = self._network(padded.shape)
        network.setInput(cv2.dnn.blobFromImage(padded, swapRB=True))
        heat, log_size, offset, _ = network.forward(OUTPUT_LAYERS)
        boxes, scores = decode(heat, log_size, offset)
        boxes = np.minimum(boxes, np.array([width, height] * 2, np.float32))
        (found,) = best_first(
            boxes[None], scores[None], min_score=MIN_SCORE, max_overlap=MAX_OVERLAP
        )
        found[:, :4] /= scale
        return found

    def _network(self, shape: tuple[int, ...]) -> cv2.dnn.Net:
        """One network per input size: OpenCV 4 fails when the size of an input changes."""
        network = self._networks.pop(shape, None)
        if network is None:
            network = cv2.dnn.readNetFromONNX(np.frombuffer(self._model, np.uint8))
        self._networks[shape] = network  # now the last
        while len(self._networks) > MAX_NETWORKS:
            del self._networks[next(iter(self._networks))]
        return network


def decode(
    heat: np.ndarray, log_size: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of the cells whose probability exceeds MIN_SCORE.

    Args:
        heat: (1, 1, h, w) probability that a face is centred in the cell.
        log_size: (1, 2, h, w) logarithm of height and width in strides.
        offset: (1, 2, h, w) shift of the centre, down and right, in strides.

    Returns:
        boxes (n, 4) x1, y1, x2, y2 in pixels, not negative, and scores (n,).
    """
    rows, columns = np.nonzero(heat[0, 0] > MIN_SCORE)
    height, width = np.exp(log_size[0, :, rows, columns]).T * STRIDE
    down, right = offset[0, :, rows, columns].T
    top = (rows + down + 0.5) * STRIDE - height / 2
    left = (columns + right + 0.5) * STRIDE - width / 2
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    return np.maximum(boxes, 0).astype(np.float32), heat[0, 0, rows, columns]
