"""A table of trainings: how far they came, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from wav2lip_npu.media.charts import new_chart
from wav2lip_npu.training.metrics import EMA_PREFIX, Curves
from wav2lip_npu.training.tasks import GeneratorTask, SyncNetTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "–"  # where a training has no such number
# By which a training's best checkpoint is chosen: averaged weights count if there are any.
SCORES = tuple(prefix + task.score for task in (SyncNetTask, GeneratorTask)
               for prefix in (EMA_PREFIX, ""))  # fmt: skip
ROW_HEIGHT = 1.6  # of a drawn table, times matplotlib's
HEAD_COLOUR = "#e9edf2"


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns."""

    head: list[str]
    rows: list[list[str]]


def summarize(runs: Sequence[tuple[str, Curves]], names: Sequence[str]) -> Table:
    """Make the table: a row for each training.

    Args:
        runs: label and curves of each.
        names: metrics, of which the last validation is shown, of averaged weights as well.
    """
    validated = [
        prefix + name
        for name in names
        for prefix in ("", EMA_PREFIX)
        if any((prefix + name, "eval") in curves for _, curves in runs)
    ]
    head = ["run", "steps", "best validation", *validated, "samples per second"]
    return Table(head, [_row(label, curves, validated) for label, curves in runs])


def _row(label: str, curves: Curves, validated: Sequence[str]) -> list[str]:
    steps = max(step for curve in curves.values() for step in curve)
    last = max((max(curve) for (_, kind), curve in curves.items() if kind == "eval"), default=0)
    values = [curves.get((name, "eval"), {}).get(last) for name in validated]
    rates = curves.get(("samples_per_second", "train"), {}).values()
    rate = median(rates) if rates else None  # a mean would count each pause of the machine
    return [label, str(steps), _best(curves), *map(_number, values), _number(rate)]


def _best(curves: Curves) -> str:
    """The best validation, as for ``best.pth``: metric, value and step."""
    for name in SCORES:
        if curve := curves.get((name, "eval")):
            step = min(curve, key=lambda step: (curve[step], step))
            return f"{name} {_number(curve[step])} (step {step})"
    return NONE


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:#.4g}".rstrip(".")


def markdown(table: Table) -> str:
    """The table as Markdown, its lines ended."""
    alignment = ["---", *["---:"] * (len(table.head) - 1)]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (table.head, *table.rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], alignment, *rows[1:]))


def draw_table(table: Table) -> Figure:
    """Draw the table; what it does not fill is to be cut off when it is written."""
    figure = new_chart(len(table.head), 0.3 * (len(table.rows) + 1))
    axes = figure.add_subplot()
    axes.set_axis_off()
    drawn = axes.table(
        cellText=table.rows, colLabels=table.head, colColours=[HEAD_COLOUR] * len(table.head),
        cellLoc="center", loc="center",
    )  # fmt: skip
    drawn.auto_set_font_size(False)
    drawn.auto_set_column_width(range(len(table.head)))
    drawn.scale(1, ROW_HEIGHT)
    for (_, column), cell in drawn.get_celld().items():
        cell.set_edgecolor("#bbbbbb")
        if column == 0:
            cell.set_text_props(ha="left")
    return figure
