"""The trainings of the generator: alone, and against a discriminator."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from wav2lip_npu import checkpoint
from wav2lip_npu.config import GeneratorConfig
from wav2lip_npu.constants import WINDOW_FRAMES
from wav2lip_npu.data.batches import Batch, GeneratorBatches
from wav2lip_npu.models import Generator, VisualQualityDiscriminator, inputs
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import SINGLE_PROCESS, World
from wav2lip_npu.training import losses
from wav2lip_npu.training.metrics import similarity
from wav2lip_npu.training.tasks.base import (
    DISC_FLOPS,
    FROZEN_PASSES,
    GENERATOR_FLOPS,
    SYNCNET_FLOPS,
    TRAINED_PASSES,
    Metrics,
    Task,
)
from wav2lip_npu.training.tasks.experts import FrozenExperts

ALL_FRAMES = slice(None)


class GeneratorTask(Task):
    """Wav2Lip: reconstruct the target, and convince the frozen lip-sync experts.

    The sync loss has weight 0 until a validation's is below the threshold of the sync gate. Then
    its weight rises, in one step or in ``--sync_weight_steps``. While it is 0, a step generates
    only ``--closed_gate_frames`` of each window.
    """

    batches = GeneratorBatches()
    train_loss, score = "l1", "sync"
    beta1: ClassVar[float] = 0.9  # of Adam
    open_sync_weight: ClassVar[float] = 0.01  # of the sync loss once the gate is open
    gate_threshold: ClassVar[float] = 0.75  # validation sync loss below which it opens

    def __init__(
        self, config: GeneratorConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        self.generator = self.add("", Generator(), self.beta1)
        self.experts = FrozenExperts(config, device)
        self.final_sync_weight = (
            self.open_sync_weight if config.sync_weight is None else config.sync_weight
        )
        self.closed_gate_frames = config.closed_gate_frames
        self.mouth_weight = config.mouth_weight
        self.sync_weight_steps = config.sync_weight_steps
        self.sync_weight = 0.0  # what it is now
        self.sync_steps = 0  # that were taken with an open gate
        self.last_sync: float | None = None  # of the latest validation

    def step(self, *batches: Batch, number: int = 0) -> Metrics:
        """See ``Task``."""
        if self.sync_weight:
            self.sync_steps += 1
            self.sync_weight = self._risen_weight()
        return super().step(*batches, number=number)

    def _risen_weight(self) -> float:
        """The weight of the sync loss in the last step with an open gate, or in the first one."""
        steps = min(max(1, self.sync_steps), self.sync_weight_steps)
        return self.final_sync_weight * steps / self.sync_weight_steps

    def accumulate_gradients(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        generated, target = self._generate(batch, self._training_frames())
        loss, metrics = self._total_loss(generated, target, batch)
        self.trained[""].backward(loss)
        return metrics

    def _training_frames(self) -> slice:
        """Which frames of each window a training step generates: SyncNet needs all five."""
        if self.sync_weight:
            return ALL_FRAMES
        first = (WINDOW_FRAMES - self.closed_gate_frames) // 2
        return slice(first, first + self.closed_gate_frames)

    def flops_per_sample(self) -> float:
        """See ``Task``."""
        passes = FROZEN_PASSES * self.experts.windows_per_sample
        syncnet = passes * SYNCNET_FLOPS if self.sync_weight else 0
        return self._frames_per_sample() * TRAINED_PASSES * GENERATOR_FLOPS + syncnet

    def _frames_per_sample(self) -> int:
        return WINDOW_FRAMES if self.sync_weight else self.closed_gate_frames

    def validation_metrics(self, batch: Batch) -> Metrics:
        """L1, sync loss (whatever its weight), and similarity of the lower halves."""
        return self._reconstruction_metrics(*self._generate(batch), batch)

    def _reconstruction_metrics(
        self, generated: torch.Tensor, target: torch.Tensor, batch: Batch
    ) -> Metrics:
        return {
            "l1": (generated - target).abs().mean(),
            "sync": self.experts.loss(batch["mel"][:, 0], generated),
            **similarity(inputs.lower_half(generated), inputs.lower_half(target)),
        }

    def _generate(
        self, batch: Batch, frames: slice = ALL_FRAMES
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The generated frames of each window and the true ones, (B, 3, T, 96, 96), in [0, 1]."""
        target, reference = (
            self._windows(batch, name)[:, :, frames] for name in ("target", "reference")
        )
        with self.device.autocast():
            mel = batch["mel"][:, 1:].unsqueeze(2)[:, frames]
            generated = self.forward_module()(mel, inputs.generator_faces(target, reference))
        return generated.float(), target

    def _windows(self, batch: Batch, name: str) -> torch.Tensor:
        return self.faces(batch, name).transpose(1, 2)

    def _total_loss(
        self, generated: torch.Tensor, target: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, Metrics]:
        """The generator's whole loss, and its parts."""
        l1, weighted_l1 = losses.reconstruction_loss(generated, target, self.mouth_weight)
        others = self._other_losses(generated, batch)
        l1_weight = 1 - sum(weight for weight, _ in others.values())
        total = sum((weight * loss for weight, loss in others.values()), l1_weight * weighted_l1)
        parts = {"l1": l1, **{name: loss for name, (_, loss) in others.items()}, "total": total}
        return total, {name: loss.detach() for name, loss in parts.items()}

    def _other_losses(
        self, generated: torch.Tensor, batch: Batch
    ) -> dict[str, tuple[float, torch.Tensor]]:
        """The weights and values of all losses but L1, which has the rest of the weight."""
        if not self.sync_weight:  # saves SyncNet's computation
            return {}
        loss = self.experts.loss(batch["mel"][:, 0], generated, batch.get("moved"))
        return {"sync": (self.sync_weight, loss)}

    def after_validation(self, metrics: dict[str, float]) -> str | None:
        """Open the gate when the validation allows it; it never closes again."""
        self.last_sync = metrics["sync"]
        if not self.sync_weight and self.last_sync < self.gate_threshold:
            self.sync_weight = self._risen_weight()
        return self.status()

    def status(self) -> str:
        """Whether the gate is open, and the number it waits for."""
        if self.sync_weight:
            return f"sync gate open: the sync loss has weight {self.sync_weight:g}"
        if not self.final_sync_weight:
            return "sync gate closed, and stays so: --sync_weight 0"
        now = "not validated yet" if self.last_sync is None else f"now {self.last_sync:.3f}"
        return (
            f"sync gate closed: the sync loss has weight 0 until a validation's is below "
            f"{self.gate_threshold} ({now})"
        )

    def sample_images(self, batch: Batch) -> torch.Tensor:
        """Reference, masked, generated and target of each window's middle frame."""
        generated, target = self._generate(batch)
        masked, reference = inputs.mask_lower_half(target), self._windows(batch, "reference")
        middle = target.shape[2] // 2
        columns = [faces[:, :, middle] for faces in (reference, masked, generated, target)]
        images = torch.stack(columns, dim=1).permute(0, 1, 3, 4, 2)
        return (images * 255).round().to(torch.uint8).cpu()

    def state(self) -> dict[str, Any]:
        """See ``Task``."""
        return {
            "sync_weight": self.sync_weight,
            "sync_steps": self.sync_steps,
            "last_sync": self.last_sync,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Task``."""
        last = state.get("last_sync")
        is_open = float(state.get("sync_weight", 0.0)) > 0
        before = self.sync_weight_steps if is_open else 0  # in files of earlier versions
        self.sync_steps = checkpoint.count(state.get("sync_steps", before))
        self.sync_weight = self._risen_weight() if is_open else 0.0
        self.last_sync = None if last is None else float(last)


class AdversarialTask(GeneratorTask):
    """Wav2Lip with the visual quality discriminator."""

    beta1 = 0.5
    open_sync_weight = 0.03
    adversarial_weight: ClassVar[float] = 0.07  # of the perceptual loss, from the start

    def __init__(
        self, config: GeneratorConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        network = VisualQualityDiscriminator()
        self.discriminator = self.add(checkpoint.DISC_PREFIX, network, self.beta1)

    def accumulate_gradients(self, batch: Batch) -> Metrics:
        """The generator's gradients, then the discriminator's by the same faces."""
        generated, target = self._generate(batch)
        self.discriminator.requires_grad_(False)  # it is trained below
        loss, metrics = self._total_loss(generated, target, batch)
        self.trained[""].backward(loss)
        self.discriminator.requires_grad_(True)
        real, fake = self._discriminator_losses(generated.detach(), target)
        self.trained[checkpoint.DISC_PREFIX].backward(real + fake)
        return {**metrics, "disc_real": real.detach(), "disc_fake": fake.detach()}

    def flops_per_sample(self) -> float:
        """See ``Task``."""
        passes = 2 * TRAINED_PASSES + FROZEN_PASSES  # real, generated; and for the generator
        return super().flops_per_sample() + self._frames_per_sample() * passes * DISC_FLOPS

    def validation_metrics(self, batch: Batch) -> Metrics:
        """As the generator's, and the losses with the discriminator."""
        generated, target = self._generate(batch)
        real, fake = self._discriminator_losses(generated, target)
        return {
            **self._reconstruction_metrics(generated, target, batch),
            "perceptual": self._perceptual_loss(generated),
            "disc_real": real,
            "disc_fake": fake,
        }

    def _other_losses(
        self, generated: torch.Tensor, batch: Batch
    ) -> dict[str, tuple[float, torch.Tensor]]:
        perceptual = (self.adversarial_weight, self._perceptual_loss(generated))
        return {"perceptual": perceptual, **super()._other_losses(generated, batch)}

    def _perceptual_loss(self, generated: torch.Tensor) -> torch.Tensor:
        with self.device.autocast():
            probability = self.discriminator(generated)
        return losses.adversarial_loss(probability, real=True)

    def _discriminator_losses(
        self, generated: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self.device.autocast():
            discriminator = self.forward_module(checkpoint.DISC_PREFIX)
            real, fake = discriminator(target), discriminator(generated)
        return losses.adversarial_loss(real, real=True), losses.adversarial_loss(fake, real=False)
