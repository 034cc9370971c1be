"""Charts by matplotlib, drawn in memory and written as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wav2lip_npu.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


def new_panels(
    count: int, *, width: float, height: float, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty chart with panels in rows, which have one scale of x.

    Args:
        count: of panels; a chart of none has the size of one.
        width: of a panel, in inches.
        height: of a panel, in inches.
        share_y: they have one scale of y as well.
    """
    columns = min(MAX_PANEL_COLUMNS, max(1, count))
    rows = -(-count // columns) or 1
    figure = new_chart(width * columns, height * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=True)  # also where the panel below is not shown
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def write_chart(path: Path, figure: Figure, *, cut_to_content: bool = False) -> None:
    """Write a chart with ``atomic_write``, on request without its empty margins.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi="figure", bbox_inches="tight" if cut_to_content else None)
