"""Face detectors behind one interface; stands alone, knows nothing of wav2lip_npu.

A detector gives, for each BGR image, an array (n, 5) of x1, y1, x2, y2 in pixels and a score, the
best first. ``open_detector`` chooses one; torch and OpenCV are loaded only then.
"""

from face_detection.errors import FaceDetectionError
from face_detection.interface import CHOICES, Box, Detector, best_box, in_pixels, open_detector

__all__ = [
    "CHOICES",
    "Box",
    "Detector",
    "FaceDetectionError",
    "best_box",
    "in_pixels",
    "open_detector",
]
