"""The frozen lip-sync experts, whose judgement is a loss of the generator."""

from __future__ import annotations

from pathlib import Path

import torch

from wav2lip_npu import checkpoint
from wav2lip_npu.config import GeneratorConfig
from wav2lip_npu.data.augmentation import move
from wav2lip_npu.models import SyncNet, inputs
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.training import losses


class FrozenExperts:
    """One expert or several, each of which may look at several views of a window.

    A generator can learn what one network takes for synchronous, whatever it looks like. What
    convinces several, or one whatever the place of the face, is more often a mouth.
    """

    def __init__(self, config: GeneratorConfig, device: Device) -> None:
        """Load them.

        Raises:
            UserError: a file holds no expert, or not the moving average that is asked for.
        """
        self.device = device
        self.views = config.sync_views
        self.view_shift = config.sync_view_shift
        paths = (config.syncnet_checkpoint_path, *config.more_experts)
        self.networks = [self._open(path, config) for path in paths]

    def _open(self, path: Path, config: GeneratorConfig) -> SyncNet:
        network = SyncNet()
        loaded = checkpoint.read(path, network)
        loaded = loaded.averaged() if config.syncnet_ema else loaded
        expert = checkpoint.load_frozen(network, loaded, self.device)
        return expert.train(config.expert_mode == "train")

    @property
    def windows_per_sample(self) -> int:
        """How often a window is judged in training."""
        return len(self.networks) * self.views

    def loss(
        self, mel: torch.Tensor, generated: torch.Tensor, moved: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean sync loss of all experts and views.

        Args:
            mel: (B, 80, 16), SyncNet's window.
            generated: (B, 3, 5, 96, 96) in [0, 1].
            moved: (B, 4, 3), see ``augmentation.variation``; None: one view, as it is.
        """
        views = [generated]
        if moved is not None:
            frames = generated.transpose(1, 2)
            views += [
                move(frames, moved[:, view], self.view_shift).transpose(1, 2)
                for view in range(1, self.views)
            ]
        windows = _joined([inputs.syncnet_faces(view) for view in views])
        label = torch.ones(len(windows), device=windows.device)
        total: torch.Tensor | None = None
        for network in self.networks:
            with self.device.autocast():
                audio, face = network.embed_audio(mel[:, None]), network.embed_face(windows)
            loss = losses.sync_loss(_joined([audio] * len(views)), face, label)
            total = loss if total is None else total + loss
        assert total is not None
        return total / len(self.networks) if len(self.networks) > 1 else total


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """The parts one after the other; one alone is not copied."""
    return torch.cat(parts) if len(parts) > 1 else parts[0]
