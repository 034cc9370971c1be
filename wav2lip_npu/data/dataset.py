"""The clips of a file list as a data set, and where its windows are read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.batches import Batch, BatchMaker, Store
from wav2lip_npu.data.clips import Clip, ClipFiles, read_clips
from wav2lip_npu.data.memmap import MemmapClips, open_memmap
from wav2lip_npu.data.sampler import WindowSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import World
from wav2lip_npu.runtime.threads import share_of_cores

MEMMAP_WORKERS = 2  # each gathers thousands of samples per second
MAX_JPEG_WORKERS = 16  # each decodes hundreds


@dataclass(frozen=True, kw_only=True)
class ClipData:
    """The clips of a list, and where their windows are read from."""

    clips: list[Clip]
    store: Store

    @property
    def on_device(self) -> bool:
        """Whether windows are gathered in the memory of the networks' device."""
        return isinstance(self.store, MemmapClips) and self.store.on_device

    def workers(self, wanted: int | None) -> int:
        """How many processes load: as wanted, but none for what is on the device."""
        if self.on_device:
            return 0
        if wanted is not None:
            return wanted
        most = MEMMAP_WORKERS if isinstance(self.store, MemmapClips) else MAX_JPEG_WORKERS
        return min(most, share_of_cores())


def open_data(
    config: TrainConfig, name: str, batches: BatchMaker, device: Device, world: World
) -> ClipData:
    """The usable clips of a list: from the memmap cache if there is room for it, else from files.

    Raises:
        UserError: no usable clip, or the device has no room for what should be kept on it.
    """
    filelist = config.filelists / name
    with world.main_first():  # computes the mels and fills the cache, for all
        clips = read_clips(config.data_root, filelist, per_frame_mels=batches.per_frame_mels)
        folder = config.cache_dir or config.data_root / ".packed"
        cache = open_memmap(
            clips, folder, filelist.stem, limit_gb=config.cache_gb, build=world.is_main
        )
    if config.data_on_device:
        if cache is None:
            raise UserError("--data_on_device: needs the memmap cache; give more --cache_gb")
        cache.move(device)
    return ClipData(clips=clips, store=cache or ClipFiles(clips))


class WindowDataset(Dataset[Batch]):
    """Batches by the indices of their samples; any index is valid."""

    def __init__(self, store: Store, batches: BatchMaker, sampler: WindowSampler) -> None:
        self.store = store
        self.batches = batches
        self.sampler = sampler

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The samples with these indices, as one batch."""
        return self.batches.training_batch(self.store, self.sampler.sample(indices))


class ValidationDataset(WindowDataset):
    """The same with what only validation needs."""

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The samples with these indices, as one batch."""
        return self.batches.validation_batch(self.store, self.sampler.sample(indices))
