"""S3FD (Zhang et al. 2017), the detector of the original Wav2Lip.

Images are BGR, as the network was trained; the original Wav2Lip passes RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from face_detection.errors import FaceDetectionError
from face_detection.nms import best_first
from face_detection.s3fd_network import S3FDNetwork

MEAN_BGR = (104.0, 117.0, 123.0)
STRIDES = (4, 8, 16, 32, 64, 128)  # pixels per cell of the six maps
ANCHOR_STRIDES = 4  # side of an anchor, in strides
VARIANCES = (0.1, 0.2)  # scales of the regression of centre and size
MIN_SIDE = 32  # pixels; of smaller images the network's last maps would be empty
MIN_SCORE = 0.5
MAX_OVERLAP = 0.3  # of two faces, see ``nms.suppress``
MAX_CPU_BATCH_PIXELS = 2**18  # four images of 256 × 256: fits a CPU's caches, a third faster


class S3FD:
    """The detector, on any torch device."""

    name = "s3fd"

    def __init__(
        self,
        weights: Path,
        device: torch.device | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Load the published weight file.

        Args:
            weights: the file.
            device: where to compute; default: the CPU.
            dtype: of the convolutions, by autocast; None is fp32.

        Raises:
            FaceDetectionError: the file has other content.
        """
        network = S3FDNetwork()
        try:
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            if not all(value.isfinite().all() for value in network.parameters()):
                raise ValueError("some are no finite numbers")
        except Exception as error:  # torch raises many kinds for other files
            problem = f"not S3FD's weights ({_first_line(error)})"
            raise FaceDetectionError(
                f"{weights}: {problem}; delete it, and it is downloaded again"
            ) from error
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        self.network = network.eval().requires_grad_(False).to(self.device)
        if self.device.type == "cpu":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See ``face_detection.Detector``."""
        batch = np.stack(images)
        height, width = batch.shape[1:3]
        if min(height, width) < MIN_SIDE:
            more = ((0, max(0, MIN_SIDE - height)), (0, max(0, MIN_SIDE - width)))
            batch = np.pad(batch, ((0, 0), *more, (0, 0)))
        size = self._max_batch(batch)
        parts = (batch[first : first + size] for first in range(0, len(batch), size))
        found = [self._detect(torch.from_numpy(part).to(self.device)) for part in parts]
        boxes, scores = (np.concatenate(kind) for kind in zip(*found, strict=True))
        return best_first(boxes, scores, min_score=MIN_SCORE, max_overlap=MAX_OVERLAP)

    def _max_batch(self, batch: np.ndarray) -> int:
        """How many images the network processes together."""
        if self.device.type != "cpu":
            return len(batch)
        return max(1, MAX_CPU_BATCH_PIXELS // (batch.shape[1] * batch.shape[2]))

    def _detect(self, batch: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        mean = torch.tensor(MEAN_BGR, device=self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            maps = self.network((batch.float() - mean).permute(0, 3, 1, 2))
        boxes, scores = decode([part.float() for part in maps])
        return boxes.cpu().numpy(), scores.cpu().numpy()


def decode(maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and face scores of every cell of the six maps.

    The anchor of a cell is a square of four strides around the cell's centre. The network predicts
    the shift of the centre in anchor sides, and the logarithm of the size, both over VARIANCES.

    Args:
        maps: twelve tensors, class logits (B, 2, h, w) and regression (B, 4, h, w), alternating.

    Returns:
        boxes (B, N, 4) x1, y1, x2, y2 in pixels, and scores (B, N), over maps, rows and columns.
    """
    boxes, scores = [], []
    for stride, logits, regression in zip(STRIDES, maps[0::2], maps[1::2], strict=True):
        height, width = logits.shape[2:]
        rows = (torch.arange(height, device=logits.device) + 0.5) * stride
        columns = (torch.arange(width, device=logits.device) + 0.5) * stride
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        side = ANCHOR_STRIDES * stride
        center = torch.stack([x, y]) + regression[:, :2] * VARIANCES[0] * side
        size = side * torch.exp(regression[:, 2:] * VARIANCES[1])
        corner = center - size / 2
        boxes.append(torch.cat([corner, corner + size], dim=1).flatten(2).transpose(1, 2))
        scores.append(torch.softmax(logits, dim=1)[:, 1].flatten(1))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
