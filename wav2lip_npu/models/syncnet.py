"""SyncNet, the lip-sync expert, with colour faces as in Wav2Lip."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from wav2lip_npu.models.blocks import ConvBlock, make_audio_encoder, stage


class SyncNet(nn.Module):
    """Embeds 0.2 s of audio and of the lower face: alike where the lips speak the audio."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder = nn.Sequential(
            ConvBlock(15, 32, 7, padding=3),  # 48 × 96
            *stage(ConvBlock(32, 64, 5, stride=(1, 2), padding=1), 64, 2),  # 46 × 47
            *stage(ConvBlock(64, 128, stride=2, padding=1), 128, 3),  # 23 × 24
            *stage(ConvBlock(128, 256, stride=2, padding=1), 256, 2),  # 12 × 12
            *stage(ConvBlock(256, 512, stride=2, padding=1), 512, 2),  # 6 × 6
            ConvBlock(512, 512, stride=2, padding=1),  # 3 × 3
            ConvBlock(512, 512),
            ConvBlock(512, 512, 1),
        )
        self.audio_encoder = make_audio_encoder(residuals_at_256=2)

    def forward(self, mel: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed audio and faces.

        Args:
            mel: (B, 1, 80, 16) mel windows.
            faces: (B, 15, 48, 96) lower halves of five frames, BGR of frame 0, BGR of frame 1 …,
                in [0, 1].

        Returns:
            Audio and face embeddings, (B, 512) each, not negative, of length 1, float32.
        """
        return self.embed_audio(mel), self.embed_face(faces)

    def embed_audio(self, mel: torch.Tensor) -> torch.Tensor:
        """Audio embeddings (B, 512) of mel windows, see ``forward``."""
        return _normalize(self.audio_encoder(mel))

    def embed_face(self, faces: torch.Tensor) -> torch.Tensor:
        """Face embeddings (B, 512) of five frames' lower halves, see ``forward``."""
        return _normalize(self.face_encoder(faces))


def _normalize(x: torch.Tensor) -> torch.Tensor:
    # In float32 in spite of autocast: the loss takes logarithms of the cosine.
    return F.normalize(x.flatten(1).float(), dim=1)
