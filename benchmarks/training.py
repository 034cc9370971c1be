"""Training steps: ours in fp32 and in the device's own precision, the whole trainer, the original.

Run from the project's root: ``python -m benchmarks.training --help``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import measure, original
from wav2lip_npu import checkpoint
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.data.clips import ClipFiles, read_clips
from wav2lip_npu.errors import UserError
from wav2lip_npu.models import SyncNet
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.training.tasks import GeneratorTask, SyncNetTask, Task
from wav2lip_npu.training.trainer import Trainer

KINDS: dict[str, tuple[type[Task], int]] = {  # and the original's batch size
    "expert": (SyncNetTask, 64),
    "generator": (GeneratorTask, 16),
}
WARMUP_STEPS = 10  # of the whole trainer, which do not count


def configure(kind: str, options: argparse.Namespace, folder: Path, **changes: Any) -> TrainConfig:
    """Ours with default options, but for where it reads and writes."""
    common: dict[str, Any] = {
        "data_root": options.data_root,
        "filelists": options.filelists,
        "checkpoint_dir": folder / "run",
        "cache_dir": folder / "caches",
        "device": options.device,
    }
    if kind == "expert":
        return SyncNetConfig(**{**common, **changes})
    expert = folder / "expert.pth"
    if not expert.exists():
        _save(SyncNet(), expert)
    return GeneratorConfig(**{**common, **changes, "syncnet_checkpoint_path": expert})


def _save(network: torch.nn.Module, path: Path) -> None:
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(path, network, optimizer, step=0, epoch=0, extra={})


def bare_steps(
    kind: str, config: TrainConfig, weights: Path, batch: Batch, steps: int, *, gate: bool
) -> measure.Contender:
    """Steps of a task on one batch, without a trainer around them."""
    device = Device.open(config.device, config.precision)
    task = _task(kind, config, device, gate=gate)
    if weights.exists():
        checkpoint.load_network(task.trained[""].network, checkpoint.read(weights))
    else:
        _save(task.trained[""].network, weights)
    task.set_training(True)
    batch_on_device = device.to_device(batch)

    def run() -> measure.Round:
        device.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            task.step(batch_on_device)
        device.synchronize()
        seconds = time.perf_counter() - start
        rate = steps * config.batch_size / seconds
        mfu = rate * task.flops_per_sample() / device.measured_matmul_flops()
        return measure.Round(seconds=seconds, count=steps * config.batch_size, extra={"mfu": mfu})

    return run


def _task(kind: str, config: TrainConfig, device: Device, *, gate: bool) -> Task:
    task = KINDS[kind][0](config, device)
    if gate and isinstance(task, GeneratorTask):
        task.sync_weight = task.final_sync_weight
    return task


def whole_trainer(kind: str, config: TrainConfig, *, gate: bool) -> measure.Contender:
    """The trainer with data, log and all, from the start of one step to that of its last.

    The first steps do not count: the loading processes are still starting.
    """
    rounds = 0

    def run() -> measure.Round:
        nonlocal rounds
        rounds += 1
        device = Device.open(config.device, config.precision)
        folder = config.checkpoint_dir.with_name(f"run{rounds}")
        task = _task(kind, replace(config, checkpoint_dir=folder), device, gate=gate)
        trainer = Trainer(task.config, task)
        step, started = task.step, []

        def timed_step(*batches: Batch, number: int) -> dict[str, torch.Tensor]:
            device.synchronize()
            started.append(time.perf_counter())
            return step(*batches, number=number)

        # A validation and a checkpoint follow the last step, which is not counted.
        task.step = timed_step  # type: ignore[assignment, method-assign]
        trainer.run()
        counted = started[WARMUP_STEPS:]
        seconds = counted[-1] - counted[0]
        return measure.Round(seconds=seconds, count=(len(counted) - 1) * config.batch_size)

    return run


def compare(kind: str, options: argparse.Namespace, folder: Path) -> None:
    """Measure one task and print its table."""
    task_class, size = KINDS[kind]
    batches = task_class.batches
    filelist = options.filelists / "train.txt"
    clips = read_clips(options.data_root, filelist, per_frame_mels=batches.per_frame_mels)
    windows = batches.sampler_class(clips, 0).sample(range(size))
    batch = batches.training_batch(ClipFiles(clips), windows)
    batch_file, weights = folder / f"{kind}_batch.pt", folder / f"{kind}.pth"
    torch.save(batch, batch_file)
    steps, gate = options.steps, options.gate
    contenders: dict[str, measure.Contender] = {}
    with ExitStack() as stack:
        for precision in ("fp32", "auto"):
            config = configure(kind, options, folder, batch_size=size, precision=precision)
            contenders[f"ours, {precision}"] = bare_steps(
                kind, config, weights, batch, steps, gate=gate
            )
        longer = replace(
            config, max_steps=WARMUP_STEPS + options.trainer_steps + 1, log_interval=10
        )
        contenders["the whole trainer"] = whole_trainer(kind, longer, gate=gate)
        if options.original:
            process = original.start(
                options.original,
                "train",
                threads=options.threads,
                filelists=options.filelists,
                task=kind,
                weights=weights,
                batch=batch_file,
                steps=steps,
                device=options.opened_device.torch_device,
                gate=gate,
            )
            contenders = {"original": stack.enter_context(process), **contenders}
        results = measure.take_turns(contenders, options.rounds)
    print(f"\n{kind}, batches of {size}, {steps} steps per round")
    more: dict[str, Callable[[str, measure.Round], str]] = {
        "s per step": lambda _, result: f"{result.seconds * size / result.count:.3f}",
        "of matmul": lambda _, result: f"{mfu:.0%}" if (mfu := result.extra.get("mfu")) else "",
    }
    measure.print_results(results, "samples/s", 2, more)


def main() -> None:
    """Measure what the command line asks for."""
    parser = measure.data_parser(__doc__, tasks=KINDS, threads=threads.usable_cores())
    add = parser.add_argument
    add("--steps", type=int, default=4, help="steps per round")
    add("--trainer_steps", type=int, default=24, help="steps per round of the whole trainer")
    add("--gate", action="store_true", help="with the sync loss in the generator's")
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    try:
        options.opened_device = Device.open(options.device, "auto")
        options.opened_device.tune_malloc()
        print(measure.describe_machine(options.threads))
        print(
            f"{options.opened_device.torch_device}: {options.opened_device.reason}", file=sys.stderr
        )
        for kind in KINDS if options.task == "both" else (options.task,):
            with TemporaryDirectory() as folder:
                compare(kind, options, Path(folder))
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
