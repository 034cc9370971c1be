"""Charts by matplotlib, drawn in memory and written as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wav2lip_npu.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHART_DPI = 110  # pixels per inch, of which matplotlib counts sizes
MAX_PANEL_COLUMNS = 3  # of a chart with several panels


def new_chart(width: float, height: float) -> Figure:
    """An empty chart of this size in inches; its parts find their places themselves."""
    # Without pyplot: it would look for a screen and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=CHART_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(panels: int) -> tuple[int, int]:
    """Rows and columns for this many panels; one of each for none."""
    columns = min(MAX_PANEL_COLUMNS, max(1, panels))
    return -(-panels // columns) or 1, columns


def write_chart(path: Path, figure: Figure, *, cut_to_content: bool = False) -> None:
    """Write a chart with ``atomic_write``, on request without its empty margins.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi="figure", bbox_inches="tight" if cut_to_content else None)
