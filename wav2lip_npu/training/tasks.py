"""What is trained: the expert, the generator, and the generator against a discriminator.

A task owns its networks and knows one step, one evaluation batch and one picture. The loop that
runs it is in ``training``, and is the same for all three.
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
from wav2lip_npu.data import sampler as data
from wav2lip_npu.data.sampler import Batch
from wav2lip_npu.models import Generator, SyncNet, VisualQualityDiscriminator, inputs
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import SINGLE_PROCESS, World
from wav2lip_npu.training import losses
from wav2lip_npu.training.metrics import likeness
from wav2lip_npu.training.optimization import TrainableNetwork, learning_rate

# Floating-point operations of a network's forward pass, as torch counts them.
EXPERT_WORK = 2.42e9  # of an item
GENERATOR_WORK, DISC_WORK = 7.93e9, 2.51e9  # of a frame
TRAINED = 3  # times that to train: forward, and backward to activations and to weights,
FROZEN = 2  # or to activations only

CHANCE = math.log(2)  # the expert's loss when it says one half to everything
NEAR_CHANCE = 0.05

Metrics = dict[str, torch.Tensor]  # scalars on the device


class Task(ABC):
    """One of the three trainings."""

    recipe: data.Recipe
    learned: ClassVar[str]  # the loss that a step tells how well it learns by,
    score: ClassVar[str]  # and that of an evaluation; less is better

    def __init__(self, config: TrainConfig, device: Device, world: World = SINGLE_PROCESS) -> None:
        self.config = config
        self.device = device
        self.world = world
        self.trained: dict[str, TrainableNetwork] = {}  # by the prefix of the checkpoint's name

    def add(self, prefix: str, network: nn.Module, betas: tuple[float, float]) -> nn.Module:
        """Take a network into training; the first one is what the training is for."""
        learner = TrainableNetwork(
            network, self.config, betas, self.device, self.world, average=not self.trained
        )
        self.trained[prefix] = learner
        return learner.network

    def called(self, prefix: str = "") -> nn.Module:
        """A trained network as it is to be called now."""
        return self.trained[prefix].called()

    def set_training(self, training: bool) -> None:
        """Put the trained networks into training or evaluation mode."""
        for learner in self.trained.values():
            learner.network.train(training)

    def step(self, *batches: Batch, number: int = 0) -> Metrics:
        """One step, counted from 0, on batches as if they were one; the mean of their metrics."""
        *others, last = batches
        with ExitStack() as stack:
            for learner in self.trained.values():
                learner.forget_gradients()
                stack.enter_context(learner.gathering())
            metrics = [self.learn(batch) for batch in others]
        metrics.append(self.learn(last))
        means = {name: torch.stack([one[name] for one in metrics]).mean() for name in metrics[0]}
        rate = learning_rate(self.config, number)
        for prefix, learner in self.trained.items():
            means[f"{prefix}gradient_norm"] = learner.descend(rate)
        return means

    @abstractmethod
    def learn(self, batch: Batch) -> Metrics:
        """Add a batch's gradients to those gathered; the networks are in training mode."""

    def pictures(self, batch: Batch, name: str) -> torch.Tensor:
        """Faces of a batch as numbers, varied as the options ask for.

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
    def work(self) -> float:
        """Floating-point operations of the networks that an item of training takes now."""

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
        """What a resumed run must know besides what its learners keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 (most have nothing to restore)
        """Take up the state of an earlier run; a published checkpoint has none."""


class SyncNetTask(Task):
    """The lip-sync expert: do speech and faces belong together?"""

    recipe = data.EXPERT
    learned = score = "loss"

    def __init__(
        self, config: SyncNetConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        self.contrastive = config.objective == "contrastive"
        if self.contrastive:
            self.recipe = data.EXPERT_TOGETHER
        self.expert = self.add("", SyncNet(), betas=(0.9, 0.999))

    def learn(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        with self.device.autocast():
            speech, face = self.called()(batch["mel"], self._faces(batch, "faces"))
        if self.contrastive:
            loss = losses.contrastive_loss(speech, face, data.TOGETHER)
        else:
            loss = losses.sync_loss(speech, face, batch["label"])
        self.trained[""].backward(loss)
        return {"loss": loss.detach()}

    def work(self) -> float:
        """See ``Task``."""
        return TRAINED * EXPERT_WORK

    def evaluate(self, batch: Batch) -> Metrics:
        """Loss, share of pairs told right, and share of speech found at its place.

        A pair is told by whether the cosine is above one half; by chance a half is right. Speech is
        found if of 15 places, up to seven frames off, the best one is at most one off: by chance
        one in five.
        """
        expert = cast(SyncNet, self.called())
        with self.device.autocast():
            speech, face = expert(batch["mel"], self._faces(batch, "faces"))
            true_face = expert.embed_face(self._faces(batch, "true_faces"))
            moved = expert.embed_audio(batch["moved"].flatten(0, 1).unsqueeze(1))
        told = (torch.cosine_similarity(speech, face) > 0.5) == (batch["label"] > 0.5)
        agreement = torch.einsum("bse,be->bs", moved.view(len(face), -1, face.shape[1]), true_face)
        best = batch["shifts"].gather(1, agreement.argmax(dim=1, keepdim=True))
        return {
            "loss": losses.sync_loss(speech, face, batch["label"]),
            "accuracy": told.float().mean(),
            "offset_accuracy": (best.abs() <= 1).float().mean(),
        }

    def conclude(self, evaluation: dict[str, float]) -> str | None:
        """Name the plateau at chance, where experts are known to stay for long."""
        loss, accuracy = evaluation["loss"], evaluation["accuracy"]
        if abs(loss - CHANCE) > NEAR_CHANCE or accuracy > 0.5 + NEAR_CHANCE:
            return None
        return (
            f"the expert is at chance: a loss of {loss:.3f} (0.693, ln 2, is that of not knowing), "
            f"{accuracy:.0%} of pairs told right (50%), {evaluation['offset_accuracy']:.0%} of "
            "speech found at its place (20%). On LRS2 this has lasted for 150,000 steps; where the "
            "last two do not rise, look at the data check above and at data_check.png"
        )

    def _faces(self, batch: Batch, name: str) -> torch.Tensor:
        return self.pictures(batch, name).flatten(1, 2)  # (B, 15, 48, 96), frame-major channels


class GeneratorTask(Task):
    """Wav2Lip: draw the target as it was, and convince the frozen expert.

    The expert's share of the loss stays 0 until the generator's own evaluation is fit to be judged
    by it: the gate.
    """

    recipe = data.GENERATOR
    learned, score = "l1", "sync"
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    open_weight: ClassVar[float] = 0.01  # of the sync loss once the gate is open
    gate: ClassVar[float] = 0.75  # evaluation sync loss below which it opens

    def __init__(
        self, config: GeneratorConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        self.generator = self.add("", Generator(), betas=self.betas)
        self.expert = SyncNet()
        judge = checkpoint.read(config.syncnet_checkpoint_path)
        checkpoint.load_network(self.expert, judge.averaged() if config.syncnet_ema else judge)
        device.prepare(self.expert).requires_grad_(False).train(config.expert_mode == "train")
        self.sync_weight = 0.0
        self.last_sync: float | None = None  # of the latest evaluation

    def learn(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        drawn, target = self._generate(batch)
        loss, metrics = self._judge(drawn, target, batch)
        self.trained[""].backward(loss)
        return metrics

    def work(self) -> float:
        """See ``Task``."""
        judged = FROZEN * EXPERT_WORK if self.sync_weight else 0
        return WINDOW_FRAMES * TRAINED * GENERATOR_WORK + judged

    def evaluate(self, batch: Batch) -> Metrics:
        """L1, sync loss (whatever its weight), and likeness of the lower halves."""
        return self._likeness(*self._generate(batch), batch)

    def _likeness(self, drawn: torch.Tensor, target: torch.Tensor, batch: Batch) -> Metrics:
        return {
            "l1": (drawn - target).abs().mean(),
            "sync": self._sync(drawn, batch),
            **likeness(inputs.lower_half(drawn), inputs.lower_half(target)),
        }

    def _generate(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The generator's window and the true one, (B, 3, 5, 96, 96) each, in [0, 1]."""
        target, reference = self._faces(batch, "target"), self._faces(batch, "reference")
        with self.device.autocast():
            mel = batch["mel"][:, 1:].unsqueeze(2)
            drawn = self.called()(mel, inputs.generator_faces(target, reference))
        return drawn.float(), target

    def _faces(self, batch: Batch, name: str) -> torch.Tensor:
        return self.pictures(batch, name).transpose(1, 2)

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
            speech, face = self.expert(batch["mel"][:, :1], inputs.syncnet_faces(drawn))
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
        reference = self._faces(batch, "reference")
        middle = target.shape[2] // 2
        columns = [
            kind[:, :, middle]
            for kind in (reference, inputs.mask_lower_half(target), drawn, target)
        ]
        pictures = torch.stack(columns, dim=1).permute(0, 1, 3, 4, 2)
        return (pictures * 255).round().to(torch.uint8).cpu()

    def state(self) -> dict[str, Any]:
        """See ``Task``."""
        return {"sync_weight": self.sync_weight, "last_sync": self.last_sync}

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Task``."""
        self.sync_weight = state.get("sync_weight", 0.0)
        self.last_sync = state.get("last_sync")


class AdversarialTask(GeneratorTask):
    """Wav2Lip with the visual quality discriminator."""

    betas = (0.5, 0.999)
    open_weight = 0.03
    disc_weight: ClassVar[float] = 0.07  # of the perceptual loss, from the start

    def __init__(
        self, config: GeneratorConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        network = VisualQualityDiscriminator()
        self.discriminator = self.add(checkpoint.DISC_PREFIX, network, betas=self.betas)

    def learn(self, batch: Batch) -> Metrics:
        """The generator's gradient, then the discriminator's by the same faces."""
        drawn, target = self._generate(batch)
        self.discriminator.requires_grad_(False)  # judges here, learns below
        loss, metrics = self._judge(drawn, target, batch)
        self.trained[""].backward(loss)
        self.discriminator.requires_grad_(True)
        real, fake = self._tell_apart(drawn.detach(), target)
        self.trained[checkpoint.DISC_PREFIX].backward(real + fake)
        return {**metrics, "disc_real": real.detach(), "disc_fake": fake.detach()}

    def work(self) -> float:
        """See ``Task``."""
        pictures = 2 * TRAINED + FROZEN  # real and drawn, and once more for the generator
        return super().work() + WINDOW_FRAMES * pictures * DISC_WORK

    def evaluate(self, batch: Batch) -> Metrics:
        """As the generator's, and how well the discriminator tells real from drawn."""
        drawn, target = self._generate(batch)
        real, fake = self._tell_apart(drawn, target)
        return {
            **self._likeness(drawn, target, batch),
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
