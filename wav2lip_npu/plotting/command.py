"""The command ``plot``: charts of trainings and sync reports side by side, and a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from wav2lip_npu.config import PlotConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.charts import write_chart
from wav2lip_npu.plotting.fonts import any_script
from wav2lip_npu.plotting.runs import SHEETS, Run, read_runs
from wav2lip_npu.plotting.samples import draw_samples
from wav2lip_npu.plotting.table import draw_table, markdown, summarize
from wav2lip_npu.run_options import options_path, write_options
from wav2lip_npu.sync.report import REPORT, draw_offsets
from wav2lip_npu.training.figures import CURVES, draw_curves, metric_names
from wav2lip_npu.training.metrics import EMA_PREFIX, METRICS

OFFSETS = "offsets.png"
SAMPLES = "samples.png"
RUNS = "runs.png"

log = logging.getLogger(__name__)


def plot(config: PlotConfig) -> None:
    """Write a chart of each kind for which the folders hold something, and print the table.

    Raises:
        UserError: nothing to show, no such metric, or a file cannot be written.
    """
    runs = read_runs(config.runs, config.labels)
    trainings = [(run.label, run.curves) for run in runs if run.curves]
    reports = [(run.label, run.clips) for run in runs if run.clips]
    sheets = [(run.label, *run.sheet) for run in runs if run.sheet is not None]
    names = _metrics(runs, config.metrics)
    with any_script("".join([*names, *(run.label for run in runs)])):
        if trainings:
            table = summarize(trainings, names)
            write_chart(config.outdir / CURVES, draw_curves(trainings, names, smooth=config.smooth))
            write_chart(config.outdir / RUNS, draw_table(table), cut_to_content=True)
            print(markdown(table), end="")
        if reports:
            write_chart(config.outdir / OFFSETS, draw_offsets(reports))
        if sheets:
            write_chart(config.outdir / SAMPLES, draw_samples(sheets))
    write_options(options_path(config.outdir, config), config)
    for name, source, shown in (
        (CURVES, METRICS, trainings),
        (RUNS, METRICS, trainings),
        (OFFSETS, REPORT, reports),
        (SAMPLES, SHEETS, sheets),
    ):
        if shown:
            log.info("%s: %s", config.outdir / name, ", ".join(label for label, *_ in shown))
        else:
            log.info("%s: not written, no folder has %s", name, source)


def _metrics(runs: Sequence[Run], wanted: Sequence[str] | None) -> list[str]:
    """The metrics to show.

    Raises:
        UserError: none of the trainings has one that is wanted.
    """
    if wanted is None:
        return metric_names(run.curves for run in runs)
    there = {name.removeprefix(EMA_PREFIX) for run in runs for name, _ in run.curves}
    if unknown := [name for name in wanted if name not in there]:
        known = ", ".join(sorted(there)) or "none"
        raise UserError(f"--metrics {unknown[0]}: no folder has it; there are: {known}")
    return list(dict.fromkeys(wanted))
