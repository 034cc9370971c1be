"""The layers that the three networks are made of.

The attribute ``conv_block`` and the order of its members are part of the checkpoint format.
"""

from __future__ import annotations

import torch
from torch import nn

Size = int | tuple[int, int]


class ConvBlock(nn.Module):
    """Convolution, batch normalisation and ReLU; ``residual`` adds the input before the ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Size = 3,
        *,
        stride: Size = 1,
        padding: Size = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs)
        )
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) → (B, outputs, h', w')."""
        y = self.conv_block(x)
        return (y.add_(x) if self.residual else y).relu_()


class UpBlock(nn.Module):
    """Transposed 3×3 convolution, batch normalisation and ReLU."""

    def __init__(
        self, inputs: int, outputs: int, *, stride: int, padding: int, output_padding: int
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, stride, padding, output_padding),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) → (B, outputs, h', w')."""
        return self.conv_block(x).relu_()


class PlainBlock(nn.Module):
    """Convolution and leaky ReLU, without normalisation: the discriminator's block."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: Size = 1, padding: Size = 0
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) → (B, outputs, h', w')."""
        return nn.functional.leaky_relu(self.conv_block(x), 0.01)


class FloatSigmoid(nn.Sigmoid):
    """A sigmoid in float32 whatever the layers before it computed in.

    In bf16 a pixel would have one of 256 values from 1/2 to 1, and a probability near 1 be 1.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape and floating type → the same shape, float32."""
        return torch.sigmoid(x.float())  # super().forward cannot be scripted


def stage(first: nn.Module, channels: int, residuals: int) -> list[nn.Module]:
    """A block that changes the shape, and the residual 3×3 blocks that follow it."""
    rest = [ConvBlock(channels, channels, padding=1, residual=True) for _ in range(residuals)]
    return [first, *rest]


def make_audio_encoder(*, residuals_at_256: int) -> nn.Sequential:
    """Mel window (B, 1, 80, 16) → embedding (B, 512, 1, 1), the same but for one depth."""
    return nn.Sequential(
        *stage(ConvBlock(1, 32, padding=1), 32, 2),
        *stage(ConvBlock(32, 64, stride=(3, 1), padding=1), 64, 2),  # 27 × 16
        *stage(ConvBlock(64, 128, stride=3, padding=1), 128, 2),  # 9 × 6
        *stage(ConvBlock(128, 256, stride=(3, 2), padding=1), 256, residuals_at_256),  # 3 × 3
        ConvBlock(256, 512),
        ConvBlock(512, 512, 1),
    )
