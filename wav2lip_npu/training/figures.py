"""The images that a training leaves: curves, sheets of samples, film strips."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wav2lip_npu.media.images import put_text, read_image
from wav2lip_npu.runtime.files import atomic_write, write_image
from wav2lip_npu.training.metrics import EMA_PREFIX, RESOURCE_METRICS, MetricsFile, optional

CURVES = "curves.png"
FILM_STRIP = "film_strip.png"
SAMPLES_NAME = re.compile(r"samples_step\d{9,}\.png")
TITLE_HEIGHT = 18  # pixels, above a sheet
MAX_STRIP_COLUMNS = 10  # validations in a film strip

log = logging.getLogger(__name__)


def plot_curves(metrics: MetricsFile) -> Path:
    """Plot every metric over the steps, training and validation in one plot each."""
    # Without pyplot: it would look for a screen and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = metrics.read()
    names = sorted({name.removeprefix(EMA_PREFIX) for name, _ in curves} - RESOURCE_METRICS)
    columns = min(3, max(1, len(names)))
    rows = -(-len(names) // columns) or 1
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place, title=name, xlabel="step")
        for key, marker, label in (
            ((name, "train"), "", "train"),
            ((name, "eval"), "o", "eval"),
            ((EMA_PREFIX + name, "eval"), "o", "eval, averaged weights"),
        ):
            if curve := curves.get(key):
                steps = sorted(curve)
                axes.plot(steps, [curve[step] for step in steps], marker=marker, label=label)
        axes.grid(alpha=0.3)
        axes.legend()
    path = metrics.path.with_name(CURVES)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)
    return path


def make_sheet(images: torch.Tensor, titles: tuple[str, ...]) -> np.ndarray:
    """Images side by side, a column for each title.

    Args:
        images: uint8 (rows, columns, h, w, 3) BGR.
        titles: one for each column.

    Returns:
        uint8 (18 + rows · h, columns · w, 3) BGR: the titles, and the images below.
    """
    rows, columns, height, width = images.shape[:4]
    sheet = images.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3).numpy()
    return np.concatenate([_titles(titles, width), sheet])


def _titles(titles: Sequence[str], width: int) -> np.ndarray:
    strip = np.full((TITLE_HEIGHT, len(titles) * width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        corner = (column * width + 4, 13)
        put_text(strip, title, corner, scale=0.42, level=0)
    return strip


def film_strip(folder: Path, sheet: np.ndarray, column: int, columns: int) -> np.ndarray:
    """One column of the sheets of all validations, side by side, and the last sheet's last one.

    Args:
        folder: where the sheets are; those that cannot be read, or of another width, are left out.
        sheet: the last one, (h, w, 3) BGR.
        column: the one to show.
        columns: of a sheet.

    Returns:
        uint8 BGR; of more than ten validations, ten from the first to the last.
    """
    paths = sorted(path for path in folder.iterdir() if SAMPLES_NAME.fullmatch(path.name))
    chosen = np.unique(np.linspace(0, len(paths) - 1, MAX_STRIP_COLUMNS).astype(int))
    sheets: list[tuple[int, np.ndarray]] = []
    for path in (paths[number] for number in chosen):
        with optional(str(path)):
            sheets.append((int(path.stem[-9:]), read_image(path)))
    sheets = [(step, one) for step, one in sheets if one.shape[1] == sheet.shape[1]]
    height = min(len(one) for one in (sheet, *(one for _, one in sheets)))
    width = sheet.shape[1] // columns
    part = np.s_[TITLE_HEIGHT:height, column * width : (column + 1) * width]
    strips = [*(one[part] for _, one in sheets), sheet[TITLE_HEIGHT:height, -width:]]
    titles = [*(f"step {step}" for step, _ in sheets), "target"]
    return np.concatenate([_titles(titles, width), np.concatenate(strips, axis=1)])


def write_samples(
    metrics: MetricsFile, step: int, images: torch.Tensor, titles: tuple[str, ...]
) -> None:
    """Write a sheet of samples and the film strip of all sheets, and show the sheet in TensorBoard.

    Args:
        metrics: tells the folder.
        step: of the validation.
        images: uint8 (rows, columns, h, w, 3) BGR.
        titles: one for each column; the third is the generated one.
    """
    folder, sheet = metrics.path.parent, make_sheet(images, titles)
    path = folder / f"samples_step{step:09d}.png"
    with optional(str(path)):
        write_image(path, sheet)
        log.info("samples: %s", path)
    with optional(FILM_STRIP):
        write_image(folder / FILM_STRIP, film_strip(folder, sheet, 2, len(titles)))
    metrics.add_image("samples", step, sheet)
