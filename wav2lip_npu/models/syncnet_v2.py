"""SyncNet v2 (Chung and Zisserman 2016), by which the field measures lip sync: LSE-D and LSE-C."""

from __future__ import annotations

import torch
from torch import nn

EMBEDDING = 1024
FRAMES = 5  # of a window
FACE_SIDE = 224  # pixels
MFCC_COUNT, MFCC_COLUMNS = 13, 20  # of a window's 0.2 s

# (channels, kernel, stride, padding) of a convolution; (kernel, stride, padding) of a pooling.
_AUDIO: tuple[tuple, ...] = (
    (64, 3, 1, 1), (1, 1, 0),
    (192, 3, 1, 1), (3, (1, 2), 0),
    (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), (3, 2, 0),
    (512, (5, 4), 1, 0),
)  # fmt: skip
_LIPS: tuple[tuple, ...] = (
    (96, (5, 7, 7), (1, 2, 2), 0), ((1, 3, 3), (1, 2, 2), 0),
    (256, (1, 5, 5), (1, 2, 2), (0, 1, 1)), ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    *[(256, (1, 3, 3), 1, (0, 1, 1))] * 3, ((1, 3, 3), (1, 2, 2), 0),
    (512, (1, 6, 6), 1, 0),
)  # fmt: skip
_CONVOLUTION = 4  # numbers that describe one


class SyncNetV2(nn.Module):
    """Embeds sound and faces; near each other where they belong together.

    The names of its parts are those of the published ``syncnet_v2.model``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = _trunk(_AUDIO, 1, nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = _trunk(_LIPS, 3, nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)

    def forward(self, mfcc: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed windows of sound, and the windows of a sequence of faces.

        Args:
            mfcc: (n, 1, 13, 20).
            faces: (3, frames, 224, 224), BGR from 0 to 255.

        Returns:
            (n, 1024), and (frames - 4, 1024).
        """
        return self.embed_audio(mfcc), self.embed_faces(faces)

    def embed_audio(self, mfcc: torch.Tensor) -> torch.Tensor:
        """(n, 1, 13, 20) → (n, 1024)."""
        embedded: torch.Tensor = self.netfcaud(self.netcnnaud(mfcc).flatten(1))
        return embedded

    def embed_faces(self, faces: torch.Tensor) -> torch.Tensor:
        """(3, frames, 224, 224) → (frames - 4, 1024): all windows in one pass.

        Only the first convolution looks at several frames, so windows share what comes before it.
        """
        windows = self.netcnnlip(faces[None])[0, :, :, 0, 0]
        embedded: torch.Tensor = self.netfclip(windows.T)
        return embedded


def _trunk(
    layers: tuple[tuple, ...],
    channels: int,
    convolution: type[nn.Module],
    norm: type[nn.Module],
    pool: type[nn.Module],
) -> nn.Sequential:
    parts: list[nn.Module] = []
    for layer in layers:
        if len(layer) == _CONVOLUTION:
            width, kernel, stride, padding = layer
            parts.append(convolution(channels, width, kernel, stride=stride, padding=padding))
            parts += [norm(width), nn.ReLU(inplace=True)]
            channels = width
        else:
            kernel, stride, padding = layer
            parts.append(pool(kernel, stride=stride, padding=padding))
    return nn.Sequential(*parts)


def _head() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING)
    )
