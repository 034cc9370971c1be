"""What a training leaves to be looked at: a file of metrics, curves, and sheets of samples."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from wav2lip_npu.media.video_reader import read_image

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"
CURVES = "curves.png"
BOARD = "tensorboard"
AVERAGED = "ema_"  # before the names of what averaged weights are worth
HEADER = 18  # pixels above a sheet, for the titles
STRIP = 10  # evaluations in a film strip
NOT_PLOTTED = {"items_per_second", "memory_gib", "data_wait", "mfu", "skipped"}


class Mean:
    """Mean of named scalars that stay on their device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}

    def add(self, scalars: dict[str, torch.Tensor]) -> None:
        """Take in one step's or batch's scalars, without waiting for the device.

        What is not finite is left out.
        """
        for name, value in scalars.items():
            finite = value.isfinite()
            value, counts = torch.where(finite, value, torch.zeros_like(value)), finite.int()
            if name in self._sums:
                value, counts = self._sums[name] + value, self._counts[name] + counts
            self._sums[name], self._counts[name] = value, counts

    def take(self) -> dict[str, float]:
        """The means so far, NaN where nothing was finite; a new mean begins."""
        counts = {name: int(count) for name, count in self._counts.items()}
        means = {
            name: float(total) / counts[name] if counts[name] else math.nan
            for name, total in self._sums.items()
        }
        self.__init__()  # type: ignore[misc]
        return means


def likeness(drawn: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """How alike pictures are, as the mean over them.

    Args:
        drawn: (B, 3, T, h, w) in [0, 1].
        target: of the same shape.

    Returns:
        "psnr" in dB, at most 100; "ssim", scikit-image's with its windows of 7 × 7 pixels.
    """
    from skimage.metrics import structural_similarity

    error = (drawn - target).square().mean(dim=(1, 3, 4))
    pictures = (
        faces.detach().permute(0, 2, 3, 4, 1).flatten(0, 1).cpu().numpy()
        for faces in (drawn, target)
    )
    similar = [
        structural_similarity(one, other, channel_axis=-1, data_range=1.0)
        for one, other in zip(*pictures, strict=True)
    ]
    return {
        "psnr": -10 * error.clamp_min(1e-10).log10().mean(),
        "ssim": torch.tensor(np.mean(similar), dtype=torch.float32),
    }


class MetricsFile:
    """``metrics.jsonl``: a line for each entry of the log and each evaluation.

    TensorBoard's files, in ``tensorboard`` beside it, have the same, and the samples.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS
        self._board: SummaryWriter | None = None

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append the ``values`` that are finite; kind is "train" or "eval"."""
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps({"kind": kind, "step": step, **values}), file=file)
        board = self._open_board(step)
        for name, value in values.items():
            board.add_scalar(f"{name}/{kind}", value, step)

    def show(self, name: str, step: int, picture: np.ndarray) -> None:
        """Add a picture, uint8 (h, w, 3) BGR, to TensorBoard's files."""
        self._open_board(step).add_image(name, picture[..., ::-1], step, dataformats="HWC")

    def close(self) -> None:
        """Write what TensorBoard's files still lack."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _open_board(self, step: int) -> SummaryWriter:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier run did from this step on, it did in vain.
            folder = self.path.with_name(BOARD)
            self._board = SummaryWriter(str(folder), purge_step=step)
        return self._board

    def read(self) -> dict[tuple[str, str], dict[int, float]]:
        """All curves: (metric, kind) → step → value. Steps done twice count as done last."""
        curves: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                kind, step = entry.pop("kind"), entry.pop("step")
                for name, value in entry.items():
                    curves[name, kind][step] = value
        return curves


def plot_curves(metrics: MetricsFile) -> Path:
    """Draw every metric over the steps, training and evaluation in one plot each."""
    # Without pyplot: it would look for a screen and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = metrics.read()
    names = sorted({name.removeprefix(AVERAGED) for name, _ in curves} - NOT_PLOTTED)
    columns = min(3, max(1, len(names)))
    rows = -(-len(names) // columns) or 1
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place, title=name, xlabel="step")
        for key, marker, label in (
            ((name, "train"), "", "train"),
            ((name, "eval"), "o", "eval"),
            ((AVERAGED + name, "eval"), "o", "eval, averaged weights"),
        ):
            if curve := curves.get(key):
                steps = sorted(curve)
                axes.plot(steps, [curve[step] for step in steps], marker=marker, label=label)
        axes.grid(alpha=0.3)
        axes.legend()
    path = metrics.path.with_name(CURVES)
    partial = path.with_name(f".{CURVES}.{os.getpid()}.png")
    figure.savefig(partial, dpi=110)
    partial.replace(path)
    return path


def sheet_of(pictures: torch.Tensor, titles: tuple[str, ...]) -> np.ndarray:
    """Pictures side by side, a column for each title.

    Args:
        pictures: uint8 (rows, columns, h, w, 3) BGR.
        titles: one for each column.

    Returns:
        uint8 (18 + rows · h, columns · w, 3) BGR: the titles, and the pictures below.
    """
    rows, columns, height, width = pictures.shape[:4]
    sheet = pictures.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3).numpy()
    return np.concatenate([_header(titles, width), sheet])


def _header(titles: Sequence[str], width: int) -> np.ndarray:
    header = np.full((HEADER, len(titles) * width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        place = (column * width + 4, 13)
        cv2.putText(header, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return header


def film_strip(folder: Path, samples: str, column: int, columns: int) -> np.ndarray:
    """One column of the sheets of all evaluations, side by side, and the last sheet's last one.

    Args:
        folder: where the sheets are.
        samples: pattern of their names, which sort by step and end with it.
        column: the one to show.
        columns: of a sheet.

    Returns:
        uint8 BGR; of more than ten evaluations, ten from the first to the last.
    """
    paths = sorted(folder.glob(samples))
    shown = [paths[n] for n in np.unique(np.linspace(0, len(paths) - 1, STRIP).astype(int))]
    sheets = [read_image(path) for path in shown]
    height = min(len(sheet) for sheet in sheets)
    width = sheets[0].shape[1] // columns
    strips = [sheet[HEADER:height, column * width : (column + 1) * width] for sheet in sheets]
    strips.append(sheets[-1][HEADER:height, -width:])
    titles = [f"step {int(path.stem[-9:])}" for path in shown]
    return np.concatenate([_header([*titles, "target"], width), np.concatenate(strips, axis=1)])
