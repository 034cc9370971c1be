"""The generator: audio and identity encoders, and a U-Net decoder of the face."""

from __future__ import annotations

import torch
from torch import nn

from wav2lip_npu.models.blocks import ConvBlock, FloatSigmoid, UpBlock, make_audio_encoder, stage


class Generator(nn.Module):
    """Generates the face of the reference, in the pose of the masked target, speaking the audio."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder_blocks = nn.ModuleList(
            nn.Sequential(*blocks)
            for blocks in (
                [ConvBlock(6, 16, 7, padding=3)],  # 96 × 96
                stage(ConvBlock(16, 32, stride=2, padding=1), 32, 2),  # 48 × 48
                stage(ConvBlock(32, 64, stride=2, padding=1), 64, 3),  # 24 × 24
                stage(ConvBlock(64, 128, stride=2, padding=1), 128, 2),  # 12 × 12
                stage(ConvBlock(128, 256, stride=2, padding=1), 256, 2),  # 6 × 6
                stage(ConvBlock(256, 512, stride=2, padding=1), 512, 1),  # 3 × 3
                [ConvBlock(512, 512), ConvBlock(512, 512, 1)],  # 1 × 1
            )
        )
        self.audio_encoder = make_audio_encoder(residuals_at_256=1)
        # Each block's output is joined with the encoder's of the same size.
        self.face_decoder_blocks = nn.ModuleList(
            nn.Sequential(*blocks)
            for blocks in (
                [ConvBlock(512, 512, 1)],  # 1 × 1
                stage(UpBlock(1024, 512, stride=1, padding=0, output_padding=0), 512, 1),  # 3 × 3
                stage(_double(1024, 512), 512, 2),  # 6 × 6
                stage(_double(768, 384), 384, 2),  # 12 × 12
                stage(_double(512, 256), 256, 2),  # 24 × 24
                stage(_double(320, 128), 128, 2),  # 48 × 48
                stage(_double(160, 64), 64, 2),  # 96 × 96
            )
        )
        self.output_block = nn.Sequential(
            ConvBlock(80, 32, padding=1), nn.Conv2d(32, 3, 1), FloatSigmoid()
        )

    def forward(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """Generate faces, of single frames or of windows of T frames.

        Args:
            mel: (B, 1, 80, 16), or (B, T, 1, 80, 16).
            faces: (B, 6, 96, 96), or (B, 6, T, 96, 96): BGR of the target with its lower half
                zeroed, then BGR of the reference, in [0, 1].

        Returns:
            (B, 3, 96, 96), or (B, 3, T, 96, 96), BGR in [0, 1].
        """
        if faces.dim() == 4:
            return self._generate(mel, faces)
        frames = faces.shape[2]
        # Frame by frame, as in the original: the order of the batch changes how sums are rounded.
        generated = self._generate(
            mel.transpose(0, 1).flatten(0, 1), faces.permute(2, 0, 1, 3, 4).flatten(0, 1)
        )
        return generated.unflatten(0, (frames, -1)).permute(1, 2, 0, 3, 4)

    def _generate(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        encoded = []
        for encode in self.face_encoder_blocks:
            faces = encode(faces)
            encoded.append(faces)
        x = self.audio_encoder(mel)
        for decode in self.face_decoder_blocks:
            x = torch.cat([decode(x), encoded.pop()], dim=1)
        return self.output_block(x)


def _double(inputs: int, outputs: int) -> UpBlock:
    """Twice the width and height."""
    return UpBlock(inputs, outputs, stride=2, padding=1, output_padding=1)
