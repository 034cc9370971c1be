"""The images that a training leaves: curves, sheets of samples, film strips."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wav2lip_npu.media.charts import new_panels, write_chart
from wav2lip_npu.media.images import put_text, read_image
from wav2lip_npu.runtime.files import write_image
from wav2lip_npu.training.metrics import (
    EMA_PREFIX,
    RESOURCE_METRICS,
    Curves,
    MetricsFile,
    optional,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"
FILM_STRIP = "film_strip.png"
SAMPLES_NAME = re.compile(r"samples_step(\d{9,})\.png")
TITLE_HEIGHT = 18  # pixels, above a sheet
MAX_STRIP_COLUMNS = 10  # validations in a film strip
EXACT_METRIC = "learning_rate"  # no measurement: never smoothed
LEGEND_KEY_WIDTH = 0.6  # inches, of the line before a label
LETTER_WIDTH = 0.08  # inches, about

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CurveKind:
    """One of the curves that a metric can have."""

    label: str
    prefix: str  # of the metric's name
    source: str  # "train" or "eval"
    colour: str  # where only one training is shown
    style: Mapping[str, Any]  # of matplotlib's line

    def key(self, metric: str) -> tuple[str, str]:
        """Its key in ``Curves``."""
        return self.prefix + metric, self.source


_POINTS = {"marker": "o", "markersize": 4}  # few, and far between
CURVE_KINDS = (
    CurveKind("train", "", "train", "C0", {"linewidth": 0.9}),
    CurveKind("eval", "", "eval", "C1", _POINTS),
    CurveKind("eval, averaged weights", EMA_PREFIX, "eval", "C2", {**_POINTS, "linestyle": "--"}),
)


def plot_curves(metrics: MetricsFile) -> Path:
    """Plot every metric of a training over the steps, into its folder."""
    path = metrics.path.with_name(CURVES)
    write_chart(path, draw_curves([("", metrics.read())]))
    return path


def draw_curves(
    runs: Sequence[tuple[str, Curves]], names: Sequence[str] | None = None, *, smooth: float = 0.0
) -> Figure:
    """Draw the curves of one or several trainings, a panel for each metric.

    Of one training each kind of curve has a colour; of several each training has one.

    Args:
        runs: label and curves of each training.
        names: metrics to show; None shows all but those of speed and memory.
        smooth: weight of ``smoothed`` for what is measured in training steps; 0 is not at all.
    """
    names = metric_names(curves for _, curves in runs) if names is None else names
    figure, panels = new_panels(len(names), width=4.5, height=3)
    several, colours = len(runs) > 1, _colours(len(runs))
    for name, axes in zip(names, panels, strict=True):
        axes.set(title=name, xlabel="step")
        for (_, curves), colour in zip(runs, colours, strict=True):
            for kind in CURVE_KINDS:
                if curve := curves.get(kind.key(name)):
                    style = {**kind.style, "color": colour if several else kind.colour}
                    is_noisy = kind.source == "train" and name != EXACT_METRIC
                    _draw_curve(axes, curve, style, smooth if is_noisy else 0.0)
    labels = [label for label, _ in runs]
    legend: list[tuple[str, Mapping[str, Any]]] = [
        (kind.label, {**kind.style, "color": "grey" if several else kind.colour})
        for kind in CURVE_KINDS
        if any(kind.key(name) in curves for name in names for _, curves in runs)
    ]
    if several:
        thick = ({"linewidth": 3, "color": colour} for colour in colours)
        legend = [*zip(labels, thick, strict=True), *legend]
    _add_legend(figure, legend, title="" if several else "".join(labels))
    return figure


def _add_legend(
    figure: Figure, entries: Sequence[tuple[str, Mapping[str, Any]]], title: str
) -> None:
    """Explain lines by their style above all panels, in as many columns as there is room for."""
    from matplotlib.lines import Line2D

    longest = max((len(label) for label, _ in entries), default=0)
    columns = int(figure.get_figwidth() / (LEGEND_KEY_WIDTH + LETTER_WIDTH * longest))
    figure.legend(
        [Line2D([], [], **style) for _, style in entries],
        [label for label, _ in entries],
        title=title or None,
        loc="outside upper center",
        ncols=max(1, columns),
        frameon=False,
    )


def metric_names(curves: Iterable[Curves]) -> list[str]:
    """The metrics of trainings, sorted, without those of speed and memory."""
    names = {name.removeprefix(EMA_PREFIX) for one in curves for name, _ in one}
    return sorted(names - RESOURCE_METRICS)


def smoothed(values: Iterable[float], weight: float) -> list[float]:
    """Exponential moving averages, without a bias to their beginning.

    Args:
        values: in the order of the steps.
        weight: of the past, 0 ≤ weight < 1. The average is divided by 1 − weightⁿ after n values,
            as in Adam (Kingma and Ba, https://arxiv.org/abs/1412.6980, section 3).
    """
    average, averages = 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        averages.append(average / (1 - weight**count))
    return averages


def _colours(count: int) -> list[Any]:
    """As many colours, as different as can be."""
    from matplotlib import colormaps

    few, many = colormaps["tab10"], colormaps["turbo"]
    return list(few(range(count)) if count <= few.N else many(np.linspace(0, 1, count)))


def _draw_curve(
    axes: Axes, curve: Mapping[int, float], style: Mapping[str, Any], smooth: float
) -> None:
    """Draw one curve; if it is smoothed, faintly also as it was."""
    steps = sorted(curve)
    values = [curve[step] for step in steps]
    style = {"marker": "." if len(steps) == 1 else "", **style}  # one point makes no line
    if smooth:
        axes.plot(steps, values, **style, alpha=0.25)
        values = smoothed(values, smooth)
    axes.plot(steps, values, **style)


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
    paths = list(sheet_paths(folder).items())
    chosen = np.unique(np.linspace(0, len(paths) - 1, MAX_STRIP_COLUMNS).astype(int))
    sheets: list[tuple[int, np.ndarray]] = []
    for step, path in (paths[number] for number in chosen):
        with optional(str(path)):
            sheets.append((step, read_image(path)))
    sheets = [(step, one) for step, one in sheets if one.shape[1] == sheet.shape[1]]
    strips = [sheet_column(one, column, columns) for _, one in sheets]
    strips.append(sheet_column(sheet, columns - 1, columns))
    height = min(map(len, strips))
    titles = [*(f"step {step}" for step, _ in sheets), "target"]
    images = np.concatenate([one[:height] for one in strips], axis=1)
    return np.concatenate([_titles(titles, sheet.shape[1] // columns), images])


def sheet_paths(folder: Path) -> dict[int, Path]:
    """The sheets of samples in a training's folder, by step, from the first to the last."""
    names = ((SAMPLES_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in names if match))


def sheet_column(sheet: np.ndarray, column: int, columns: int) -> np.ndarray:
    """The images of one column of a sheet of samples, without its title, as (rows · h, w, 3)."""
    width = sheet.shape[1] // columns
    return sheet[TITLE_HEIGHT:, column * width : (column + 1) * width]


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
