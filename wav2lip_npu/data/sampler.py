"""Which windows are training samples: a pure function of a seed and a sample's index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import ClassVar

import numpy as np
from torch.utils.data import Sampler

from wav2lip_npu.data.clips import Clip
from wav2lip_npu.mel import last_valid_start

UNIFORMS_BLOCK = 4096  # samples whose random numbers are made together
COLUMNS = (4, 5, 18)  # numbers of a sample: which windows it is; mirror and colour; the rest
GROUP_SIZE = 4  # windows of one clip, one after the other, that are compared with each other


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Samples, each an element of these arrays (n,).

    The audio is the target's, and so are SyncNet's faces if ``matched``. The reference is another
    window of the clip: SyncNet's faces if not matched, and the generator's reference.
    """

    clips: np.ndarray  # places in the list of clips
    target_starts: np.ndarray  # frames
    reference_starts: np.ndarray  # frames
    matched: np.ndarray  # bool
    last_valid_starts: np.ndarray  # last frames of the clips with a whole window of audio
    # How pictures are varied, or None: (n, 23) from -1 to 1, see ``augmentation.variation``.
    augmentation: np.ndarray | None = None


class WindowSampler:
    """Samples a random window of a random clip.

    A sample's index stands for epoch, place in it and process, see ``StridedSampler``: so the same
    samples come whatever the number of workers, and wherever a run is resumed.
    """

    group_size: ClassVar[int] = 1  # samples in a row that belong together

    def __init__(self, clips: Sequence[Clip], seed: int, *, augment: bool = False) -> None:
        self.seed = seed
        self.augment = augment
        self.clip_count = len(clips)
        self.targets = _RaggedArray([clip.targets for clip in clips])
        self.windows = _RaggedArray([clip.windows for clip in clips])
        self.last_valid_starts = np.array([last_valid_start(clip.mel_rows) for clip in clips])

    def sample(self, indices: Sequence[int]) -> Windows:
        """The samples with these indices, any numbers from 0 on."""
        uniforms = self._uniforms(indices)
        return self._sample(self._clips(indices, uniforms), uniforms, indices)

    def _clips(self, indices: Sequence[int], uniforms: np.ndarray) -> np.ndarray:
        return (uniforms[:, 0] * self.clip_count).astype(np.int64)

    def _sample(self, clips: np.ndarray, uniforms: np.ndarray, indices: Sequence[int]) -> Windows:
        places = (uniforms[:, 1] * self.targets.counts[clips]).astype(int)
        targets = self.targets.at(clips, places)
        others = (uniforms[:, 2] * (self.windows.counts[clips] - 1)).astype(int)
        places_of_targets = [
            np.searchsorted(self.windows.row(clip), target)
            for clip, target in zip(clips.tolist(), targets.tolist(), strict=True)
        ]
        others += others >= places_of_targets  # any window but the target
        return self._windows(
            clips, targets, self.windows.at(clips, others), uniforms[:, 3] < 0.5, indices
        )

    def _windows(
        self,
        clips: np.ndarray,
        targets: np.ndarray,
        references: np.ndarray,
        matched: np.ndarray,
        indices: Sequence[int],
    ) -> Windows:
        return Windows(
            clips=clips,
            target_starts=targets,
            reference_starts=references,
            matched=matched,
            last_valid_starts=self.last_valid_starts[clips],
            augmentation=self._augmentation(indices) if self.augment else None,
        )

    def _augmentation(self, indices: Sequence[int]) -> np.ndarray:
        """The numbers of the first table as before there was a second: same seeds, same samples."""
        colour, other = self._uniforms(indices, table=1), self._uniforms(indices, table=2)
        return 2 * np.concatenate([colour[:, 4:], colour[:, :4], other], axis=1) - 1

    def _uniforms(self, indices: Sequence[int], table: int = 0) -> np.ndarray:
        """Numbers in [0, 1) for each sample, see ``COLUMNS``."""
        rows = [
            _uniforms(self.seed, i // UNIFORMS_BLOCK, table)[i % UNIFORMS_BLOCK] for i in indices
        ]
        return np.stack(rows)


class GroupSampler(WindowSampler):
    """Samples ``GROUP_SIZE`` different windows of a random clip, all of them matched.

    A group is a function of all its indices, which come as whole groups.
    """

    group_size = GROUP_SIZE

    def _sample(self, clips: np.ndarray, uniforms: np.ndarray, indices: Sequence[int]) -> Windows:
        clips = np.repeat(clips[::GROUP_SIZE], GROUP_SIZE)
        places = np.empty(len(clips), np.int64)
        for start in range(0, len(clips), GROUP_SIZE):
            left = list(range(self.targets.counts[clips[start]]))
            for item in range(start, start + GROUP_SIZE):
                chosen = int(uniforms[item, 1] * len(left))
                # Short clips have too few; then one comes twice.
                places[item] = left.pop(chosen) if len(left) > 1 else left[chosen]
        targets = self.targets.at(clips, places)
        return self._windows(clips, targets, targets, np.ones(len(clips), bool), indices)


class RoundRobinSampler(WindowSampler):
    """Samples random windows of the clips in turn, so that all come equally often."""

    def _clips(self, indices: Sequence[int], uniforms: np.ndarray) -> np.ndarray:
        return np.asarray(indices) % self.clip_count


@lru_cache(maxsize=64)
def _uniforms(seed: int, block: int, table: int) -> np.ndarray:
    key = (seed, block) if table == 0 else (seed, block, table)
    return np.random.default_rng(key).random((UNIFORMS_BLOCK, COLUMNS[table]))


class _RaggedArray:
    """Rising numbers of each clip, in one array."""

    def __init__(self, rows: Sequence[np.ndarray]) -> None:
        self.counts = np.array([len(row) for row in rows])
        self.starts = np.cumsum(self.counts) - self.counts
        self.values = np.concatenate(rows).astype(np.int32)  # 200 hours have 20 million

    def at(self, clips: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The numbers at these places of these clips."""
        return self.values[self.starts[clips] + places].astype(np.int64)

    def row(self, clip: int) -> np.ndarray:
        """The numbers of a clip."""
        return self.values[self.starts[clip] : self.starts[clip] + self.counts[clip]]


class StridedSampler(Sampler[int]):
    """Every ``step``-th index from ``start`` up to ``stop``, or without end."""

    def __init__(self, start: int, stop: int | None = None, step: int = 1) -> None:
        self.start = start
        self.stop = stop
        self.step = step

    def __iter__(self) -> Iterator[int]:
        if self.stop is None:
            return count(self.start, self.step)
        return iter(range(self.start, self.stop, self.step))
