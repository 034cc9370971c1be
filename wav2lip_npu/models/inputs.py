"""What the networks take: crops as numbers, the masked lower half, SyncNet's view of a window.

Training and inference both make their inputs here.
"""

from __future__ import annotations

import torch

from wav2lip_npu.constants import LOWER_HALF


def to_float(faces: torch.Tensor) -> torch.Tensor:
    """Crops uint8 (…, h, w, 3) → float32 (…, 3, h, w) in [0, 1]."""
    return faces.movedim(-1, -3).float() / 255


def lower_half(faces: torch.Tensor) -> torch.Tensor:
    """The lower halves of faces: (…, 96, 96) → (…, 48, 96)."""
    return faces[..., LOWER_HALF:, :]


def mask_lower_half(faces: torch.Tensor) -> torch.Tensor:
    """A copy of faces (…, 96, 96) with their lower halves set to 0."""
    faces = faces.clone()
    lower_half(faces).zero_()
    return faces


def generator_faces(target: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The generator's picture input: the masked target, and the reference.

    Args:
        target: (B, 3, 96, 96), or (B, 3, T, 96, 96), in [0, 1].
        reference: of the same shape.

    Returns:
        (B, 6, 96, 96), or (B, 6, T, 96, 96).
    """
    return torch.cat([mask_lower_half(target), reference], dim=1)


def syncnet_faces(faces: torch.Tensor) -> torch.Tensor:
    """SyncNet's view of whole faces: (B, 3, T, 96, 96) → (B, 3·T, 48, 96), frame by frame."""
    return lower_half(faces).transpose(1, 2).flatten(1, 2)
