"""The training loop: the same for SyncNet, the generator and the adversarial pair."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from wav2lip_npu import checkpoint
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.data.dataset import WindowDataset, open_data
from wav2lip_npu.data.loader import LOADING_FAILURES, loading_error, open_loader
from wav2lip_npu.data.sampler import StridedSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import distributed
from wav2lip_npu.runtime.device import Device, seed
from wav2lip_npu.runtime.signals import stop_signals
from wav2lip_npu.training.checks import check_data, check_overfit
from wav2lip_npu.training.figures import plot_curves, write_samples
from wav2lip_npu.training.metrics import EMA_PREFIX, MetricsFile, RunningMean, ThroughputMeter
from wav2lip_npu.training.optimization import MAX_SKIPPED_STEPS, learning_rate
from wav2lip_npu.training.tasks import AdversarialTask, GeneratorTask, SyncNetTask, Task
from wav2lip_npu.training.validation import SHEET_TITLES, validate

# What each process reports before a step; the highest of all processes decides.
CONTINUE, TIME_IS_UP, STOP, FAILED = range(4)

log = logging.getLogger(__name__)


def train_syncnet(config: SyncNetConfig) -> None:
    """Train SyncNet until the options say to stop, or a signal does."""
    _train(config, SyncNetTask)


def train_generator(config: GeneratorConfig) -> None:
    """Train the generator, against a discriminator if so configured."""
    _train(config, AdversarialTask if config.disc else GeneratorTask)


def _train(config: TrainConfig, task_class: type[Task]) -> None:
    device = Device.open(config.device, config.precision)
    with distributed.join(device) as world:
        log.info("device: %s (%s)", device.torch_device, device.reason)
        log.info(
            "processes: %d; samples per step: %d",
            world.size, world.size * config.batch_size * config.accumulate,
        )  # fmt: skip
        seed(config.seed)
        Trainer(config, task_class(config, device, world)).run()


class Trainer:
    """Runs a task: batches in, checkpoints, metrics and samples out."""

    def __init__(self, config: TrainConfig, task: Task) -> None:
        """Read the data and, if there is one, the checkpoint to continue from.

        Raises:
            UserError: no usable data, or a checkpoint that does not fit.
        """
        self.config = config
        self.task = task
        self.device, self.world = task.device, task.world
        self.global_batch_size = config.batch_size * self.world.size * config.accumulate
        self.train_data, self.val_data = (
            open_data(config, name, task.batches, self.device, self.world)
            for name in ("train.txt", "val.txt")
        )
        self.metrics = MetricsFile(config.checkpoint_dir)
        self.means = RunningMean()  # since the last line of the log
        self.throughput = ThroughputMeter()
        self.skipped = 0  # steps, because of their gradients
        self.step = 0
        self.samples = 0  # so far: where the run stands in the sequence of samples
        self.best: float | None = None  # score of a validation
        self.published: list[int] = []  # steps of the checkpoints that this training has written
        self.ended: str | None = None  # why, if it is not by a signal
        self._resume()
        self.saved_step = self.step

    def run(self) -> None:
        """Train until the options say to stop, or until Ctrl-C or SIGTERM, which save first.

        Raises:
            UserError: all steps are done already, or a crop, the disk or the gradients failed; the
                steps done by then are saved where that is possible.
            KeyboardInterrupt: stopped by a signal, with everything saved.
        """
        config = self.config
        if config.max_steps is not None and self.step >= config.max_steps:
            raise UserError(f"--max_steps {config.max_steps}: {self.step} steps are done already")
        if self.step == 0 and self.world.is_main:
            check_data(self.train_data, config.seed, config.checkpoint_dir)
            if config.overfit_check:
                check_overfit(type(self.task), config, self.device, self.train_data)
        if status := self.task.status():
            log.info(status)
        bar = tqdm(
            initial=self.step,
            total=config.max_steps,
            unit="step",
            disable=self.world.hide_progress,
        )
        with logging_redirect_tqdm(), bar, stop_signals() as stop:
            try:
                self._train(stop, bar)
            except RuntimeError as error:
                if distributed.is_lost_peer(error) and self.step != self.saved_step:
                    self.save()  # the step that broke off counts as not done
                raise
            except OSError as error:
                last = checkpoint.newest(config.checkpoint_dir)
                raise UserError(f"{error}; the last checkpoint is {last}") from error
            finally:
                self.metrics.close()
        if self.ended is None:
            log.info("stopped at step %d; the same command continues from there", self.step)
            raise KeyboardInterrupt
        log.info("ended at step %d: %s", self.step, self.ended)

    def _train(self, stop: threading.Event, bar: tqdm) -> None:
        config = self.config
        self.peak_flops = self.world.size * self.device.measured_matmul_flops()
        self.throughput.reset(self.step)
        self.task.set_training(True)
        batches = self.device.prefetch(self._train_batches(stop))
        while len(accumulated := [*islice(batches, config.accumulate)]) == config.accumulate:
            self.means.add(self.task.step(*accumulated, number=self.step))
            self.step += 1
            self.samples += self.global_batch_size
            bar.update()
            if self.step == config.max_steps:
                self.ended = "--max_steps"
            if self.ended or self.step % config.log_interval == 0:
                self._log_progress()
            if self.ended or self.step % config.eval_interval == 0:
                self.validate()  # may open the sync gate, which the checkpoint must know
            if self.ended or self.step == 1 or self.step % config.checkpoint_interval == 0:
                self.save()
            if self.ended:
                return
        if self.step != self.throughput.step:
            self._log_progress()
        if self.step != self.saved_step:
            self.save()

    def _train_batches(self, stop: threading.Event) -> Iterator[Batch]:
        """Batches from where the run stands, until a process is told to stop, or the time is up.

        Before each batch the processes exchange their states, so that all of them end at the same
        one, and none waits in it for another that has nothing to train on.

        Raises:
            UserError: the data cannot be loaded, here or by another process; the steps done are
                saved.
        """
        config, data = self.config, self.train_data
        hours = math.inf if config.max_hours is None else config.max_hours
        deadline = time.monotonic() + 3600 * hours
        augment = config.augment_flip or config.augment_colour > 0
        sampler = self.task.batches.sampler_class(data.clips, config.seed, augment=augment)
        batches = iter(
            open_loader(
                WindowDataset(data.store, self.task.batches, sampler),
                StridedSampler(self.samples + self.world.rank, step=self.world.size),
                batch_size=config.batch_size,
                workers=data.workers(config.num_workers),
                pin=self.device.pins_memory and not data.on_device,
            )
        )
        while True:
            batch, failure = None, None
            with self.throughput.waiting():
                try:
                    batch = next(batches)
                except LOADING_FAILURES as error:
                    failure = error
            own = STOP if stop.is_set() else TIME_IS_UP if time.monotonic() > deadline else CONTINUE
            decision = self.world.all_reduce_max(FAILED if failure else own)
            if decision == FAILED:
                if self.step != self.saved_step:
                    self.save()
                self.world.barrier()  # or torchrun ends the first process while it saves
                raise loading_error(failure) from failure
            if decision == STOP:
                log.info("stopping; a second signal stops at once, without saving")
            if decision == TIME_IS_UP:
                self.ended = f"--max_hours {config.max_hours}"
            if batch is None or decision != CONTINUE:
                return
            yield batch

    def _log_progress(self) -> None:
        means = self.world.mean(self.means.pop())  # waits for the device: the time below is true
        means |= self.throughput.summary(
            self.step,
            global_batch_size=self.global_batch_size,
            flops_per_sample=self.task.flops_per_sample(),
            peak_flops=self.peak_flops,
        )
        if (memory := self.device.peak_memory()) is not None:
            means["memory_gib"] = memory / 2**30
        means["learning_rate"] = learning_rate(self.config, self.step - 1)
        self._check_gradients(means)
        self._write_metrics("train", means)
        log.info("step %d: %s", self.step, _format(means))

    def _check_gradients(self, means: dict[str, float]) -> None:
        """Log how many steps were skipped, and end when there is nothing else.

        Raises:
            UserError: too many in a row.
        """
        counts = []
        for trained in self.task.trained.values():
            trained.repair_statistics()
            counts.append(trained.spike_filter.skipped_steps())
        skipped, in_a_row = (max(column) for column in zip(*counts, strict=True))
        if skipped > self.skipped:
            means["skipped"] = skipped
            log.warning(
                "%d steps skipped in all, as their gradients were not finite or far above those "
                "before them",
                skipped,
            )
        self.skipped = skipped
        if in_a_row >= MAX_SKIPPED_STEPS:
            last = checkpoint.newest(self.config.checkpoint_dir)
            raise UserError(
                f"step {self.step}: the last {in_a_row} gradients were not finite or far above "
                f"those before; the last checkpoint is {last}; try a lower --learning_rate, "
                "--clip_grad_norm 1, or --precision fp32"
            )

    def _write_metrics(self, kind: str, values: dict[str, float]) -> None:
        if self.world.is_main:
            self.metrics.write(kind, self.step, values)

    def validate(self) -> dict[str, float]:
        """Compute the metrics of fixed windows of every validation clip, and sample images."""
        self.device.synchronize()  # or the time of the last steps would count as the validation's
        with self.throughput.pause():
            metrics, sheet = validate(self.task, self.val_data, self.config)
            self._write_metrics("eval", metrics)
            log.info("validation at step %d: %s", self.step, _format(metrics))
            if (message := self.task.after_validation(metrics)) is not None:
                log.info(message)
            if self.world.is_main:
                self._write_figures(sheet)
        self._keep_best(metrics)
        return metrics

    def _write_figures(self, sheet: torch.Tensor | None) -> None:
        try:
            if sheet is not None:
                write_samples(self.metrics, self.step, sheet, SHEET_TITLES)
            plot_curves(self.metrics)
        except Exception as error:  # whatever it is, a figure must not end a training
            log.warning("step %d: no new samples or curves (%s)", self.step, error)

    def _keep_best(self, metrics: dict[str, float]) -> None:
        """Save the weights if none were better, and stop if they are as good as asked for."""
        averaged = self.task.trained[""].ema is not None
        name = (EMA_PREFIX if averaged else "") + self.task.score
        score, target = metrics[name], self.config.stop_at_loss
        if math.isfinite(score) and (self.best is None or score < self.best):
            self.best = score
            self.save(best=True)
        if target is not None and score <= target:
            self.ended = f"--stop_at_loss {target}: {name} is {score:.4f}"

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint of every network."""
        if self.step == self.saved_step and self.step in self.published and not best:
            return
        self.saved_step = self.step
        if self.world.is_main:
            with self.throughput.pause():
                self._save(best)

    def _save(self, best: bool) -> None:
        config, folder = self.config, self.config.checkpoint_dir
        if self.step not in self.published:
            self.published.append(self.step)
        common = {
            "items": self.samples,
            "config": {name: _serializable(value) for name, value in asdict(config).items()},
            "best": self.best,
            "published": self.published,
            **self.task.state(),
        }
        epoch = self.samples // len(self.train_data.clips)
        # The one without prefix last: a resumed run looks for it, and finds the others beside it.
        for prefix, trained in reversed(self.task.trained.items()):
            trained.repair_statistics()
            path = folder / (prefix + checkpoint.file_name(self.step))
            extra = {**common, **trained.state()}
            checkpoint.save(
                path, trained.network, trained.optimizer, step=self.step, epoch=epoch, extra=extra
            )
            if best:
                checkpoint.name_best(path, prefix + checkpoint.BEST_NAME)
            log.info("saved %s%s", path, ", the best so far" if best else "")
        self._prune()

    def _prune(self) -> None:
        """Remove the oldest checkpoints of this training; others' in the folder stay."""
        keep = self.config.keep_last
        while keep and len(self.published) > keep:
            name = checkpoint.file_name(self.published.pop(0))
            for prefix in self.task.trained:  # the main one first, or it would be found alone
                (self.config.checkpoint_dir / (prefix + name)).unlink(missing_ok=True)

    def _resume(self) -> None:
        """Load networks, optimizers and position from where the options say, or start afresh."""
        if self.world.is_main:
            checkpoint.remove_partial(self.config.checkpoint_dir)
        main = self._main_checkpoint()
        for prefix, trained in self.task.trained.items():
            source = self._checkpoint_of(prefix, main)
            if source is None:
                log.info("%s: random weights", type(trained.network).__name__)
                continue
            loaded = checkpoint.read(source)
            checkpoint.load_network(trained.network, loaded)
            checkpoint.load_optimizer(trained.optimizer, loaded)
            trained.restore(loaded.extra)
            if not prefix:
                self.step = loaded.global_step
                self.samples = loaded.extra.get("items", self.step * self.global_batch_size)
                self.best = loaded.extra.get("best")
                if self._is_ours(source):
                    self.published = loaded.extra.get("published", [])
                self.task.restore(loaded.extra)
            name = type(trained.network).__name__
            log.info("%s: continues from %s, step %d", name, source, loaded.global_step)
        if self.world.all_reduce_max(self.samples) != -self.world.all_reduce_max(-self.samples):
            raise UserError(
                f"--checkpoint_dir {self.config.checkpoint_dir}: the processes find different "
                "checkpoints there; it must be one folder that all machines see"
            )

    def _main_checkpoint(self) -> Path | None:
        """The newest of our own, so that the same command continues; else the one to start from.

        One of our own that is named is taken whether newest or not.
        """
        given, newest = self.config.checkpoint_path, checkpoint.newest(self.config.checkpoint_dir)
        return given if newest is None or (given and self._is_ours(given)) else newest

    def _checkpoint_of(self, prefix: str, main: Path | None) -> Path | None:
        """The file of the network with this prefix: beside the main one of ours, or as given."""
        if not prefix:
            return main
        given: Path | None = getattr(self.config, f"{prefix}checkpoint_path")
        beside = main and main.with_name(prefix + main.name)
        if beside is None or not beside.is_file():
            return given
        return beside if given is None or self._is_ours(beside) else given

    def _is_ours(self, path: Path) -> bool:
        return path.resolve().parent == self.config.checkpoint_dir.resolve()


def _format(values: dict[str, float]) -> str:
    """Metrics as a line of the log."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _serializable(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
