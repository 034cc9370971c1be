"""What a detector is, and which of the two is used."""

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
            images: (h, w, 3) BGR uint8, all of the same size.

        Returns:
            For each image float32 (n, 5): x1, y1, x2, y2, score; the best first, n may be 0.
        """
        ...


def choose_detector(choice: str = "auto", s3fd_weights: Path | None = None) -> tuple[str, Path]:
    """Decide which detector will be used, and find its weights; loads neither torch nor a network.

    Args:
        choice: "s3fd", "centerface", or "auto": S3FD if its weights are on this machine, else
            CenterFace, whose weights are part of this package.
        s3fd_weights: the weight file of S3FD; None: one of the usual places, else a download.

    Returns:
        The detector's name, "s3fd" or "centerface", and its weight file.

    Raises:
        FaceDetectionError: an unknown choice, or weights that are missing.
    """
    if choice not in CHOICES:
        raise FaceDetectionError(f"no detector is called {choice!r}; choose from {CHOICES}")
    if choice == "auto":
        has_s3fd = s3fd_weights is not None or weights.find_s3fd() is not None
        choice = "s3fd" if has_s3fd else "centerface"
    return choice, weights.get_s3fd(s3fd_weights) if choice == "s3fd" else weights.CENTERFACE


def open_detector(
    choice: str = "auto",
    *,
    device: torch.device | None = None,
    s3fd_weights: Path | None = None,
    dtype: torch.dtype | None = None,
) -> Detector:
    """Load a detector.

    Args:
        choice: see ``choose_detector``.
        device: where S3FD runs; CenterFace always runs on the CPU.
        s3fd_weights: see ``choose_detector``.
        dtype: of S3FD's convolutions, by autocast; None is fp32, as in the original.

    Raises:
        FaceDetectionError: weights that are missing or broken.
    """
    name, file = choose_detector(choice, s3fd_weights)
    if name == "s3fd":
        from face_detection.s3fd import S3FD

        return S3FD(file, device, dtype=dtype)
    from face_detection.centerface import CenterFace

    return CenterFace(file)
