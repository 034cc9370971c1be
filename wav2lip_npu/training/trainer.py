"""The training loop: the same for the expert, the generator and the adversarial pair."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from wav2lip_npu import checkpoint
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.data.loader import load, one_line
from wav2lip_npu.data.sampler import (
    Batch,
    Consecutive,
    WindowDataset,
    WindowSampler,
    open_data,
)
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import distributed
from wav2lip_npu.runtime.device import Device, seed
from wav2lip_npu.runtime.signals import stop_signals
from wav2lip_npu.training.checks import check_data
from wav2lip_npu.training.metrics import (
    AVERAGED,
    Mean,
    MetricsFile,
    film_strip,
    plot_curves,
    sheet_of,
)
from wav2lip_npu.training.optimization import TOO_MANY, learning_rate
from wav2lip_npu.training.overfit import check_overfit
from wav2lip_npu.training.pace import Pace
from wav2lip_npu.training.tasks import AdversarialTask, GeneratorTask, SyncNetTask, Task
from wav2lip_npu.training.validation import SHEET_TITLES, judge

GO, TIME_IS_UP, STOP, FAILED = range(4)  # what a process says before a step; the gravest counts

log = logging.getLogger(__name__)


def train_syncnet(config: SyncNetConfig) -> None:
    """Train the lip-sync expert until the options say to stop, or an interruption."""
    _train(config, SyncNetTask)


def train_generator(config: GeneratorConfig) -> None:
    """Train the generator, against a discriminator if so configured."""
    _train(config, AdversarialTask if config.disc else GeneratorTask)


def _train(config: TrainConfig, kind: type[Task]) -> None:
    device = Device.open(config.device, config.precision)
    device.tune_malloc()
    with distributed.join(device) as world:
        log.info("device: %s (%s)", device.torch_device, device.reason)
        log.info(
            "processes: %d; items a step: %d",
            world.size, world.size * config.batch_size * config.accumulate,
        )  # fmt: skip
        seed(config.seed)
        Trainer(config, kind(config, device, world)).run()


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
        self.batch_size = config.batch_size * self.world.size  # over all processes
        self.step_size = self.batch_size * config.accumulate  # items of a step
        self.train_data, self.val_data = (
            open_data(config, name, task.recipe, self.device, self.world)
            for name in ("train.txt", "val.txt")
        )
        self.metrics = MetricsFile(config.checkpoint_dir)
        self.means = Mean()  # since the last line of the log, which came
        self.pace = Pace()
        self.skipped = 0  # steps, because of their gradient
        self.step = 0
        self.items = 0  # seen in training: the position in the sequence of draws
        self.best: float | None = None  # score of an evaluation
        self.published: list[int] = []  # steps of the checkpoints that this training has written
        self.ended: str | None = None  # why, if it is no interruption
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
        self.peak = self.world.size * self.device.measured_matmul_flops()
        self.pace.begin(self.step)
        self.task.set_training(True)
        batches = self.device.prefetch(self._train_batches(stop))
        while (gathered := [*islice(batches, config.accumulate)])[config.accumulate - 1 :]:
            self.means.add(self.task.step(*gathered, number=self.step))
            self.step += 1
            self.items += self.step_size
            bar.update()
            if self.step == config.max_steps:
                self.ended = "--max_steps"
            if self.ended or self.step % config.log_interval == 0:
                self._log_progress()
            if self.ended or self.step % config.eval_interval == 0:
                self.evaluate()  # may open a gate, which the checkpoint must know
            if self.ended or self.step == 1 or self.step % config.checkpoint_interval == 0:
                self.save()
            if self.ended:
                return
        if self.step != self.pace.step:
            self._log_progress()
        if self.step != self.saved_step:
            self.save()

    def _train_batches(self, stop: threading.Event) -> Iterator[Batch]:
        """Batches from where the run stands, until a process is told to stop, or the time is up.

        Before each the processes hear from one another, so that all of them end at the same one,
        and none waits in it for another that has nothing to train on.

        Raises:
            UserError: the data cannot be loaded, here or by another process; the steps done are
                saved.
        """
        hours = self.config.max_hours
        deadline = math.inf if hours is None else time.monotonic() + 3600 * hours
        sampler = WindowSampler(self.train_data.clips, self.config.seed)
        recipe = self.task.recipe
        dataset = WindowDataset(
            partial(recipe.draw, sampler),
            self.train_data.store,
            recipe.load,
            self._variation(sampler),
        )
        numbers = Consecutive(self.items + self.world.rank, step=self.world.size)
        batches = iter(
            load(
                dataset,
                numbers,
                batch_size=self.config.batch_size,
                workers=self.train_data.workers(self.config.num_workers),
                pin=self.device.pins_memory and not self.train_data.on_device,
            )
        )
        while True:
            batch, failure = None, None
            with self.pace.waiting():
                try:
                    batch = next(batches)
                except (UserError, RuntimeError) as error:
                    failure = error
            own = STOP if stop.is_set() else TIME_IS_UP if time.monotonic() > deadline else GO
            verdict = self.world.all_reduce_max(FAILED if failure else own)
            if verdict == FAILED:
                if self.step != self.saved_step:
                    self.save()
                self.world.barrier()  # or torchrun ends the first one while it saves
                raise one_line(failure) from failure
            if verdict == STOP:
                log.info("stopping; a second signal stops at once, without saving")
            if verdict == TIME_IS_UP:
                self.ended = f"--max_hours {hours}"
            if batch is None or verdict != GO:
                return
            yield batch

    def _variation(self, sampler: WindowSampler) -> Callable[[Sequence[int]], Batch] | None:
        varies = self.config.augment_flip or self.config.augment_colour > 0
        return sampler.vary if varies else None

    def _log_progress(self) -> None:
        means = self.world.mean(self.means.take())  # waits for the device: the time below is true
        means |= self.pace.take(
            self.step, items=self.step_size, work=self.task.work(), peak=self.peak
        )
        if (memory := self.device.peak_memory()) is not None:
            means["memory_gib"] = memory / 2**30
        means["learning_rate"] = learning_rate(self.config, self.step - 1)
        self._check_gradients(means)
        self._write("train", means)
        log.info("step %d: %s", self.step, spelled(means))

    def _check_gradients(self, means: dict[str, float]) -> None:
        """Say how many steps were skipped, and end when there is nothing else.

        Raises:
            UserError: too many in a row.
        """
        counts = [learner.check() for learner in self.task.trained.values()]
        skipped, in_a_row = (max(column) for column in zip(*counts, strict=True))
        if skipped > self.skipped:
            means["skipped"] = skipped
            log.warning(
                "%d steps skipped in all, as their gradients were not finite or far above those "
                "before them",
                skipped,
            )
        self.skipped = skipped
        if in_a_row >= TOO_MANY:
            last = checkpoint.newest(self.config.checkpoint_dir)
            raise UserError(
                f"step {self.step}: the last {in_a_row} gradients were not finite or far above "
                f"those before; the last checkpoint is {last}; try a lower --learning_rate, "
                "--clip_grad_norm 1, or --precision fp32"
            )

    def _write(self, kind: str, values: dict[str, float]) -> None:
        if self.world.is_main:
            self.metrics.write(kind, self.step, values)

    def evaluate(self) -> dict[str, float]:
        """Judge the networks on fixed windows of every validation clip, and draw samples."""
        self.device.synchronize()  # or the time of the last steps would count as the evaluation's
        with self.pace.standstill():
            evaluation, sheet = judge(self.task, self.val_data, self.config)
            self._write("eval", evaluation)
            log.info("evaluation at step %d: %s", self.step, spelled(evaluation))
            if (news := self.task.conclude(evaluation)) is not None:
                log.info(news)
            if self.world.is_main:
                self._picture(sheet)
        self._rate(evaluation)
        return evaluation

    def _rate(self, evaluation: dict[str, float]) -> None:
        """Keep the weights if none were better, and stop if they are as good as asked for."""
        averaged = self.task.trained[""].average is not None
        name = (AVERAGED if averaged else "") + self.task.score
        score, target = evaluation[name], self.config.stop_at_loss
        if math.isfinite(score) and (self.best is None or score < self.best):
            self.best = score
            self.save(best=True)
        if target is not None and score <= target:
            self.ended = f"--stop_at_loss {target}: {name} is {score:.4f}"

    def _picture(self, sheet: torch.Tensor | None) -> None:
        if sheet is not None:
            folder = self.config.checkpoint_dir
            path = folder / f"samples_step{self.step:09d}.png"
            picture = sheet_of(sheet, SHEET_TITLES)
            cv2.imwrite(str(path), picture)
            strip = film_strip(folder, "samples_step*.png", 2, len(SHEET_TITLES))
            cv2.imwrite(str(folder / "film_strip.png"), strip)
            self.metrics.show("samples", self.step, picture)
            log.info("samples: %s", path)
        plot_curves(self.metrics)

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint of every network; the one without prefix last, as it is looked for."""
        if self.step == self.saved_step and self.step in self.published and not best:
            return
        self.saved_step = self.step
        if self.world.is_main:
            with self.pace.standstill():
                self._save(best)

    def _save(self, best: bool) -> None:
        config, folder = self.config, self.config.checkpoint_dir
        if self.step not in self.published:
            self.published.append(self.step)
        common = {
            "items": self.items,
            "random": self.device.random_state(),
            "config": {name: _plain(value) for name, value in asdict(config).items()},
            "best": self.best,
            "published": self.published,
            **self.task.state(),
        }
        epoch = self.items // len(self.train_data.clips)
        for prefix, learner in reversed(self.task.trained.items()):
            learner.check()
            path = folder / (prefix + checkpoint.file_name(self.step))
            extra = {**common, **learner.state()}
            checkpoint.save(
                path, learner.network, learner.optimizer, step=self.step, epoch=epoch, extra=extra
            )
            if best:
                checkpoint.name_best(path, prefix + checkpoint.BEST)
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
        """Load networks, optimisers and position from where the options say, or start afresh."""
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
                self.items = loaded.extra.get("items", self.step * self.step_size)
                self.best = loaded.extra.get("best")
                if self._is_ours(source):
                    self.published = loaded.extra.get("published", [])
                self.device.set_random_state(loaded.extra.get("random", {}))
                self.task.restore(loaded.extra)
            name = type(trained.network).__name__
            log.info("%s: continues from %s, step %d", name, source, loaded.global_step)
        if self.world.all_reduce_max(self.items) != -self.world.all_reduce_max(-self.items):
            raise UserError(
                f"--checkpoint_dir {self.config.checkpoint_dir}: the processes find different "
                "checkpoints there; it must be one folder that all machines see"
            )

    def _main_checkpoint(self) -> Path | None:
        """The newest of our own, so that the same command continues; else the one to start from.

        One of our own that is asked for by name is taken whether newest or not.
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


def spelled(values: dict[str, float]) -> str:
    """Figures for the log."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
