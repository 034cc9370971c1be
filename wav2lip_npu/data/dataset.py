"""The clips of a file list as a data set, and where its windows are read from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.batches import Batch, BatchMaker, Store
from wav2lip_npu.data.clips import Clip, ClipFiles, UnreadableSamples, read_clips
from wav2lip_npu.data.memmap import MemmapClips, open_memmap
from wav2lip_npu.data.sampler import Windows, WindowSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import World
from wav2lip_npu.runtime.locks import first_alone
from wav2lip_npu.runtime.threads import share_of_cores

MEMMAP_WORKERS = 2  # each gathers thousands of samples per second
MAX_JPEG_WORKERS = 16  # each decodes hundreds
MAX_RESAMPLES = 20  # other samples that are tried for one that cannot be read
RESAMPLED_INDEX_OFFSET = 2**40  # above every index of a training
MAX_LOGGED_CLIPS = 5  # that are in both lists

log = logging.getLogger(__name__)


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

    The first process of each machine, or of all that share the cache's folder, computes the mels
    and builds the cache; the others wait for it, as long as it takes.

    Raises:
        UserError: no usable clip, or the device has no room for what should be kept on it.
    """
    filelist = config.filelists / name
    folder = config.cache_dir or config.data_root / ".packed"
    with first_alone(folder) as is_first:
        clips = read_clips(config.data_root, filelist, per_frame_mels=batches.per_frame_mels)
        cache = open_memmap(clips, folder, filelist.stem, limit_gb=config.cache_gb, build=is_first)
    world.wait_for_all()
    if config.data_on_device:
        if cache is None:
            raise UserError("--data_on_device: needs the memmap cache; give more --cache_gb")
        cache.move(device)
    return ClipData(clips=clips, store=cache or ClipFiles(clips))


def warn_of_shared_clips(train: ClipData, val: ClipData) -> None:
    """Log a warning if clips are trained on and validated with: the losses would tell nothing."""
    trained = {clip.folder.resolve() for clip in train.clips}
    shared = [clip.folder.name for clip in val.clips if clip.folder.resolve() in trained]
    if shared:
        log.warning(
            "%d of %d clips to validate with are also trained on, so a low loss proves little: "
            "%s%s", len(shared), len(val.clips), ", ".join(shared[:MAX_LOGGED_CLIPS]),
            ", …" if len(shared) > MAX_LOGGED_CLIPS else "",
        )  # fmt: skip


class WindowDataset(Dataset[Batch]):
    """Batches by the indices of their samples; any index is valid."""

    def __init__(self, store: Store, batches: BatchMaker, sampler: WindowSampler) -> None:
        self.store = store
        self.batches = batches
        self.sampler = sampler
        self._logged: set[str] = set()

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The samples with these indices, as one batch.

        A sample that cannot be read is left out, for one of another index that follows from its
        own: so the batch is the same in every run. Each fault is logged once by each process.

        Raises:
            UserError: hardly anything can be read.
        """
        indices, group_size = [*indices], self.sampler.group_size
        for _ in range(MAX_RESAMPLES):
            try:
                return self._batch(self.sampler.sample(indices))
            except UnreadableSamples as error:
                self._log(error)
                unreadable = {place // group_size for place in error.faults}
                for place in range(len(indices)):
                    if place // group_size in unreadable:
                        indices[place] += RESAMPLED_INDEX_OFFSET
                fault = next(iter(error.faults.values()))
        raise UserError(f"{MAX_RESAMPLES} samples in a row cannot be read; one of them: {fault}")

    def _batch(self, windows: Windows) -> Batch:
        return self.batches.training_batch(self.store, windows)

    def _log(self, error: UnreadableSamples) -> None:
        for fault in set(error.faults.values()) - self._logged:
            self._logged.add(fault)
            log.warning("left out: the samples with %s", fault)


class ValidationDataset(WindowDataset):
    """The same with what only validation needs."""

    def _batch(self, windows: Windows) -> Batch:
        return self.batches.validation_batch(self.store, windows)
