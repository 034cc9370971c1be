"""What is trained: SyncNet, the generator, and the generator against a discriminator.

A task owns its networks and knows one step, one validation batch and one sheet of samples. The
loop that runs it is in ``trainer``, and is the same for all three.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any, ClassVar, cast

import torch
from torch import nn

from wav2lip_npu import checkpoint
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.constants import WINDOW_FRAMES
from wav2lip_npu.data.batches import (
    Batch,
    BatchMaker,
    GeneratorBatches,
    GroupedSyncNetBatches,
    SyncNetBatches,
)
from wav2lip_npu.data.sampler import GROUP_SIZE
from wav2lip_npu.models import Generator, SyncNet, VisualQualityDiscriminator, inputs
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import SINGLE_PROCESS, World
from wav2lip_npu.training import losses
from wav2lip_npu.training.metrics import similarity
from wav2lip_npu.training.optimization import TrainableNetwork, learning_rate

# Floating-point operations of a network's forward pass, as torch counts them.
SYNCNET_FLOPS = 2.42e9  # per window
GENERATOR_FLOPS, DISC_FLOPS = 7.93e9, 2.51e9  # per frame
TRAINED_PASSES = 3  # as many operations: forward, backward to activations and to weights,
FROZEN_PASSES = 2  # or to activations only

CHANCE_LOSS = math.log(2)  # of SyncNet, when it gives every pair the probability one half
CHANCE_MARGIN = 0.05  # of loss and accuracy, within which SyncNet counts as at chance

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

    def add(self, prefix: str, network: nn.Module, betas: tuple[float, float]) -> nn.Module:
        """Add a network to the training; the first one is what the training is for."""
        trained = TrainableNetwork(
            network, self.config, betas, self.device, self.world, ema=not self.trained
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
        """Faces of a batch as numbers, augmented as the options say.

        Returns:
            (B, T, 3, h, w) in [0, 1].
        """
        faces = inputs.to_float(batch[name])
        if self.config.augment_flip and "mirrored" in batch:
            mirrored = batch["mirrored"].view(-1, 1, 1, 1, 1)
            faces = torch.where(mirrored, faces.flip(-1), faces)
        if self.config.augment_colour and "colour" in batch:
            colour = self.config.augment_colour * batch["colour"].view(-1, 1, 4, 1, 1)
            faces = (faces * (1 + colour[:, :, :3]) + colour[:, :, 3:] / 2).clamp(0, 1)
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


class SyncNetTask(Task):
    """SyncNet, the lip-sync expert: do audio and faces belong together?"""

    batches = SyncNetBatches()
    train_loss = score = "loss"

    def __init__(
        self, config: SyncNetConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        self.contrastive = config.objective == "contrastive"
        if self.contrastive:
            self.batches = GroupedSyncNetBatches()
        self.syncnet = self.add("", SyncNet(), betas=(0.9, 0.999))

    def accumulate_gradients(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        with self.device.autocast():
            audio, face = self.forward_module()(batch["mel"], self._windows(batch, "faces"))
        if self.contrastive:
            loss = losses.contrastive_loss(audio, face, GROUP_SIZE)
        else:
            loss = losses.sync_loss(audio, face, batch["label"])
        self.trained[""].backward(loss)
        return {"loss": loss.detach()}

    def flops_per_sample(self) -> float:
        """See ``Task``."""
        return TRAINED_PASSES * SYNCNET_FLOPS

    def validation_metrics(self, batch: Batch) -> Metrics:
        """Loss, share of pairs classified right, and share of audio found at its place.

        A pair is classified by whether the cosine is above one half; by chance a half is right.
        Audio is found if of 15 places, up to seven frames off, the best one is at most one off: by
        chance one in five.
        """
        syncnet = cast(SyncNet, self.forward_module())
        with self.device.autocast():
            audio, face = syncnet(batch["mel"], self._windows(batch, "faces"))
            true_face = syncnet.embed_face(self._windows(batch, "true_faces"))
            shifted = syncnet.embed_audio(batch["shifted_mels"].flatten(0, 1).unsqueeze(1))
        right = (torch.cosine_similarity(audio, face) > 0.5) == (batch["label"] > 0.5)
        shifted = shifted.view(len(face), -1, face.shape[1])
        agreement = torch.einsum("bse,be->bs", shifted, true_face)
        best = batch["shifts"].gather(1, agreement.argmax(dim=1, keepdim=True))
        return {
            "loss": losses.sync_loss(audio, face, batch["label"]),
            "accuracy": right.float().mean(),
            "offset_accuracy": (best.abs() <= 1).float().mean(),
        }

    def after_validation(self, metrics: dict[str, float]) -> str | None:
        """Name the plateau at chance, where SyncNet is known to stay for long."""
        loss, accuracy = metrics["loss"], metrics["accuracy"]
        if abs(loss - CHANCE_LOSS) > CHANCE_MARGIN or accuracy > 0.5 + CHANCE_MARGIN:
            return None
        return (
            f"the expert is at chance: a loss of {loss:.3f} (0.693, ln 2, is that of guessing), "
            f"{accuracy:.0%} of pairs right (50%), {metrics['offset_accuracy']:.0%} of audio found "
            "at its place (20%). On LRS2 this has lasted for 150,000 steps; if the last two do not "
            "rise, look at the data check above and at data_check.png"
        )

    def _windows(self, batch: Batch, name: str) -> torch.Tensor:
        return self.faces(batch, name).flatten(1, 2)  # (B, 15, 48, 96), frame by frame


class GeneratorTask(Task):
    """Wav2Lip: reconstruct the target, and convince the frozen SyncNet.

    The sync loss has weight 0 until a validation's is below the threshold of the sync gate.
    """

    batches = GeneratorBatches()
    train_loss, score = "l1", "sync"
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    open_sync_weight: ClassVar[float] = 0.01  # of the sync loss once the gate is open
    gate_threshold: ClassVar[float] = 0.75  # validation sync loss below which it opens

    def __init__(
        self, config: GeneratorConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        self.generator = self.add("", Generator(), betas=self.betas)
        self.syncnet = SyncNet()
        loaded = checkpoint.read(config.syncnet_checkpoint_path, self.syncnet)
        checkpoint.load_network(self.syncnet, loaded.averaged() if config.syncnet_ema else loaded)
        device.prepare(self.syncnet).requires_grad_(False).train(config.expert_mode == "train")
        self.sync_weight = 0.0
        self.last_sync: float | None = None  # of the latest validation

    def accumulate_gradients(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        generated, target = self._generate(batch)
        loss, metrics = self._total_loss(generated, target, batch)
        self.trained[""].backward(loss)
        return metrics

    def flops_per_sample(self) -> float:
        """See ``Task``."""
        syncnet = FROZEN_PASSES * SYNCNET_FLOPS if self.sync_weight else 0
        return WINDOW_FRAMES * TRAINED_PASSES * GENERATOR_FLOPS + syncnet

    def validation_metrics(self, batch: Batch) -> Metrics:
        """L1, sync loss (whatever its weight), and similarity of the lower halves."""
        return self._reconstruction_metrics(*self._generate(batch), batch)

    def _reconstruction_metrics(
        self, generated: torch.Tensor, target: torch.Tensor, batch: Batch
    ) -> Metrics:
        return {
            "l1": (generated - target).abs().mean(),
            "sync": self._sync_loss(generated, batch),
            **similarity(inputs.lower_half(generated), inputs.lower_half(target)),
        }

    def _generate(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The generated window and the true one, (B, 3, 5, 96, 96) each, in [0, 1]."""
        target, reference = self._windows(batch, "target"), self._windows(batch, "reference")
        with self.device.autocast():
            mel = batch["mel"][:, 1:].unsqueeze(2)
            generated = self.forward_module()(mel, inputs.generator_faces(target, reference))
        return generated.float(), target

    def _windows(self, batch: Batch, name: str) -> torch.Tensor:
        return self.faces(batch, name).transpose(1, 2)

    def _total_loss(
        self, generated: torch.Tensor, target: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, Metrics]:
        """The generator's whole loss, and its parts."""
        l1 = (generated - target).abs().mean()
        others = self._other_losses(generated, batch)
        l1_weight = 1 - sum(weight for weight, _ in others.values())
        total = sum((weight * loss for weight, loss in others.values()), l1_weight * l1)
        parts = {"l1": l1, **{name: loss for name, (_, loss) in others.items()}, "total": total}
        return total, {name: loss.detach() for name, loss in parts.items()}

    def _other_losses(
        self, generated: torch.Tensor, batch: Batch
    ) -> dict[str, tuple[float, torch.Tensor]]:
        """The weights and values of all losses but L1, which has the rest of the weight."""
        if not self.sync_weight:  # saves SyncNet's computation
            return {}
        return {"sync": (self.sync_weight, self._sync_loss(generated, batch))}

    def _sync_loss(self, generated: torch.Tensor, batch: Batch) -> torch.Tensor:
        with self.device.autocast():
            audio, face = self.syncnet(batch["mel"][:, :1], inputs.syncnet_faces(generated))
        return losses.sync_loss(audio, face, torch.ones(len(generated), device=generated.device))

    def after_validation(self, metrics: dict[str, float]) -> str | None:
        """Open the gate when the validation allows it; it never closes again."""
        self.last_sync = metrics["sync"]
        if self.last_sync < self.gate_threshold:
            self.sync_weight = self.open_sync_weight
        return self.status()

    def status(self) -> str:
        """Whether the gate is open, and the number it waits for."""
        if self.sync_weight:
            return f"sync gate open: the sync loss has weight {self.sync_weight:g}"
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
        return {"sync_weight": self.sync_weight, "last_sync": self.last_sync}

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Task``."""
        last = state.get("last_sync")
        self.sync_weight = float(state.get("sync_weight", 0.0))
        self.last_sync = None if last is None else float(last)


class AdversarialTask(GeneratorTask):
    """Wav2Lip with the visual quality discriminator."""

    betas = (0.5, 0.999)
    open_sync_weight = 0.03
    adversarial_weight: ClassVar[float] = 0.07  # of the perceptual loss, from the start

    def __init__(
        self, config: GeneratorConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        network = VisualQualityDiscriminator()
        self.discriminator = self.add(checkpoint.DISC_PREFIX, network, betas=self.betas)

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
        return super().flops_per_sample() + WINDOW_FRAMES * passes * DISC_FLOPS

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
