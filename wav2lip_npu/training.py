"""The training loop: the same for the expert, the generator and the adversarial pair."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
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

from wav2lip_npu import checkpoint, device
from wav2lip_npu.config import ExpertConfig, GeneratorConfig, TrainConfig
from wav2lip_npu.data import Consecutive, Item, WindowDataset, WindowSampler, read_clips
from wav2lip_npu.errors import UserError
from wav2lip_npu.metrics import Mean, MetricsFile, plot_curves, save_sheet
from wav2lip_npu.tasks import AdversarialTask, Batch, ExpertTask, GeneratorTask, Task

EVAL_SEED = 20_200_823  # evaluations draw the same windows in every run, whatever --seed says
SHEET_ROWS = 8  # windows on a sheet of samples
SHEET_TITLES = ("reference", "masked", "generated", "target")

log = logging.getLogger(__name__)


def train_expert(config: ExpertConfig) -> None:
    """Train the lip-sync expert until ``max_steps`` or an interruption."""
    place = _prepare(config)
    Trainer(config, ExpertTask(config, place), place).run()


def train_generator(config: GeneratorConfig) -> None:
    """Train the generator, against a discriminator if so configured."""
    place = _prepare(config)
    task = AdversarialTask if config.disc else GeneratorTask
    Trainer(config, task(config, place), place).run()


def _prepare(config: TrainConfig) -> device.Device:
    place = device.Device.open(config.device, config.precision)
    log.info("device: %s (%s)", place.torch_device, place.reason)
    device.seed(config.seed)
    return place


class Trainer:
    """Runs a task: batches in, checkpoints, metrics and samples out."""

    def __init__(self, config: TrainConfig, task: Task, place: device.Device) -> None:
        """Read the data and, if there is one, the checkpoint to continue from.

        Raises:
            UserError: no usable data, or a checkpoint that does not fit.
        """
        self.config = config
        self.task = task
        self.place = place
        self.train_clips, self.val_clips = (
            read_clips(config.data_root, config.filelists / name, task.recipe.mel_rows)
            for name in ("train.txt", "val.txt")
        )
        self.metrics = MetricsFile(config.checkpoint_dir)
        self.means = Mean()  # since the last line of the log, which came
        self.logged_at, self.logged_step = time.monotonic(), 0
        self.step = 0
        self.items = 0  # seen in training: the position in the sequence of draws
        self.saved_step: int | None = None
        self._resume()

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
        bar = tqdm(initial=self.step, total=config.max_steps, unit="step", disable=None)
        with logging_redirect_tqdm(), bar, stop_signals() as stop:
            self.logged_at, self.logged_step = time.monotonic(), self.step
            self.task.set_training(True)
            for batch in self._train_batches():
                self.means.add(self.task.step(self.place.put(batch)))
                self.step += 1
                self.items += config.batch_size
                bar.update()
                last = self.step == config.max_steps or stop.is_set()
                if last or self.step % config.log_interval == 0:
                    self._log_progress()
                if self.step == config.max_steps or self.step % config.eval_interval == 0:
                    self.evaluate()  # may open a gate, which the checkpoint must know
                if last or self.step == 1 or self.step % config.checkpoint_interval == 0:
                    self.save()
                if last:
                    break
        if stop.is_set():
            log.info("stopped at step %d; the same command continues from there", self.step)
            raise KeyboardInterrupt

    def _train_batches(self) -> Iterator[Batch]:
        """Batches without end, from where the run stands."""
        sampler = WindowSampler(self.train_clips, self.config.seed)
        dataset = WindowDataset(sampler.window, self.task.recipe.load)
        try:
            yield from self._load(dataset, Consecutive(self.items))
        except (UserError, RuntimeError) as error:
            if self.step != self.saved_step:
                self.save()
            if not isinstance(error, UserError):
                raise UserError(
                    f"loading failed ({error}); with less memory: --num_workers 0"
                ) from error
            # From a worker it comes with a traceback above the message.
            message = str(error).strip().splitlines()[-1]
            raise UserError(message.rpartition("UserError: ")[2]) from error

    def _load(self, dataset: WindowDataset, numbers: Consecutive) -> DataLoader[Item]:
        """Full batches only: some devices compile anew for every shape."""
        return DataLoader(
            dataset,
            batch_size=self.config.batch_size,
            sampler=numbers,
            num_workers=self.config.num_workers,
            pin_memory=self.place.pins_memory,
            drop_last=True,
            worker_init_fn=_start_worker,
            multiprocessing_context=_clean_processes() if self.config.num_workers else None,
        )

    def _log_progress(self) -> None:
        means = self.means.take()  # waits for the device, so the time below is true
        now = time.monotonic()
        steps = self.step - self.logged_step
        means["items_per_second"] = steps * self.config.batch_size / (now - self.logged_at)
        self.logged_at, self.logged_step = now, self.step
        self.metrics.write("train", self.step, means)
        log.info("step %d: %s", self.step, _spelled(means))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Judge the networks on fixed windows of every validation clip, and draw samples."""
        started = time.monotonic()
        batch_size = self.config.batch_size
        wanted = len(self.val_clips) * self.config.eval_windows
        full = -(-wanted // batch_size) * batch_size  # whole batches; windows come anew each turn
        sampler = WindowSampler(self.val_clips, EVAL_SEED)
        dataset = WindowDataset(sampler.window_of_each, self.task.recipe.load)
        self.task.set_training(False)
        means, sheet = Mean(), None
        for batch in self._load(dataset, Consecutive(0, full)):
            batch = self.place.put(batch)
            means.add(self.task.evaluate(batch))
            if sheet is None:
                sheet = self.task.draw({name: part[:SHEET_ROWS] for name, part in batch.items()})
        self.task.set_training(True)
        evaluation = means.take()
        self.metrics.write("eval", self.step, evaluation)
        log.info("evaluation at step %d (%d windows): %s", self.step, full, _spelled(evaluation))
        if (news := self.task.conclude(evaluation)) is not None:
            log.info(news)
        if sheet is not None:
            path = self.config.checkpoint_dir / f"samples_step{self.step:09d}.png"
            save_sheet(path, sheet, SHEET_TITLES)
            log.info("samples: %s", path)
        plot_curves(self.metrics)
        self.logged_at += time.monotonic() - started  # the log counts training time only
        return evaluation

    def save(self) -> None:
        """Write a checkpoint of every network; the one without prefix last, as it is looked for."""
        epoch = self.items // len(self.train_clips)
        extra = {"items": self.items, **self.task.state()}
        for prefix, trained in reversed(self.task.trained.items()):
            path = self.config.checkpoint_dir / (prefix + checkpoint.file_name(self.step))
            checkpoint.save(
                path, trained.network, trained.optimizer, step=self.step, epoch=epoch, extra=extra
            )
            log.info("saved %s", path)
        self.saved_step = self.step

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
                self.items = loaded.extra.get("items", self.step * self.config.batch_size)
                self.task.restore(loaded.extra)
            name = type(trained.network).__name__
            log.info("%s: continues from %s, step %d", name, source, loaded.global_step)

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


def _start_worker(number: int) -> None:
    """A loader's process: one thread, and out of reach of signals to the group.

    Those are for the loop to answer. A signal to the process itself still ends it, which is how
    Python clears away what is left at exit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    cv2.setNumThreads(1)


def _spelled(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
