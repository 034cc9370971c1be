"""What a batch is made of: the faces and mel rows of windows, for each kind of training."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
import torch

from wav2lip_npu.data.augmentation import variation
from wav2lip_npu.data.sampler import GROUP_SIZE, GroupSampler, Windows, WindowSampler
from wav2lip_npu.mel import generator_mel_starts, syncnet_mel_start

SHIFTS = np.arange(-7, 8)  # frames by which audio is shifted to see whether SyncNet notices

Batch = dict[str, torch.Tensor]


class Store(Protocol):
    """Where the windows of a list of clips are read from."""

    def faces(self, clips: np.ndarray, starts: np.ndarray, *, lower: bool = False) -> torch.Tensor:
        """Five crops from each of these frames on.

        Args:
            clips: (n,) places in the list of clips.
            starts: (n,) first frames.
            lower: only the lower halves.

        Returns:
            uint8 (n, 5, 96 or 48, 96, 3) BGR.

        Raises:
            UnreadableSamples: some crops cannot be read.
        """
        ...

    def mels(self, clips: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Mel windows of the clips (n,) from each of these rows (n, k): float32 (n, k, 80, 16).

        Raises:
            UnreadableSamples: some sound cannot be read.
        """
        ...


class SyncNetBatches:
    """What SyncNet is trained on and validated with."""

    sampler_class: ClassVar[type[WindowSampler]] = WindowSampler

    def __init__(self, *, generated: int = 0) -> None:
        """Make batches.

        Args:
            generated: samples of a batch for which a generator makes faces too.
        """
        self.generated = generated

    @property
    def per_frame_mels(self) -> bool:
        """See ``mel.valid_starts``."""
        return self.generated > 0

    def training_batch(self, store: Store, windows: Windows) -> Batch:
        """Audio, and faces that match it or do not; and what a generator takes, of the first ones.

        Returns:
            "mel" (n, 1, 80, 16) float32; "faces" (n, 5, 48, 96, 3) uint8, lower halves; "label"
            (n,) 1 or 0; what ``variation`` gives; and if faces are to be generated
            "generator_mel" (m, 5, 80, 16), "target" and "reference" (m, 5, 96, 96, 3).
        """
        return {**self._pairs(store, windows), **self._to_generate(store, windows)}

    def _to_generate(self, store: Store, windows: Windows) -> Batch:
        if not self.generated:
            return {}
        first = slice(self.generated)
        clips, targets = windows.clips[first], windows.target_starts[first]
        references = self._references(windows)[first]
        return {
            "generator_mel": store.mels(clips, generator_mel_starts(targets)),
            "target": store.faces(clips, targets),
            "reference": store.faces(clips, references),
        }

    def _references(self, windows: Windows) -> np.ndarray:
        """The first frames of other windows of the same clips."""
        return windows.reference_starts

    def _pairs(self, store: Store, windows: Windows) -> Batch:
        starts = np.where(windows.matched, windows.target_starts, windows.reference_starts)
        return {
            "mel": store.mels(windows.clips, syncnet_mel_start(windows.target_starts)[:, None]),
            "faces": store.faces(windows.clips, starts, lower=True),
            "label": torch.from_numpy(windows.matched.astype(np.float32)),
            **variation(windows),
        }

    def validation_batch(self, store: Store, windows: Windows) -> Batch:
        """A batch as in training, and the same audio shifted.

        Returns:
            Besides the training batch: "true_faces", those of the audio; "shifted_mels"
            (n, 15, 80, 16), its mel and those of up to seven frames earlier and later; "shifts"
            (n, 15), how many frames.
        """
        targets = windows.target_starts[:, None]
        frames = np.clip(targets + SHIFTS, 0, windows.last_valid_starts[:, None])
        return {
            **self._pairs(store, windows),
            "true_faces": store.faces(windows.clips, windows.target_starts, lower=True),
            "shifted_mels": store.mels(windows.clips, syncnet_mel_start(frames)),
            "shifts": torch.from_numpy(frames - targets),
        }


class GroupedSyncNetBatches(SyncNetBatches):
    """The same in groups of windows of one clip, for the contrastive objective."""

    sampler_class = GroupSampler

    def _references(self, windows: Windows) -> np.ndarray:
        return np.roll(windows.target_starts.reshape(-1, GROUP_SIZE), 1, axis=1).ravel()


class GeneratorBatches:
    """What the generator is trained on and validated with."""

    per_frame_mels: ClassVar[bool] = True
    sampler_class: ClassVar[type[WindowSampler]] = WindowSampler

    def training_batch(self, store: Store, windows: Windows) -> Batch:
        """Audio, the faces to generate, and the faces of another moment.

        Returns:
            "mel" (n, 6, 80, 16) float32, SyncNet's window and then one for each frame; "target" and
            "reference" (n, 5, 96, 96, 3) uint8; and what ``variation`` gives.
        """
        targets = windows.target_starts
        rows = np.column_stack([syncnet_mel_start(targets), generator_mel_starts(targets)])
        return {
            "mel": store.mels(windows.clips, rows),
            "target": store.faces(windows.clips, targets),
            "reference": store.faces(windows.clips, windows.reference_starts),
            **variation(windows),
        }

    validation_batch = training_batch


BatchMaker = SyncNetBatches | GeneratorBatches
