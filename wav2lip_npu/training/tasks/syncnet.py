"""The training of SyncNet, the lip-sync expert."""

from __future__ import annotations

import math
from typing import cast

import torch

from wav2lip_npu import checkpoint
from wav2lip_npu.config import SyncNetConfig
from wav2lip_npu.constants import WINDOW_FRAMES
from wav2lip_npu.data.augmentation import make_worse, move
from wav2lip_npu.data.batches import Batch, GroupedSyncNetBatches, SyncNetBatches
from wav2lip_npu.data.sampler import GROUP_SIZE
from wav2lip_npu.models import Generator, SyncNet, inputs
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import SINGLE_PROCESS, World
from wav2lip_npu.training import losses
from wav2lip_npu.training.tasks.base import (
    GENERATOR_FLOPS,
    SYNCNET_FLOPS,
    TRAINED_PASSES,
    Metrics,
    Task,
)

CHANCE_LOSS = math.log(2)  # of SyncNet, when it gives every pair the probability one half
CHANCE_MARGIN = 0.05  # of loss and accuracy, within which SyncNet counts as at chance
GENERATED_SHARE = 1 / 8  # of a batch, from which faces are generated as well


class SyncNetTask(Task):
    """SyncNet, the lip-sync expert: do audio and faces belong together?"""

    train_loss = score = "loss"

    def __init__(
        self, config: SyncNetConfig, device: Device, world: World = SINGLE_PROCESS
    ) -> None:
        super().__init__(config, device, world)
        self.contrastive = config.objective == "contrastive"
        self.generator: Generator | None = None
        if config.generator_path is not None:
            self.generator = self._open_generator(config)
        self.generated_count = 0
        if self.generator is not None:
            self.generated_count = max(1, int(config.batch_size * GENERATED_SHARE))
        kind = GroupedSyncNetBatches if self.contrastive else SyncNetBatches
        self.batches = kind(generated=self.generated_count)
        self.move, self.worse = config.augment_move, config.augment_quality
        self.syncnet = self.add("", SyncNet())

    def _open_generator(self, config: SyncNetConfig) -> Generator:
        """The frozen generator whose faces match no sound.

        Raises:
            UserError: the file holds none.
        """
        assert config.generator_path is not None
        generator = Generator()
        loaded = checkpoint.read(config.generator_path, generator).for_inference()
        return checkpoint.load_frozen(generator, loaded, self.device)

    def accumulate_gradients(self, batch: Batch) -> Metrics:
        """See ``Task``."""
        mel, windows = batch["mel"], self._varied_windows(batch)
        if self.generator is None:
            with self.device.autocast():
                audio, face = self.forward_module()(mel, windows)
            loss = self._pair_loss(audio, face, batch)
            self.trained[""].backward(loss)
            return {"loss": loss.detach()}
        count, generated = len(mel), self._generate(batch)
        with self.device.autocast():
            audio, face = self.forward_module()(
                torch.cat([mel, mel[: len(generated)]]), torch.cat([windows, generated])
            )
        loss = self._pair_loss(audio[:count], face[:count], batch)
        none = torch.zeros(len(generated), device=audio.device)
        wrong = losses.sync_loss(audio[count:], face[count:], none)
        share = len(generated) / len(audio)
        self.trained[""].backward((1 - share) * loss + share * wrong)
        return {"loss": loss.detach(), "generated": wrong.detach()}

    def _pair_loss(self, audio: torch.Tensor, face: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.contrastive:
            return losses.contrastive_loss(audio, face, GROUP_SIZE)
        return losses.sync_loss(audio, face, batch["label"])

    @torch.no_grad()
    def _generate(self, batch: Batch) -> torch.Tensor:
        """Windows (m, 15, 48, 96) of what the generator makes for the first sounds of a batch."""
        assert self.generator is not None
        target, reference = (
            self.faces(batch, name).transpose(1, 2) for name in ("target", "reference")
        )
        with self.device.autocast():
            mel = batch["generator_mel"].unsqueeze(2)
            faces = self.generator(mel, inputs.generator_faces(target, reference))
        return inputs.syncnet_faces(faces.float())

    def flops_per_sample(self) -> float:
        """See ``Task``."""
        generated = self.generated_count / self.config.batch_size
        trained = (1 + generated) * TRAINED_PASSES * SYNCNET_FLOPS
        return trained + generated * WINDOW_FRAMES * GENERATOR_FLOPS

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

    def _varied_windows(self, batch: Batch) -> torch.Tensor:
        """The faces to train on, (B, 15, 48, 96)."""
        faces = self.faces(batch, "faces")
        if self.move:
            faces = move(faces, batch["moved"][:, 0], self.move)
        if self.worse:
            faces = make_worse(faces, batch["worse"], self.worse)
        return faces.flatten(1, 2)
