"""What several generators make of the same windows, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wav2lip_npu.media.charts import CHART_DPI, new_chart
from wav2lip_npu.training.figures import sheet_column
from wav2lip_npu.training.validation import SHEET_TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_ZOOM = 2  # pixels of the chart in a row for one of a sheet, whose faces are small
TITLE_PIXELS = 48  # above the columns, for two lines
TITLE_POINTS = 9.0  # size of the titles; smaller where a label is longer than its column is wide
TITLE_SHARE = 0.9  # of the width of its column that a title may have

Column = tuple[str, np.ndarray]  # title, and images as (rows · h, w, 3) BGR


def draw_samples(sheets: Sequence[tuple[str, int, np.ndarray]]) -> Figure:
    """Draw the generated images of several sheets between their reference and target.

    All are cut to the rows that they have in common. Sheets of other windows, whose targets are
    others, have their own reference and target.

    Args:
        sheets: label, step and image (h, w, 3) BGR of each.
    """
    height = min(len(sheet) for _, _, sheet in sheets)
    groups: dict[bytes, list[Column]] = {}  # by the target
    targets: dict[bytes, Column] = {}
    for label, step, sheet in sheets:
        reference, generated, target = (
            sheet_column(sheet[:height], SHEET_TITLES.index(title), len(SHEET_TITLES))
            for title in ("reference", "generated", "target")
        )
        key = target.tobytes()
        targets[key] = ("target", target)
        groups.setdefault(key, [("reference", reference)])
        groups[key].append((f"{label}\nstep {step}", generated))
    return _draw([column for key, group in groups.items() for column in (*group, targets[key])])


def _draw(columns: Sequence[Column]) -> Figure:
    """Draw columns side by side, pixel by pixel, under their titles."""
    strip = np.concatenate([images for _, images in columns], axis=1)[..., ::-1]  # RGB
    strip = strip.repeat(SAMPLE_ZOOM, axis=0).repeat(SAMPLE_ZOOM, axis=1)
    height, width = len(strip) + TITLE_PIXELS, strip.shape[1]
    # Half a pixel more, which is cut off: else rounding could cost a whole one.
    figure = new_chart((width + 0.5) / CHART_DPI, (height + 0.5) / CHART_DPI)
    figure.set_layout_engine("none")
    figure.figimage(strip, origin="upper")
    left = 0
    for title, images in columns:
        across = SAMPLE_ZOOM * images.shape[1]
        text = figure.text(
            (left + across / 2) / width,
            1 - TITLE_PIXELS / 2 / height,
            title,
            fontsize=TITLE_POINTS,
            ha="center",
            va="center",
        )
        fits = TITLE_SHARE * across / text.get_window_extent().width
        text.set_fontsize(TITLE_POINTS * min(1.0, fits))
        left += across
    return figure
