"""Training windows: which there are, which one is drawn, and a batch of their pixels and mels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.clips import Clip, ClipFiles, MelRows, read_clips
from wav2lip_npu.data.memmap import PackedClips, open_packed
from wav2lip_npu.errors import UserError
from wav2lip_npu.mel import generator_mel_starts, last_valid_start, syncnet_mel_start
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import World
from wav2lip_npu.runtime.threads import share_of_cores

PACKED_WORKERS = 2  # each gathers thousands of items a second,
JPEG_WORKERS = 16  # and each of these decodes hundreds
DRAWS = 4096  # items whose random numbers are drawn together
TOGETHER = 4  # windows of one clip, one after the other, where they are held against each other
SHIFTS = np.arange(-7, 8)  # frames by which speech is moved to see whether the expert notices

log = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]


class Store(Protocol):
    """Where the windows of a list of clips come from."""

    def faces(self, clips: np.ndarray, starts: np.ndarray, *, lower: bool = False) -> torch.Tensor:
        """Five crops from each of these frames on.

        Args:
            clips: (n,) places in the list of clips.
            starts: (n,) first frames.
            lower: only the lower halves.

        Returns:
            uint8 (n, 5, 96 or 48, 96, 3) BGR.

        Raises:
            UserError: a crop cannot be decoded.
        """
        ...

    def mels(self, clips: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Mel windows of the clips (n,) from each of these rows (n, k): float32 (n, k, 80, 16)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Draws, each an element of these arrays (n,).

    The mel is the ``target``'s, and so are the expert's faces if ``matched``. ``other`` is another
    window of the clip: the expert's faces if not matched, and the generator's reference.
    """

    clips: np.ndarray  # places in the list of clips
    targets: np.ndarray  # frames
    others: np.ndarray  # frames
    matched: np.ndarray  # bool
    lasts: np.ndarray  # the last frames of the clips with a whole window of speech


Draw = Callable[[Sequence[int]], Windows]
Loader = Callable[[Store, Windows], Batch]


class WindowSampler:
    """Draws windows as a pure function of a seed and an item's number.

    The number stands for epoch, place in it and process, see ``Consecutive``: the same items come
    whatever the number of workers and wherever a run is resumed.
    """

    def __init__(self, clips: Sequence[Clip], seed: int) -> None:
        self.seed = seed
        self.count = len(clips)
        self.targets = _Ragged([clip.targets for clip in clips])
        self.windows = _Ragged([clip.windows for clip in clips])
        self.lasts = np.array([last_valid_start(clip.mel_rows) for clip in clips])

    def draw(self, items: Sequence[int]) -> Windows:
        """For each number a random window of a random clip."""
        chance = self._chances(items)
        return self._draw((chance[:, 0] * self.count).astype(np.int64), chance)

    def draw_each(self, items: Sequence[int]) -> Windows:
        """For each number a random window of the clip whose turn it is: all come equally often."""
        return self._draw(np.asarray(items) % self.count, self._chances(items))

    def draw_together(self, items: Sequence[int]) -> Windows:
        """Matched windows, always ``TOGETHER`` different ones of a random clip.

        Args:
            items: as many as make whole groups; a group is a function of all its numbers.
        """
        chance = self._chances(items)
        clips = np.repeat((chance[::TOGETHER, 0] * self.count).astype(np.int64), TOGETHER)
        places = np.empty(len(clips), np.int64)
        for start in range(0, len(clips), TOGETHER):
            left = list(range(self.targets.counts[clips[start]]))
            for item in range(start, start + TOGETHER):
                drawn = int(chance[item, 1] * len(left))
                # Short clips have too few; then one comes twice.
                places[item] = left.pop(drawn) if len(left) > 1 else left[drawn]
        targets = self.targets.at(clips, places)
        return Windows(
            clips=clips,
            targets=targets,
            others=targets,
            matched=np.ones(len(clips), bool),
            lasts=self.lasts[clips],
        )

    def vary(self, items: Sequence[int]) -> Batch:
        """For each number how its pictures are to be varied.

        Returns:
            "mirrored" (n,) bool; "colour" (n, 4) from -1 to 1: more or less of blue, green and
            red, and brighter or darker.
        """
        chance = 2 * self._chances(items, table=1) - 1
        return {
            "mirrored": torch.from_numpy(chance[:, 4] < 0),
            "colour": torch.from_numpy(chance[:, :4].astype(np.float32)),
        }

    def _draw(self, clips: np.ndarray, chance: np.ndarray) -> Windows:
        targets = self.targets.at(clips, (chance[:, 1] * self.targets.counts[clips]).astype(int))
        place = (chance[:, 2] * (self.windows.counts[clips] - 1)).astype(int)
        of_target = [
            np.searchsorted(self.windows.row(clip), target)
            for clip, target in zip(clips.tolist(), targets.tolist(), strict=True)
        ]
        place += place >= of_target  # any but the target
        others = self.windows.at(clips, place)
        return Windows(
            clips=clips,
            targets=targets,
            others=others,
            matched=chance[:, 3] < 0.5,
            lasts=self.lasts[clips],
        )

    def _chances(self, items: Sequence[int], table: int = 0) -> np.ndarray:
        """Numbers in [0, 1) for each item: four of the first table, or five of the second."""
        return np.stack([_chances(self.seed, i // DRAWS, table)[i % DRAWS] for i in items])


@lru_cache(maxsize=64)
def _chances(seed: int, block: int, table: int) -> np.ndarray:
    key, columns = ((seed, block), 4) if table == 0 else ((seed, block, table), 5)
    return np.random.default_rng(key).random((DRAWS, columns))


class _Ragged:
    """Rising numbers of each clip, in one array."""

    def __init__(self, rows: Sequence[np.ndarray]) -> None:
        self.counts = np.array([len(row) for row in rows])
        self.starts = np.cumsum(self.counts) - self.counts
        self.values = np.concatenate(rows).astype(np.int32)  # of 200 hours there are 20 million

    def at(self, clips: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The numbers at these places of these clips."""
        return self.values[self.starts[clips] + places].astype(np.int64)

    def row(self, clip: int) -> np.ndarray:
        """The numbers of a clip."""
        return self.values[self.starts[clip] : self.starts[clip] + self.counts[clip]]


def expert_mels(target: int) -> list[int]:
    """The expert hears one window."""
    return [syncnet_mel_start(target)]


def generator_mels(target: int) -> list[int]:
    """The generator's expert hears one window, and the generator one for each frame."""
    return [syncnet_mel_start(target), *generator_mel_starts(target)] if target >= 1 else []


def expert_batch(store: Store, windows: Windows) -> Batch:
    """What the expert is trained on.

    Returns:
        "mel" (n, 1, 80, 16) float32; "faces" (n, 5, 48, 96, 3) uint8, lower halves; "label" (n,)
        1 or 0.
    """
    starts = np.where(windows.matched, windows.targets, windows.others)
    return {
        "mel": _mels(store, windows, expert_mels),
        "faces": store.faces(windows.clips, starts, lower=True),
        "label": torch.from_numpy(windows.matched.astype(np.float32)),
    }


def expert_trial(store: Store, windows: Windows) -> Batch:
    """What the expert is evaluated on: a batch as in training, and the same speech moved.

    Returns:
        Besides the batch's: "true_faces", those of the speech; "moved" (n, 15, 80, 16), its mel
        and those of up to seven frames earlier and later; "shifts" (n, 15), how many frames.
    """
    frames = np.clip(windows.targets[:, None] + SHIFTS, 0, windows.lasts[:, None])
    rows = np.array([[syncnet_mel_start(frame) for frame in row] for row in frames.tolist()])
    return {
        **expert_batch(store, windows),
        "true_faces": store.faces(windows.clips, windows.targets, lower=True),
        "moved": store.mels(windows.clips, rows),
        "shifts": torch.from_numpy(frames - windows.targets[:, None]),
    }


def generator_batch(store: Store, windows: Windows) -> Batch:
    """What the generator is trained on.

    Returns:
        "mel" (n, 6, 80, 16) float32, the expert's window and then one for each frame;
        "target" and "reference" (n, 5, 96, 96, 3) uint8.
    """
    return {
        "mel": _mels(store, windows, generator_mels),
        "target": store.faces(windows.clips, windows.targets),
        "reference": store.faces(windows.clips, windows.others),
    }


def _mels(store: Store, windows: Windows, mel_rows: MelRows) -> torch.Tensor:
    return store.mels(windows.clips, np.array([mel_rows(t) for t in windows.targets.tolist()]))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a task is trained on: the speech that a target must have, and how batches are made."""

    mel_rows: MelRows
    load: Loader  # in training
    load_trial: Loader  # in evaluation
    draw: Callable[[WindowSampler, Sequence[int]], Windows] = WindowSampler.draw  # in training


EXPERT = Recipe(mel_rows=expert_mels, load=expert_batch, load_trial=expert_trial)
EXPERT_TOGETHER = replace(EXPERT, draw=WindowSampler.draw_together)
GENERATOR = Recipe(mel_rows=generator_mels, load=generator_batch, load_trial=generator_batch)


@dataclass(frozen=True, kw_only=True)
class WindowData:
    """The clips of a list, and where their windows come from."""

    clips: list[Clip]
    store: Store

    @property
    def on_device(self) -> bool:
        """Whether windows are gathered where the networks are."""
        return isinstance(self.store, PackedClips) and self.store.resident

    def workers(self, asked: int | None) -> int:
        """How many processes should load: as asked for, but none for what is on the device."""
        if self.on_device:
            return 0
        if asked is not None:
            return asked
        most = PACKED_WORKERS if isinstance(self.store, PackedClips) else JPEG_WORKERS
        return min(most, share_of_cores())


def open_data(
    config: TrainConfig, name: str, recipe: Recipe, device: Device, world: World
) -> WindowData:
    """The usable clips of a list: packed if there is room for that, else from their files.

    Raises:
        UserError: no usable clip, or the device has no room for what should live on it.
    """
    filelist = config.filelists / name
    with world.main_first():  # computes the mels and packs the crops, for all
        clips = read_clips(config.data_root, filelist, recipe.mel_rows)
        folder = config.cache_dir or config.data_root / ".packed"
        packed = open_packed(
            clips, folder, filelist.stem, limit_gb=config.cache_gb, build=world.is_main
        )
    if config.data_on_device:
        if packed is None:
            raise UserError("--data_on_device: needs the packed crops; give more --cache_gb")
        packed.move(device)
    return WindowData(clips=clips, store=packed or ClipFiles(clips))


class WindowDataset(Dataset[Batch]):
    """Batches by the numbers of their items; any number is valid."""

    def __init__(
        self,
        draw: Draw,
        store: Store,
        load: Loader,
        vary: Callable[[Sequence[int]], Batch] | None = None,
    ) -> None:
        """Combine methods of a WindowSampler with what it draws from, and a Recipe's loader."""
        self.draw = draw
        self.store = store
        self.load = load
        self.vary = vary

    def __getitems__(self, items: Sequence[int]) -> Batch:
        """Load the items with these numbers, as one batch."""
        batch = self.load(self.store, self.draw(items))
        return {**batch, **self.vary(items)} if self.vary else batch


class Consecutive(Sampler[int]):
    """Every ``step``-th number from ``start`` up to ``stop``, or without end."""

    def __init__(self, start: int, stop: int | None = None, step: int = 1) -> None:
        self.start = start
        self.stop = stop
        self.step = step

    def __iter__(self) -> Iterator[int]:
        if self.stop is None:
            return count(self.start, self.step)
        return iter(range(self.start, self.stop, self.step))
