"""The visual quality discriminator: are lower faces real or generated?"""

from __future__ import annotations

import torch
from torch import nn

from wav2lip_npu.models.blocks import FloatSigmoid, PlainBlock
from wav2lip_npu.models.inputs import lower_half


class VisualQualityDiscriminator(nn.Module):
    """Classifies each frame by its lower half."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder_blocks = nn.ModuleList(
            nn.Sequential(*blocks)
            for blocks in (
                [PlainBlock(3, 32, 7, padding=3)],  # 48 × 96
                _halve(32, 64, 5, stride=(1, 2)),  # 48 × 48
                _halve(64, 128, 5),  # 24 × 24
                _halve(128, 256, 5),  # 12 × 12
                _halve(256, 512, 3),  # 6 × 6
                _halve(512, 512, 3),  # 3 × 3
                [PlainBlock(512, 512), PlainBlock(512, 512, 1)],  # 1 × 1
            )
        )
        self.binary_pred = nn.Sequential(nn.Conv2d(512, 1, 1), FloatSigmoid())

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Classify frames.

        Args:
            faces: (B, 3, T, 96, 96) BGR in [0, 1].

        Returns:
            (T·B, 1) probability that a frame is real, all of frame 0 first; float32.
        """
        x = lower_half(faces).permute(2, 0, 1, 3, 4).flatten(0, 1)
        for block in self.face_encoder_blocks:
            x = block(x)
        return self.binary_pred(x).flatten(1)


def _halve(
    inputs: int, outputs: int, kernel: int, *, stride: int | tuple[int, int] = 2
) -> list[nn.Module]:
    padding = kernel // 2
    return [
        PlainBlock(inputs, outputs, kernel, stride=stride, padding=padding),
        PlainBlock(outputs, outputs, kernel, padding=padding),
    ]
