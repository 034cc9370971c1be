"""Validation on a fixed set of windows of every validation clip."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.data.dataset import ClipData, ValidationDataset
from wav2lip_npu.data.loader import LOADING_FAILURES, loading_error, open_loader
from wav2lip_npu.data.sampler import RoundRobinSampler, StridedSampler
from wav2lip_npu.training.metrics import EMA_PREFIX, RunningMean, optional
from wav2lip_npu.training.tasks import Task

VALIDATION_SEED = 20_200_823  # the same windows in every run, whatever --seed says
MAX_SHEET_ROWS = 8  # windows on a sheet of samples
SHEET_TITLES = ("reference", "masked", "generated", "target")


@torch.no_grad()
def validate(
    task: Task, data: ClipData, config: TrainConfig
) -> tuple[dict[str, float], torch.Tensor | None]:
    """Compute a task's metrics, and sample images.

    Args:
        task: its networks are in training mode, and are so again afterwards.
        data: the validation clips, each of which gets ``--eval_windows``.
        config: the options.

    Returns:
        The means over all windows of all processes, also of averaged weights if there are any; and
        what ``Task.sample_images`` makes of the first windows, in the first process, with the
        averaged weights if there are any.
    """
    global_batch_size = config.batch_size * task.world.size
    windows = len(data.clips) * config.eval_windows
    # Whole batches only; the clips come round again until the last is full.
    windows = -(-windows // global_batch_size) * global_batch_size
    batches = open_loader(
        ValidationDataset(data.store, task.batches, RoundRobinSampler(data.clips, VALIDATION_SEED)),
        StridedSampler(task.world.rank, windows, task.world.size),
        batch_size=config.batch_size,
        workers=data.workers(config.num_workers),
        pin_options={} if data.on_device else task.device.pin_options,
    )
    task.set_training(False)
    main = task.trained[""]
    for trained in task.trained.values():
        trained.repair_statistics()
        for network in trained.networks():
            task.world.broadcast_buffers(network)
    means, sheet = RunningMean(), None
    for batch in _loaded(batches):
        batch = task.device.to_device(batch)
        first_rows = {name: part[:MAX_SHEET_ROWS] for name, part in batch.items()}
        needs_sheet = sheet is None and task.world.is_main
        means.add(task.validation_metrics(batch))
        if main.ema is None:
            sheet = _sample_images(task, first_rows) if needs_sheet else sheet
            continue
        with main.use_ema():
            averaged = task.validation_metrics(batch)
            sheet = _sample_images(task, first_rows) if needs_sheet else sheet
        means.add({EMA_PREFIX + name: value for name, value in averaged.items()})
    task.set_training(True)
    return task.world.mean(means.pop()), sheet


def _loaded(batches: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches.

    Raises:
        UserError: they cannot be loaded.
    """
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator, None)
        except (*LOADING_FAILURES, OSError) as error:
            raise loading_error(error) from error
        if batch is None:
            return
        yield batch


def _sample_images(task: Task, batch: Batch) -> torch.Tensor | None:
    images = None
    with optional("samples"):
        images = task.sample_images(batch)
    return images
