"""Whether networks learn at all: a copy of them must learn one batch by heart."""

from __future__ import annotations

import logging
from dataclasses import replace

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.sampler import WindowData, WindowSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device, seed
from wav2lip_npu.training.tasks import Task

WINDOWS = 8
STEPS = 100
RATE = 1e-3  # Adam's; ten times the usual, as there is one batch
FALLS = 0.5  # the loss must fall to this share of what it was at first

log = logging.getLogger(__name__)


def check_overfit(kind: type[Task], config: TrainConfig, device: Device, data: WindowData) -> None:
    """Train fresh networks on eight windows, and forget them.

    Raises:
        UserError: their loss does not fall by half.
    """
    random = device.random_state()
    seed(config.seed)
    plain = replace(
        config,
        learning_rate=RATE,
        warmup_steps=0,
        schedule="constant",
        accumulate=1,
        ema=None,
        augment_flip=False,
        augment_colour=0.0,
        compile=False,
    )
    task = kind(plain, device)
    windows = task.recipe.draw(WindowSampler(data.clips, config.seed), range(WINDOWS))
    batch = device.to_device(task.recipe.load(data.store, windows))
    task.set_training(True)
    losses = [float(task.step(batch)[task.learned]) for _ in range(STEPS)]
    device.set_random_state(random)
    first, last = losses[0], min(losses[-10:])
    if not last < FALLS * first:
        raise UserError(
            f"--overfit_check: {STEPS} steps on {WINDOWS} windows took the loss from {first:.3f} "
            f"to {last:.3f} only; it should fall by half. The arithmetic is at fault (try "
            "--precision fp32 and --device cpu), or the pictures are all alike: see data_check.png"
        )
    log.info("overfit check: %d steps on %d windows: %.3f → %.3f", STEPS, WINDOWS, first, last)
