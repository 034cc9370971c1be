"""The figures of a training: means, similarity of images, throughput, and the file they go to."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import append_lines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
EMA_PREFIX = "ema_"  # of the metrics of averaged weights
# Metrics of speed and memory; not of the weights.
RESOURCE_METRICS = {"samples_per_second", "memory_gib", "data_wait", "mfu", "skipped"}
FORMER_NAMES = {"items_per_second": "samples_per_second", "peak_share": "mfu"}  # before 0.2

SSIM_WINDOW = 7  # pixels, width and height
SSIM_CONSTANTS = (0.01**2, 0.03**2)  # of means and of variances; they keep quotients finite

MAX_STEP = 2**63  # of a line of the file: no step is as large
MAX_VALUE = 1e300  # above, the ticks of an axis cannot be computed
Curves = dict[tuple[str, str], dict[int, float]]  # (metric, "train" or "eval") → step → value

log = logging.getLogger(__name__)


class RunningMean:
    """Mean of named scalars that stay on their device until ``pop``."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}

    def add(self, scalars: dict[str, torch.Tensor]) -> None:
        """Add the scalars of a step or batch, without waiting for the device.

        Those that are not finite are left out.
        """
        for name, value in scalars.items():
            finite = value.isfinite()
            value, counts = torch.where(finite, value, torch.zeros_like(value)), finite.int()
            if name in self._sums:
                value, counts = self._sums[name] + value, self._counts[name] + counts
            self._sums[name], self._counts[name] = value, counts

    def pop(self) -> dict[str, float]:
        """The means so far, NaN where nothing was finite; a new mean begins."""
        counts = {name: int(count) for name, count in self._counts.items()}
        means = {
            name: float(total) / counts[name] if counts[name] else math.nan
            for name, total in self._sums.items()
        }
        self._sums, self._counts = {}, {}
        return means


def similarity(generated: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """How similar images are, as the mean over them.

    Args:
        generated: (B, 3, T, h, w) in [0, 1].
        target: of the same shape.

    Returns:
        "psnr" in dB, at most 100; "ssim", see ``structural_similarity``.
    """
    error = (generated - target).square().mean(dim=(1, 3, 4))
    images = (faces.transpose(1, 2).flatten(0, 1) for faces in (generated, target))
    return {
        "psnr": -10 * error.clamp_min(1e-10).log10().mean(),
        "ssim": torch.tensor(structural_similarity(*images)),
    }


def structural_similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    """SSIM (Wang et al. 2004) with windows of 7 × 7 pixels, all alike in weight, as scikit-image's.

    Variances are differences of large numbers: they are computed in fp64, on the CPU.

    Args:
        one: (n, 3, h, w) in [0, 1]; h and w are 7 or more.
        other: of the same shape.

    Returns:
        The mean over images, channels, and windows that lie inside of the image.
    """
    one, other = (images.detach().cpu().double() for images in (one, other))

    def mean(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values, SSIM_WINDOW, stride=1)

    mean_one, mean_other = mean(one), mean(other)
    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    variance_one = unbiased * (mean(one * one) - mean_one * mean_one)
    variance_other = unbiased * (mean(other * other) - mean_other * mean_other)
    covariance = unbiased * (mean(one * other) - mean_one * mean_other)
    small_mean, small_variance = SSIM_CONSTANTS
    luminance = (2 * mean_one * mean_other + small_mean) / (
        mean_one * mean_one + mean_other * mean_other + small_mean
    )
    structure = (2 * covariance + small_variance) / (variance_one + variance_other + small_variance)
    return float((luminance * structure).mean())


class ThroughputMeter:
    """The speed of training since the last line of the log, without validation and saving."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, step: int) -> None:
        """Start to measure at this step."""
        self._since, self.step = time.monotonic(), step
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While training waits for data."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    @contextmanager
    def pause(self) -> Iterator[None]:
        """While something else than training is done, which does not count."""
        started = time.monotonic()
        yield
        self._since += time.monotonic() - started

    def summary(
        self, step: int, *, global_batch_size: int, flops_per_sample: float, peak_flops: float
    ) -> dict[str, float]:
        """Figures of the steps since ``reset``, which is done again.

        Args:
            step: the current one; all that was asked of the device is done.
            global_batch_size: samples per step, of all processes.
            flops_per_sample: floating-point operations, forward and backward.
            peak_flops: operations per second of all devices, ``Device.measured_matmul_flops``.

        Returns:
            "samples_per_second"; "data_wait", the share of the time in which the host waited for
            data (an upper limit: the device may have had work left); "mfu", model FLOPS
            utilization: the networks' operations per second as a share of ``peak_flops``.
        """
        seconds, steps = time.monotonic() - self._since, step - self.step
        rate = steps * global_batch_size / seconds
        shares = {"data_wait": self._waited / seconds, "mfu": rate * flops_per_sample / peak_flops}
        self.reset(step)
        return {"samples_per_second": rate, **shares}


@contextmanager
def optional(what: str) -> Iterator[None]:
    """What is derived from a training and must not end it: left out with a warning if it fails."""
    try:
        yield
    except Exception as error:
        log.warning("%s: left out (%s)", what, reason(error))


@contextmanager
def silent_tensorboard() -> Iterator[None]:
    """Show no traceback when TensorBoard's thread fails: the next call tells the error."""
    former = threading.excepthook

    def show(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            former(failure)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = former


class MetricsFile:
    """``metrics.jsonl``: a line for each entry of the log and each validation.

    TensorBoard's files, in ``tensorboard`` beside it, have the same, and the samples. What cannot
    be written is left out with a warning.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS
        self._tensorboard: SummaryWriter | None = None
        self._tensorboard_failed = False
        self._warned_of: int | None = None  # lines that are no metrics

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append the ``values`` that are finite; kind is "train" or "eval"."""
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        with optional(f"{self.path}, step {step}"):
            append_lines(self.path, json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._tensorboard_failed:
            return
        with self._tensorboard_errors():
            for name, value in values.items():
                self._open_tensorboard(step).add_scalar(f"{name}/{kind}", value, step)

    def add_image(self, name: str, step: int, image: np.ndarray) -> None:
        """Add an image, uint8 (h, w, 3) BGR, to TensorBoard's files."""
        if self._tensorboard_failed:
            return
        with self._tensorboard_errors():
            tensorboard = self._open_tensorboard(step)
            tensorboard.add_image(name, image[..., ::-1], step, dataformats="HWC")

    def close(self) -> None:
        """Complete TensorBoard's files."""
        with self._tensorboard_errors():
            if self._tensorboard is not None:
                self._tensorboard.close()
        self._tensorboard = None

    @contextmanager
    def _tensorboard_errors(self) -> Iterator[None]:
        """Log that TensorBoard's files cannot be written: once, as each call would fail again."""
        try:
            yield
        except Exception as error:
            log.warning("%s: nothing more is written to it (%s)", TENSORBOARD, reason(error))
            self._tensorboard, self._tensorboard_failed = None, True

    def _open_tensorboard(self, step: int) -> SummaryWriter:
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            # Steps of an earlier run from this one on are done again: their figures go.
            folder = self.path.with_name(TENSORBOARD)
            self._tensorboard = SummaryWriter(str(folder), purge_step=step)
        return self._tensorboard

    def read(self) -> Curves:
        """All curves. Of a step done twice the last counts.

        Lines that are no metrics are left out with a warning: half a line, a foreign file.
        """
        curves: Curves = defaultdict(dict)
        lines, strange = [], 0
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in filter(str.strip, lines):
            if (entry := _parse(line)) is None:
                strange += 1
                continue
            kind, step, values = entry
            for name, value in values.items():
                curves[FORMER_NAMES.get(name, name), kind][step] = value
        if strange and strange != self._warned_of:
            self._warned_of = strange
            log.warning("%s: %d lines are no metrics and are left out", self.path, strange)
        return curves


def _parse(line: str) -> tuple[str, int, dict[str, float]] | None:
    """Kind, step and values of a line, or None if it is no line of ours."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    kind, step = entry.pop("kind", None), entry.pop("step", None)
    if kind not in ("train", "eval") or type(step) is not int or not 0 <= step < MAX_STEP:
        return None
    numbers = {
        name: float(value)
        for name, value in entry.items()
        if type(value) in (int, float) and abs(value) < MAX_VALUE  # not NaN either
    }
    return kind, step, numbers
