"""``--profile``: a trace of some training steps, for TensorBoard, Perfetto or MindStudio."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.runtime.device import Device

FOLDER = "profile"  # in --checkpoint_dir
STEPS_BEFORE = 10  # the first ones allocate memory and choose kernels

log = logging.getLogger(__name__)


def profiled(
    batches: Iterator[Batch], config: TrainConfig, device: Device
) -> Generator[Batch, None, None]:
    """The batches; what is done with some of them is recorded, if the options say so.

    A batch is done when the next one is asked for, or when this is closed.
    """
    if config.profile is None:
        yield from batches
        return
    folder = config.checkpoint_dir / FOLDER
    before, recorded = (n * config.accumulate for n in (STEPS_BEFORE, config.profile))
    with device.profiler(folder, skip=before, steps=recorded) as profiler:
        for number, batch in enumerate(batches, start=1):
            yield batch
            profiler.step()
            if number == before + recorded:
                log.info("%s: a trace of the last %d steps", folder, config.profile)
