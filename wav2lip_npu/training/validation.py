"""What the networks are worth: on the same windows of every validation clip, each time."""

from __future__ import annotations

import torch

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.loader import load
from wav2lip_npu.data.sampler import Consecutive, WindowData, WindowDataset, WindowSampler
from wav2lip_npu.training.metrics import AVERAGED, Mean
from wav2lip_npu.training.tasks import Task

EVAL_SEED = 20_200_823  # the same windows in every run, whatever --seed says
SHEET_ROWS = 8  # windows on a sheet of samples
SHEET_TITLES = ("reference", "masked", "generated", "target")


@torch.no_grad()
def judge(
    task: Task, data: WindowData, config: TrainConfig
) -> tuple[dict[str, float], torch.Tensor | None]:
    """Evaluate a task's networks, and draw samples.

    Args:
        task: its networks are in training mode, and are so again afterwards.
        data: the validation clips, each of which gets ``--eval_windows``.
        config: the options.

    Returns:
        The means over all windows of all processes, also of averaged weights if there are any; and
        what ``Task.draw`` makes of the first windows, in the first process, by the average.
    """
    batch_size = config.batch_size * task.world.size
    wanted = len(data.clips) * config.eval_windows
    full = -(-wanted // batch_size) * batch_size  # whole batches; windows come anew each turn
    sampler = WindowSampler(data.clips, EVAL_SEED)
    dataset = WindowDataset(sampler.draw_each, data.store, task.recipe.load_trial)
    batches = load(
        dataset,
        Consecutive(task.world.rank, full, task.world.size),
        batch_size=config.batch_size,
        workers=data.workers(config.num_workers),
        pin=task.device.pins_memory and not data.on_device,
    )
    task.set_training(False)
    main = task.trained[""]
    for learner in task.trained.values():
        learner.check()
        for network in learner.networks():
            task.world.broadcast_buffers(network)
    means, sheet = Mean(), None
    for batch in batches:
        batch = task.device.to_device(batch)
        few = {name: part[:SHEET_ROWS] for name, part in batch.items()}
        wanted_sheet = sheet is None and task.world.is_main
        means.add(task.evaluate(batch))
        if main.average is None:
            sheet = task.draw(few) if wanted_sheet else sheet
            continue
        with main.averaged():
            averaged = task.evaluate(batch)
            sheet = task.draw(few) if wanted_sheet else sheet
        means.add({AVERAGED + name: value for name, value in averaged.items()})
    task.set_training(True)
    return task.world.mean(means.take()), sheet
