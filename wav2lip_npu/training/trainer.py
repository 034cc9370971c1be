"""The training loop: the same for SyncNet, the generator and the adversarial pair."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice

from wav2lip_npu import checkpoint
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.console.progress import Progress
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.data.dataset import WindowDataset, open_data, warn_of_shared_clips
from wav2lip_npu.data.loader import LOADING_FAILURES, loading_error, open_loader
from wav2lip_npu.data.sampler import StridedSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.run_options import options_path, write_options
from wav2lip_npu.runtime import distributed
from wav2lip_npu.runtime.device import Device, seed
from wav2lip_npu.runtime.failures import is_out_of_memory, reason, remedy
from wav2lip_npu.runtime.files import WriteError
from wav2lip_npu.runtime.locks import folder_lock
from wav2lip_npu.runtime.signals import stop_signals
from wav2lip_npu.training import resume
from wav2lip_npu.training.checks import check_data, check_overfit
from wav2lip_npu.training.figures import CURVES, plot_curves, write_samples
from wav2lip_npu.training.metrics import (
    EMA_PREFIX,
    MetricsFile,
    RunningMean,
    ThroughputMeter,
    optional,
    silent_tensorboard,
)
from wav2lip_npu.training.optimization import MAX_SKIPPED_STEPS, learning_rate
from wav2lip_npu.training.profiling import profiled
from wav2lip_npu.training.saving import CheckpointFiles, remove_partial
from wav2lip_npu.training.tasks import AdversarialTask, GeneratorTask, SyncNetTask, Task
from wav2lip_npu.training.validation import SHEET_TITLES, validate

# What each process reports before a step; the highest of all processes decides.
CONTINUE, TIME_IS_UP, STOP, FAILED = range(4)
# Seconds in which a signal may follow the failure that it causes: one to the whole process group,
# or to all processes of a container, can end a loader before it is seen here.
SIGNAL_DELAY = 1.0

log = logging.getLogger(__name__)


def train_syncnet(config: SyncNetConfig) -> None:
    """Train SyncNet until the options say to stop, or a signal does."""
    _train(config, SyncNetTask)


def train_generator(config: GeneratorConfig) -> None:
    """Train the generator, against a discriminator if so configured."""
    _train(config, AdversarialTask if config.disc else GeneratorTask)


def _train(config: TrainConfig, task_class: type[Task]) -> None:
    resume.check_names(config)
    device = Device.open(config.device, config.precision, strict_fp32=config.strict_fp32)
    device.expect_fixed_shapes()
    if config.compile:
        device.require_compiler()
    with distributed.join(device) as world, ExitStack() as stack:
        if world.is_main:
            stack.enter_context(folder_lock(config.checkpoint_dir, "a training"))
        log.info("device: %s (%s)", device.torch_device, device.reason)
        log.info(
            "processes: %d; samples per step: %d",
            world.size, world.size * config.batch_size * config.accumulate,
        )  # fmt: skip
        seed(config.seed)
        trainer = Trainer(config, task_class(config, device, world))
        write_options(options_path(config.checkpoint_dir, config), config)
        trainer.run()


class Trainer:
    """Runs a task: batches in, checkpoints, metrics and samples out."""

    def __init__(self, config: TrainConfig, task: Task) -> None:
        """Read the checkpoint to begin with, if there is one, and the data.

        Raises:
            UserError: no usable data, or a checkpoint that does not fit.
        """
        self.config = config
        self.task = task
        self.device, self.world = task.device, task.world
        self.global_batch_size = config.batch_size * self.world.size * config.accumulate
        start = resume.find_start(config, task)  # before the data, which can take hours
        self.train_data, self.val_data = (
            open_data(config, name, task.batches, self.device, self.world) for name in resume.LISTS
        )
        if self.world.is_main:
            warn_of_shared_clips(self.train_data, self.val_data)
            remove_partial(config.checkpoint_dir)
        averaged = task.trained[""].ema is not None
        self.metric = (EMA_PREFIX if averaged else "") + task.score  # which the best is found by
        self.metrics = MetricsFile(config.checkpoint_dir)
        self.means = RunningMean()  # since the last line of the log
        self.throughput = ThroughputMeter()
        self.skipped = 0  # steps, because of their gradients
        self.step = 0
        self.samples = 0  # so far: where the run stands in the sequence of samples
        self.best: float | None = None  # value of the metric
        self.ended: str | None = None  # why, if it is not by a signal
        self.files = CheckpointFiles(config, self.metric, clips=len(self.train_data.clips))
        resume.load(start, task, reset_optimizer=config.reset_optimizer)
        if start.main is not None:
            self._take_position(start.main)
        self._check_agreement()
        self.saved_step = self.step

    def _take_position(self, resumed: checkpoint.Checkpoint) -> None:
        """Go on where a checkpoint of this training was saved."""
        extra = resumed.extra
        self.step = resumed.global_step
        items = extra.get("items", self.step * self.global_batch_size)
        self.samples = checkpoint.count(items)
        self.best = resume.best_score(extra, self.metric, self.task)
        self.files.published = resume.published_steps(extra)
        self.files.best_is_ours = self.best is not None

    def _check_agreement(self) -> None:
        """Raise a UserError if the processes have not begun at the same place."""
        if self.world.all_reduce_max(self.samples) != -self.world.all_reduce_max(-self.samples):
            raise UserError(
                f"--checkpoint_dir {self.config.checkpoint_dir}: the processes find different "
                "checkpoints there; it must be one folder that all machines see"
            )

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
            with optional("data check"):
                check_data(self.train_data, config)
            if config.overfit_check:
                check_overfit(type(self.task), config, self.device, self.train_data)
        if status := self.task.status():
            log.info(status)
        progress = Progress(
            config.command,
            "step",
            config.max_steps,
            initial=self.step,
            shown=self.world.is_main,
        )
        with silent_tensorboard(), progress, stop_signals() as stop:
            try:
                self._train(stop, progress)
            except Exception as error:
                self._end_early(error, stop)
            finally:
                self.metrics.close()
        if self.ended is None:
            log.info("stopped at step %d; the same command continues from there", self.step)
            raise KeyboardInterrupt
        log.info("ended at step %d: %s", self.step, self.ended)

    def _end_early(self, error: Exception, stop: threading.Event) -> None:
        """Save the steps done before an error; return only if a signal is its cause.

        The step that broke off counts as not done.

        Raises:
            UserError: what the error was, and where that is known what to do.
        """
        is_lost_peer = isinstance(error, RuntimeError) and distributed.is_lost_peer(error)
        is_write_error = isinstance(error, WriteError)
        if self.step != self.saved_step and not is_write_error:
            try:
                self.save()
            except (WriteError, RuntimeError) as failed:  # RuntimeError: the card does not answer
                log.warning("the last steps are not saved: %s", reason(failed))
                is_write_error = isinstance(failed, WriteError)
        follows_signal = is_lost_peer or isinstance(error, UserError)
        if follows_signal and not is_write_error and stop.wait(SIGNAL_DELAY):
            return
        last = self._last_checkpoint()
        if is_out_of_memory(error):
            raise UserError(
                f"step {self.step}: out of memory; {last}; try a smaller "
                "--batch_size (--accumulate keeps the samples per step), or --precision auto"
            ) from error
        if isinstance(error, (WriteError, OSError)):
            raise UserError(f"{reason(error)}; {last}") from error
        if advice := remedy(error):
            raise UserError(f"step {self.step}: {reason(error)}; {advice}; {last}") from error
        raise error

    def _train(self, stop: threading.Event, progress: Progress) -> None:
        config = self.config
        self.peak_flops = self.world.size * self.device.measured_matmul_flops()
        self.throughput.reset(self.step)
        self.task.set_training(True)
        batches = self.device.prefetch(self._train_batches(stop))
        with closing(profiled(batches, config, self.device)) as batches:
            self._train_on(batches, progress)
        if self.step != self.throughput.step:
            self._log_progress()
        if self.step != self.saved_step:
            self.save()

    def _train_on(self, batches: Iterator[Batch], progress: Progress) -> None:
        """Take steps until the batches end or the options say to stop."""
        config = self.config
        while len(accumulated := [*islice(batches, config.accumulate)]) == config.accumulate:
            self.means.add(self.task.step(*accumulated, number=self.step))
            self.step += 1
            self.samples += self.global_batch_size
            progress.update()
            if self.step == config.max_steps:
                self.ended = "--max_steps"
            if self.ended or self.step % config.log_interval == 0:
                self._log_progress()
            if self.ended or self.step % config.eval_interval == 0:
                self.validate()  # may open the sync gate, which the checkpoint must know
            if self.ended:
                self.save()
                return
            if self.step == 1 or self.step % config.checkpoint_interval == 0:
                self._try_to_save()

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
        sampler_class = self.task.batches.sampler_class
        sampler = sampler_class(data.clips, config.seed, augment=config.augments)
        batches = iter(
            open_loader(
                WindowDataset(data.store, self.task.batches, sampler),
                StridedSampler(self.samples + self.world.rank, step=self.world.size),
                batch_size=config.batch_size,
                workers=data.workers(config.num_workers),
                pin_options={} if data.on_device else self.device.pin_options,
            )
        )
        while True:
            batch, failure = None, None
            with self.throughput.waiting():
                try:
                    batch = next(batches)
                except (*LOADING_FAILURES, OSError) as error:
                    failure = error
            if failure is not None and stop.wait(SIGNAL_DELAY):
                failure = None  # the signal has ended a loader too
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
            raise UserError(
                f"step {self.step}: the last {in_a_row} gradients were not finite or far above "
                f"those before; {self._last_checkpoint()}; try a lower --learning_rate, "
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
                if sheet is not None:
                    with optional(f"samples of step {self.step}"):
                        write_samples(self.metrics, self.step, sheet, SHEET_TITLES)
                with optional(CURVES):
                    plot_curves(self.metrics)
        self._keep_best(metrics)
        return metrics

    def _keep_best(self, metrics: dict[str, float]) -> None:
        """Save the weights if none were better, and stop if they are as good as asked for."""
        score, target = metrics[self.metric], self.config.stop_at_loss
        if math.isfinite(score) and (self.best is None or score < self.best):
            former, self.best = self.best, score
            if not (self._try_to_save(best=True) and self._name_best()):
                self.best = former  # so that the next one that is better gets the name
        if target is not None and score <= target:
            self.ended = f"--stop_at_loss {target}: {self.metric} is {score:.4f}"

    def _name_best(self) -> bool:
        return not self.world.is_main or self.files.name_best(self.task, self.step)

    def _try_to_save(self, *, best: bool = False) -> bool:
        """Write a checkpoint; whether that was possible. If not, training goes on with a warning.

        Raises:
            WriteError: it cannot be written, nor was any before.
        """
        try:
            self.save(best=best)
        except WriteError as error:
            if checkpoint.newest(self.config.checkpoint_dir) is None:
                raise
            log.warning("%s; the training goes on; %s", error, self._last_checkpoint())
            return False
        return True

    def _last_checkpoint(self) -> str:
        """What a message says of it."""
        last = checkpoint.newest(self.config.checkpoint_dir)
        return "there is no checkpoint yet" if last is None else f"the last checkpoint is {last}"

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint of every network.

        Raises:
            WriteError: it cannot be written; earlier ones stay as they were.
        """
        if self.step == self.saved_step and self.step in self.files.published and not best:
            return
        if self.world.is_main:
            with self.throughput.pause():
                self.files.save(self.task, step=self.step, samples=self.samples, best=self.best)
        self.saved_step = self.step


def _format(values: dict[str, float]) -> str:
    """Metrics as a line of the log."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
