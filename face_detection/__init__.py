"""Face detectors behind one interface. The package stands alone: it does not import wav2lip_npu.

A detector returns for each BGR image an array (n, 5) of x1, y1, x2, y2 in pixels and a score, the
best first. ``open_detector`` loads one; importing the package loads neither torch nor OpenCV.
"""

from face_detection.errors import FaceDetectionError
from face_detection.interface import CHOICES, Box, Detector, choose_detector, open_detector

__all__ = [
    "CHOICES",
    "Box",
    "Detector",
    "FaceDetectionError",
    "choose_detector",
    "open_detector",
]
