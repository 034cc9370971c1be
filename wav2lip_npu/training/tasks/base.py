"""What all trainings have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import nn

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.augmentation import mirror, recolour
from wav2lip_npu.data.batches import Batch, BatchMaker
from wav2lip_npu.models import inputs
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import SINGLE_PROCESS, World
from wav2lip_npu.training.optimization import TrainableNetwork, learning_rate

# Floating-point operations of a network's forward pass, as torch counts them.
SYNCNET_FLOPS = 2.42e9  # per window
GENERATOR_FLOPS, DISC_FLOPS = 7.93e9, 2.51e9  # per frame
TRAINED_PASSES = 3  # as many operations: forward, backward to activations and to weights,
FROZEN_PASSES = 2  # or to activations only

Metrics = dict[str, torch.Tensor]  # scalars on the device


class Task(ABC):
    """One of the three trainings."""

    batches: BatchMaker
    train_loss: ClassVar[str]  # the metric of a step that falls as the networks learn,
    score: ClassVar[str]  # and that of a validation; less is better

    def __init__(self, config: TrainConfig, device: Device, world: World = SINGLE_PROCESS) -> None:
        self.config = config
        self.device = device
        self.world = world
        self.trained: dict[str, TrainableNetwork] = {}  # by the prefix of the checkpoint's name

    def add(self, prefix: str, network: nn.Module, beta1: float = 0.9) -> nn.Module:
        """Add a network to the training; the first one is what the training is for."""
        trained = TrainableNetwork(
            network, self.config, beta1, self.device, self.world, ema=not self.trained
        )
        self.trained[prefix] = trained
        return trained.network

    def forward_module(self, prefix: str = "") -> nn.Module:
        """A trained network as it is to be called now."""
        return self.trained[prefix].forward_module()

    def set_training(self, training: bool) -> None:
        """Put the trained networks into training or evaluation mode."""
        for trained in self.trained.values():
            trained.network.train(training)

    def step(self, *batches: Batch, number: int = 0) -> Metrics:
        """One optimizer step.

        Args:
            batches: one for each of ``--accumulate``; their gradients are averaged.
            number: of the step, from 0.

        Returns:
            The means of the batches' metrics, and the norm of each network's gradients.
        """
        *others, last = batches
        with ExitStack() as stack:
            for trained in self.trained.values():
                trained.zero_grad()
                stack.enter_context(trained.no_sync())
            metrics = [self.accumulate_gradients(batch) for batch in others]
        metrics.append(self.accumulate_gradients(last))
        means = metrics[0]
        if others:
            means = {name: torch.stack([one[name] for one in metrics]).mean() for name in means}
        rate = learning_rate(self.config, number)
        for prefix, trained in self.trained.items():
            means[f"{prefix}gradient_norm"] = trained.optimizer_step(rate)
        return means

    @abstractmethod
    def accumulate_gradients(self, batch: Batch) -> Metrics:
        """Add a batch's gradients to those there are; the networks are in training mode."""

    def faces(self, batch: Batch, name: str) -> torch.Tensor:
        """Faces of a batch, or of its first samples, as numbers, augmented as the options say.

        Returns:
            (B, T, 3, h, w) in [0, 1].
        """
        faces = inputs.to_float(batch[name])
        count = len(faces)
        if self.config.augment_flip and "mirrored" in batch:
            faces = mirror(faces, batch["mirrored"][:count])
        if self.config.augment_colour and "colour" in batch:
            faces = recolour(faces, batch["colour"][:count], self.config.augment_colour)
        return faces

    @abstractmethod
    def flops_per_sample(self) -> float:
        """Floating-point operations of the networks per training sample, at this moment."""

    @abstractmethod
    def validation_metrics(self, batch: Batch) -> Metrics:
        """The metrics of one batch; the networks are in evaluation mode, without gradients."""

    def after_validation(self, metrics: dict[str, float]) -> str | None:
        """React to a finished validation; the text is for the log."""
        return None

    def status(self) -> str | None:
        """What a user should know of the task's state, for the log."""
        return None

    def sample_images(self, batch: Batch) -> torch.Tensor | None:
        """Images of a batch, if any: uint8 (rows, columns, 96, 96, 3) BGR, on the CPU."""
        return None

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides what its networks keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 (most have nothing to restore)
        """Take up the state of an earlier run; a published checkpoint has none."""
