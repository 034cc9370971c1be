"""What is trained: the expert, the generator, and the generator against a discriminator.

A task owns its networks and knows one step, one evaluation batch and one picture. The loop that
runs it is in ``training``, and is the same for all three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from wav2lip_npu import checkpoint, data, losses
from wav2lip_npu.config import ExpertConfig, GeneratorConfig, TrainConfig
from wav2lip_npu.data import Batch
from wav2lip_npu.device import Device
from wav2lip_npu.distributed import ALONE, World
from wav2lip_npu.models import Generator, QualityDiscriminator, SyncExpert
from wav2lip_npu.windows import LOWER_HALF

Metrics = dict[str, torch.Tensor]  # scalars on the device


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network and its optimiser, saved together in a file."""

    network: nn.Module
    shared: nn.Module  # the same, to be called in training: processes share their gradients
    optimizer: torch.optim.Optimizer


class Task(ABC):
    """One of the three trainings."""

    recipe: ClassVar[data.Recipe]

    def __init__(self, config: TrainConfig, device: Device, world: World = ALONE) -> None:
        self.device = device
        self.world = world
        self.learning_rate = config.learning_rate
        self.scaler = device.scaler()
        self.trained: dict[str, Trained] = {}  # by the prefix of the checkpoint's name

    def add(self, prefix: str, network: nn.Module, betas: tuple[float, float]) -> nn.Module:
        """Take a network into training."""
        network = self.device.place(network)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate, betas=betas)
        shared = self.world.share_gradients(network)
        self.trained[prefix] = Trained(network=network, shared=shared, optimizer=optimizer)
        return network

    def called(self, prefix: str = "") -> nn.Module:
        """A trained network as it is to be called, in training and in evaluation mode."""
        trained = self.trained[prefix]
        return trained.shared if trained.network.training else trained.network

    def set_training(self, training: bool) -> None:
        """Put the trained networks into training or evaluation mode."""
        for trained in self.trained.values():
            trained.network.train(training)

    def descend(self, prefix: str, loss: torch.Tensor) -> None:
        """One optimiser step on the loss."""
        optimizer = self.trained[prefix].optimizer
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)

    @abstractmethod
    def step(self, batch: Batch) -> Metrics:
        """Train on one batch; the networks are in training mode."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> Metrics:
        """Judge one batch; the networks are in evaluation mode, without gradients."""

    def conclude(self, evaluation: dict[str, float]) -> str | None:
        """React to a finished evaluation; the text is for the log."""
        return None

    def status(self) -> str | None:
        """What a user should know of the task's state, for the log."""
        return None

    def draw(self, batch: Batch) -> torch.Tensor | None:
        """Pictures of a batch, if any: uint8 (rows, columns, 96, 96, 3) BGR, on the CPU."""
        return None

    def state(self) -> dict[str, Any]:
        """What a resumed run must know besides networks and optimisers."""
        return {"scaler": self.scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier run; a published checkpoint has none."""
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])


class ExpertTask(Task):
    """The lip-sync expert: do speech and faces belong together?"""

    recipe = data.EXPERT

    def __init__(self, config: ExpertConfig, device: Device, world: World = ALONE) -> None:
        super().__init__(config, device, world)
        self.expert = self.add("", SyncExpert(), betas=(0.9, 0.999))

    def step(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        speech, face = self._embed(batch)
        loss = losses.sync_loss(speech, face, batch["label"])
        self.descend("", loss)
        self.scaler.update()
        return {"loss": loss.detach()}

    def evaluate(self, batch: Batch) -> Metrics:
        """Loss, and the share of pairs told right at a cosine of one half."""
        speech, face = self._embed(batch)
        told = (torch.cosine_similarity(speech, face) > 0.5) == (batch["label"] > 0.5)
        return {
            "loss": losses.sync_loss(speech, face, batch["label"]),
            "accuracy": told.float().mean(),
        }

    def _embed(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        faces = as_images(batch["faces"]).flatten(1, 2)  # (B, 5, 3, 48, 96) → frame-major channels
        with self.device.autocast():
            return self.called()(batch["mel"], faces)


class GeneratorTask(Task):
    """Wav2Lip: draw the target as it was, and convince the frozen expert.

    The expert's share of the loss stays 0 until the generator's own evaluation is fit to be judged
    by it: the gate.
    """

    recipe = data.GENERATOR
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    open_weight: ClassVar[float] = 0.01  # of the sync loss once the gate is open
    gate: ClassVar[float] = 0.75  # evaluation sync loss below which it opens

    def __init__(self, config: GeneratorConfig, device: Device, world: World = ALONE) -> None:
        super().__init__(config, device, world)
        self.generator = self.add("", Generator(), betas=self.betas)
        self.expert = SyncExpert()
        checkpoint.load_network(self.expert, checkpoint.read(config.syncnet_checkpoint_path))
        device.place(self.expert).requires_grad_(False).train(config.expert_mode == "train")
        self.sync_weight = 0.0
        self.last_sync: float | None = None  # of the latest evaluation

    def step(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        drawn, target = self._generate(batch)
        loss, metrics = self._judge(drawn, target, batch)
        self.descend("", loss)
        self.scaler.update()
        return metrics

    def evaluate(self, batch: Batch) -> Metrics:
        """L1 and sync loss; the latter whatever its weight."""
        drawn, target = self._generate(batch)
        return {"l1": (drawn - target).abs().mean(), "sync": self._sync(drawn, batch)}

    def _generate(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The generator's window and the true one, (B, 3, 5, 96, 96) each, in [0, 1]."""
        target = as_images(batch["target"]).transpose(1, 2)
        reference = as_images(batch["reference"]).transpose(1, 2)
        with self.device.autocast():
            mel = batch["mel"][:, 1:].unsqueeze(2)
            drawn = self.called()(mel, torch.cat([masked(target), reference], dim=1))
        return drawn.float(), target

    def _judge(
        self, drawn: torch.Tensor, target: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, Metrics]:
        """The generator's whole loss, and its parts."""
        l1 = (drawn - target).abs().mean()
        others = self._other_losses(drawn, batch)
        l1_weight = 1 - sum(weight for weight, _ in others.values())
        total = sum((weight * loss for weight, loss in others.values()), l1_weight * l1)
        parts = {"l1": l1, **{name: loss for name, (_, loss) in others.items()}, "total": total}
        return total, {name: loss.detach() for name, loss in parts.items()}

    def _other_losses(
        self, drawn: torch.Tensor, batch: Batch
    ) -> dict[str, tuple[float, torch.Tensor]]:
        """The losses that share the whole with L1, and their weights."""
        if not self.sync_weight:  # saves the expert's work
            return {}
        return {"sync": (self.sync_weight, self._sync(drawn, batch))}

    def _sync(self, drawn: torch.Tensor, batch: Batch) -> torch.Tensor:
        with self.device.autocast():
            speech, face = self.expert(batch["mel"][:, :1], losses.expert_view(drawn))
        return losses.sync_loss(speech, face, torch.ones(len(drawn), device=drawn.device))

    def conclude(self, evaluation: dict[str, float]) -> str | None:
        """Open the gate when the evaluation allows it; it never closes again."""
        self.last_sync = evaluation["sync"]
        if self.last_sync < self.gate:
            self.sync_weight = self.open_weight
        return self.status()

    def status(self) -> str:
        """Whether the gate is open, and the number it waits for."""
        if self.sync_weight:
            return f"sync gate open: the sync loss has weight {self.sync_weight:g}"
        now = "not evaluated yet" if self.last_sync is None else f"now {self.last_sync:.3f}"
        return (
            f"sync gate closed: the sync loss has weight 0 until an evaluation's is below "
            f"{self.gate} ({now})"
        )

    def draw(self, batch: Batch) -> torch.Tensor:
        """Reference, masked, generated and target of each window's middle frame."""
        drawn, target = self._generate(batch)
        reference = as_images(batch["reference"]).transpose(1, 2)
        middle = target.shape[2] // 2
        columns = [kind[:, :, middle] for kind in (reference, masked(target), drawn, target)]
        pictures = torch.stack(columns, dim=1).permute(0, 1, 3, 4, 2)
        return (pictures * 255).round().to(torch.uint8).cpu()

    def state(self) -> dict[str, Any]:
        """See ``Task``."""
        return {**super().state(), "sync_weight": self.sync_weight, "last_sync": self.last_sync}

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Task``."""
        super().restore(state)
        self.sync_weight = state.get("sync_weight", 0.0)
        self.last_sync = state.get("last_sync")


class AdversarialTask(GeneratorTask):
    """Wav2Lip with the visual quality discriminator."""

    betas = (0.5, 0.999)
    open_weight = 0.03
    disc_weight: ClassVar[float] = 0.07  # of the perceptual loss, from the start

    def __init__(self, config: GeneratorConfig, device: Device, world: World = ALONE) -> None:
        super().__init__(config, device, world)
        network = QualityDiscriminator()
        self.discriminator = self.add(checkpoint.DISC_PREFIX, network, betas=self.betas)

    def step(self, batch: Batch) -> Metrics:
        """One step of the generator, then one of the discriminator on the same faces."""
        drawn, target = self._generate(batch)
        self.discriminator.requires_grad_(False)  # judges here, learns below
        loss, metrics = self._judge(drawn, target, batch)
        self.descend("", loss)
        self.discriminator.requires_grad_(True)
        real, fake = self._tell_apart(drawn.detach(), target)
        self.descend(checkpoint.DISC_PREFIX, real + fake)
        self.scaler.update()
        return {**metrics, "disc_real": real.detach(), "disc_fake": fake.detach()}

    def evaluate(self, batch: Batch) -> Metrics:
        """As the generator's, and how well the discriminator tells real from drawn."""
        drawn, target = self._generate(batch)
        real, fake = self._tell_apart(drawn, target)
        return {
            "l1": (drawn - target).abs().mean(),
            "sync": self._sync(drawn, batch),
            "perceptual": self._perceptual(drawn),
            "disc_real": real,
            "disc_fake": fake,
        }

    def _other_losses(
        self, drawn: torch.Tensor, batch: Batch
    ) -> dict[str, tuple[float, torch.Tensor]]:
        perceptual = (self.disc_weight, self._perceptual(drawn))
        return {"perceptual": perceptual, **super()._other_losses(drawn, batch)}

    def _perceptual(self, drawn: torch.Tensor) -> torch.Tensor:
        with self.device.autocast():
            probability = self.discriminator(drawn)
        return losses.real_or_not(probability, real=True)

    def _tell_apart(
        self, drawn: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self.device.autocast():
            discriminator = self.called(checkpoint.DISC_PREFIX)
            real, fake = discriminator(target), discriminator(drawn)
        return losses.real_or_not(real, real=True), losses.real_or_not(fake, real=False)


def as_images(faces: torch.Tensor) -> torch.Tensor:
    """(B, T, h, w, 3) uint8 → (B, T, 3, h, w) float in [0, 1]."""
    return faces.permute(0, 1, 4, 2, 3).float() / 255


def masked(faces: torch.Tensor) -> torch.Tensor:
    """(B, 3, T, 96, 96) with the lower half of each frame zeroed."""
    faces = faces.clone()
    faces[:, :, :, LOWER_HALF:] = 0
    return faces
