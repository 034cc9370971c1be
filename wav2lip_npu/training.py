"""The training loop: the same for the expert, the generator and the adversarial pair."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from wav2lip_npu import checkpoint, distributed
from wav2lip_npu.config import ExpertConfig, GeneratorConfig, TrainConfig
from wav2lip_npu.data import (
    Batch,
    Consecutive,
    WindowData,
    WindowDataset,
    Windows,
    WindowSampler,
    open_data,
)
from wav2lip_npu.device import Device, seed
from wav2lip_npu.errors import UserError
from wav2lip_npu.metrics import Mean, MetricsFile, plot_curves, save_sheet
from wav2lip_npu.tasks import AdversarialTask, ExpertTask, GeneratorTask, Task

EVAL_SEED = 20_200_823  # evaluations draw the same windows in every run, whatever --seed says
GO, STOP, FAILED = range(3)  # what a process says before a step; the gravest counts
SHEET_ROWS = 8  # windows on a sheet of samples
SHEET_TITLES = ("reference", "masked", "generated", "target")

log = logging.getLogger(__name__)

Draw = Callable[[Sequence[int]], Windows]


def train_expert(config: ExpertConfig) -> None:
    """Train the lip-sync expert until ``max_steps`` or an interruption."""
    _train(config, ExpertTask)


def train_generator(config: GeneratorConfig) -> None:
    """Train the generator, against a discriminator if so configured."""
    _train(config, AdversarialTask if config.disc else GeneratorTask)


def _train(config: TrainConfig, kind: type[Task]) -> None:
    device = Device.open(config.device, config.precision)
    with distributed.join(device) as world:
        log.info("device: %s (%s)", device.torch_device, device.reason)
        log.info("processes: %d; items a step: %d", world.size, world.size * config.batch_size)
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
        self.batch_size = config.batch_size * self.world.size  # of a step, over all processes
        self.train_data, self.val_data = (
            open_data(config, name, task.recipe, self.device, self.world)
            for name in ("train.txt", "val.txt")
        )
        self.metrics = MetricsFile(config.checkpoint_dir)
        self.means = Mean()  # since the last line of the log, which came
        self.logged_at, self.logged_step = time.monotonic(), 0
        self.step = 0
        self.items = 0  # seen in training: the position in the sequence of draws
        self._resume()
        self.saved_step = self.step

    def run(self) -> None:
        """Train until ``max_steps``, or until Ctrl-C or SIGTERM, which save before they stop.

        Raises:
            UserError: all steps are done already, or a crop or the disk failed; the steps done by
                then are saved where that is possible.
            KeyboardInterrupt: stopped by a signal, with everything saved.
        """
        config = self.config
        if config.max_steps is not None and self.step >= config.max_steps:
            raise UserError(f"--max_steps {config.max_steps}: {self.step} steps are done already")
        if status := self.task.status():
            log.info(status)
        bar = tqdm(
            initial=self.step,
            total=config.max_steps,
            unit="step",
            disable=self.world.hides_progress,
        )
        with logging_redirect_tqdm(), bar, stop_signals() as stop:
            try:
                self._train(stop, bar)
            except RuntimeError as error:
                if distributed.lost_a_peer(error) and self.step != self.saved_step:
                    self.save()  # the step that broke off counts as not done
                raise
        if self.step != config.max_steps:
            log.info("stopped at step %d; the same command continues from there", self.step)
            raise KeyboardInterrupt

    def _train(self, stop: threading.Event, bar: tqdm) -> None:
        config = self.config
        self.logged_at, self.logged_step = time.monotonic(), self.step
        self.task.set_training(True)
        for batch in self._train_batches(stop):
            self.means.add(self.task.step(self.device.put(batch)))
            self.step += 1
            self.items += self.batch_size
            bar.update()
            last = self.step == config.max_steps
            if last or self.step % config.log_interval == 0:
                self._log_progress()
            if last or self.step % config.eval_interval == 0:
                self.evaluate()  # may open a gate, which the checkpoint must know
            if last or self.step == 1 or self.step % config.checkpoint_interval == 0:
                self.save()
            if last:
                return
        if self.step != self.logged_step:
            self._log_progress()
        if self.step != self.saved_step:
            self.save()

    def _train_batches(self, stop: threading.Event) -> Iterator[Batch]:
        """Batches from where the run stands, until a process is told to stop.

        Before each step the processes hear from one another, so that all of them end at the same
        one, and none waits in it for another that has nothing to train on.

        Raises:
            UserError: the data cannot be loaded, here or by another process; the steps done are
                saved.
        """
        sampler = WindowSampler(self.train_data.clips, self.config.seed)
        numbers = Consecutive(self.items + self.world.rank, step=self.world.size)
        batches = iter(self._load(self.train_data, sampler.draw, numbers))
        while True:
            batch, failure = None, None
            try:
                batch = next(batches)
            except (UserError, RuntimeError) as error:
                failure = error
            verdict = self.world.highest(FAILED if failure else STOP if stop.is_set() else GO)
            if verdict == FAILED:
                if self.step != self.saved_step:
                    self.save()
                self.world.wait_for_all()  # or torchrun ends the first one while it saves
                raise _one_line(failure) from failure
            if batch is None or verdict == STOP:
                return
            yield batch

    def _load(self, data: WindowData, draw: Draw, numbers: Consecutive) -> DataLoader[Batch]:
        """Full batches only: some devices compile anew for every shape."""
        workers = data.workers(self.config.num_workers)
        return DataLoader(
            WindowDataset(draw, data.store, self.task.recipe),
            batch_size=self.config.batch_size,
            sampler=numbers,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.pins_memory and not data.on_device,
            drop_last=True,
            generator=torch.Generator(),  # leaves the global one, which a resumed run gets back
            worker_init_fn=_start_worker,
            multiprocessing_context=_clean_processes() if workers else None,
        )

    def _log_progress(self) -> None:
        means = self.world.mean(self.means.take())  # waits for the device: the time below is true
        now = time.monotonic()
        steps = self.step - self.logged_step
        means["items_per_second"] = steps * self.batch_size / (now - self.logged_at)
        if (memory := self.device.peak_memory()) is not None:
            means["memory_gib"] = memory / 2**30
        self.logged_at, self.logged_step = now, self.step
        self._write("train", means)
        log.info("step %d: %s", self.step, _spelled(means))

    def _write(self, kind: str, values: dict[str, float]) -> None:
        if self.world.leads:
            self.metrics.write(kind, self.step, values)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Judge the networks on fixed windows of every validation clip, and draw samples."""
        self.device.synchronize()  # or the time of the last steps would count as the evaluation's
        started = time.monotonic()
        wanted = len(self.val_data.clips) * self.config.eval_windows
        # Whole batches; windows come anew each turn.
        full = -(-wanted // self.batch_size) * self.batch_size
        sampler = WindowSampler(self.val_data.clips, EVAL_SEED)
        numbers = Consecutive(self.world.rank, full, self.world.size)
        self.task.set_training(False)
        for trained in self.task.trained.values():
            self.world.share_buffers(trained.network)
        means, sheet = Mean(), None
        for batch in self._load(self.val_data, sampler.draw_each, numbers):
            batch = self.device.put(batch)
            means.add(self.task.evaluate(batch))
            if sheet is None and self.world.leads:
                sheet = self.task.draw({name: part[:SHEET_ROWS] for name, part in batch.items()})
        self.task.set_training(True)
        evaluation = self.world.mean(means.take())
        self._write("eval", evaluation)
        log.info("evaluation at step %d (%d windows): %s", self.step, full, _spelled(evaluation))
        if (news := self.task.conclude(evaluation)) is not None:
            log.info(news)
        if self.world.leads:
            self._picture(sheet)
        self.logged_at += time.monotonic() - started  # the log counts training time only
        return evaluation

    def _picture(self, sheet: torch.Tensor | None) -> None:
        if sheet is not None:
            path = self.config.checkpoint_dir / f"samples_step{self.step:09d}.png"
            save_sheet(path, sheet, SHEET_TITLES)
            log.info("samples: %s", path)
        plot_curves(self.metrics)

    def save(self) -> None:
        """Write a checkpoint of every network; the one without prefix last, as it is looked for."""
        self.saved_step = self.step
        if not self.world.leads:
            return
        epoch = self.items // len(self.train_data.clips)
        random = self.device.random_state()
        extra = {"items": self.items, "random": random, **self.task.state()}
        for prefix, trained in reversed(self.task.trained.items()):
            path = self.config.checkpoint_dir / (prefix + checkpoint.file_name(self.step))
            checkpoint.save(
                path, trained.network, trained.optimizer, step=self.step, epoch=epoch, extra=extra
            )
            log.info("saved %s", path)

    def _resume(self) -> None:
        """Load networks, optimisers and position from where the options say, or start afresh."""
        main = self._main_checkpoint()
        for prefix, trained in self.task.trained.items():
            source = self._checkpoint_of(prefix, main)
            if source is None:
                log.info("%s: random weights", type(trained.network).__name__)
                continue
            loaded = checkpoint.read(source)
            checkpoint.load_network(trained.network, loaded)
            checkpoint.load_optimizer(trained.optimizer, loaded)
            if not prefix:
                self.step = loaded.global_step
                self.items = loaded.extra.get("items", self.step * self.batch_size)
                self.device.set_random_state(loaded.extra.get("random", {}))
                self.task.restore(loaded.extra)
            name = type(trained.network).__name__
            log.info("%s: continues from %s, step %d", name, source, loaded.global_step)
        if self.world.highest(self.items) != -self.world.highest(-self.items):
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


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, for the loop to see; a second one stops at once."""
    requested = threading.Event()
    former: dict[int, Any] = {}

    def give_back() -> None:
        while former:
            signal.signal(*former.popitem())

    def note(number: int, frame: FrameType | None) -> None:
        requested.set()
        give_back()
        log.info("stopping after this step; once more stops at once, unsaved")

    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows none
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, note)
    try:
        yield requested
    finally:
        give_back()


def _clean_processes() -> BaseContext:
    """How loader processes are started: forked from a process that has done nothing yet.

    A fork of this one would inherit an open accelerator, and the locks of threads (OpenCV's, the
    decoders') that do not exist in it, which it then waits for.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wav2lip_npu.data"])  # imports torch once, not in each
    return context


def _as_it_is(batch: Any) -> Any:
    """A batch is loaded as a whole."""
    return batch


def _start_worker(number: int) -> None:
    distributed.follow_parent()
    cv2.setNumThreads(1)


def _one_line(failure: UserError | RuntimeError | None) -> UserError:
    """What to tell a user when batches cannot be loaded."""
    if failure is None:
        return UserError("stopped, as another process of this run failed")
    if not isinstance(failure, UserError):
        return UserError(f"loading failed ({failure}); with less memory: --num_workers 0")
    # From a worker it comes with a traceback above the message.
    message = str(failure).strip().splitlines()[-1]
    return UserError(message.rpartition("UserError: ")[2])


def _spelled(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
