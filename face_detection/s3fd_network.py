"""The network of S3FD (Zhang et al. 2017, section 3.1 and figure 2): VGG-16, extra layers, heads.

Layers have the names of the published weight file. Six maps are looked at, for small faces first
and for large ones last, each by a head for classes and one for boxes.
"""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional as F

# Channels of the convolutions of VGG-16, block by block; between blocks the map is halved.
VGG_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FIRST_NORMALIZED_BLOCK = 3  # from this one on, a block's last map is looked at, scaled by L2Norm
# Channels between and after the two convolutions of an extra block, the second of which halves.
EXTRA_BLOCKS = {6: (256, 512), 7: (128, 256)}
# Channels of the maps that are looked at, which heads are named after.
MAPS = {
    "conv3_3_norm": 256,
    "conv4_3_norm": 512,
    "conv5_3_norm": 512,
    "fc7": 1024,
    "conv6_2": 512,
    "conv7_2": 256,
}
# Most of the small anchors are background: their head has several logits for it, of which the
# largest counts.
BACKGROUND_LOGITS = {"conv3_3_norm": 3}
FC6_PADDING = 3  # of the published network; it makes the map of fc7 larger by 4 cells per axis


class L2Norm(nn.Module):
    """Scales the channels of each cell to length 1, then each channel by its weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scale features (B, C, h, w)."""
        length = features.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10  # all may be 0
        return features / length * self.weight.view(1, -1, 1, 1)


class S3FDNetwork(nn.Module):
    """Class logits and box regressions of six maps."""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for block, widths in enumerate(VGG_BLOCKS, start=1):
            for number, width in enumerate(widths, start=1):
                self.add_module(f"conv{block}_{number}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width
            if block >= FIRST_NORMALIZED_BLOCK:
                self.add_module(f"conv{block}_3_norm", L2Norm(channels))
        self.fc6 = nn.Conv2d(channels, 1024, 3, padding=FC6_PADDING)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        channels = 1024
        for block, (narrow, wide) in EXTRA_BLOCKS.items():
            self.add_module(f"conv{block}_1", nn.Conv2d(channels, narrow, 1))
            self.add_module(f"conv{block}_2", nn.Conv2d(narrow, wide, 3, stride=2, padding=1))
            channels = wide
        for name, channels in MAPS.items():
            logits = BACKGROUND_LOGITS.get(name, 1) + 1
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels, logits, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Look at images (B, 3, h, w), BGR less ``s3fd.MEAN_BGR``.

        Returns:
            Twelve tensors, for each of the six maps class logits (B, 2, h', w'), background and
            face, and regression (B, 4, h', w'): shift of the centre, and logarithm of the size.
        """
        found = []
        for name, features in self._maps(images).items():
            logits = self.get_submodule(f"{name}_mbox_conf")(features)
            background, face = logits[:, :-1], logits[:, -1:]
            # By pairs, as the emulated cards of tests/ascend have no maximum over a dimension.
            background = functools.reduce(torch.maximum, background.split(1, dim=1))
            regression = self.get_submodule(f"{name}_mbox_loc")(features)
            found += [torch.cat([background, face], dim=1), regression]
        return found

    def _maps(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The maps that are looked at, by name, in the order of MAPS."""
        maps = {}
        for block, widths in enumerate(VGG_BLOCKS, start=1):
            for number in range(1, len(widths) + 1):
                features = self._rectified(f"conv{block}_{number}", features)
            if block >= FIRST_NORMALIZED_BLOCK:
                name = f"conv{block}_3_norm"
                maps[name] = self.get_submodule(name)(features)
            features = F.max_pool2d(features, 2)
        features = self._rectified("fc6", features)
        maps["fc7"] = features = self._rectified("fc7", features)
        for block in EXTRA_BLOCKS:
            features = self._rectified(f"conv{block}_1", features)
            maps[f"conv{block}_2"] = features = self._rectified(f"conv{block}_2", features)
        return maps

    def _rectified(self, layer: str, features: torch.Tensor) -> torch.Tensor:
        return F.relu(self.get_submodule(layer)(features), inplace=True)
