"""Charts of trainings by the command ``plot``, made again when the trainings have gone on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config import PlotConfig
from wav2lip_npu.runtime.files import file_state
from wav2lip_npu.ui.command_line import option_words
from wav2lip_npu.ui.processes import Processes
from wav2lip_npu.ui.service import Service

METRICS, SHEETS, FILM_STRIP = "metrics.jsonl", "samples_step*.png", "film_strip.png"
PLOT_SECONDS = 120  # after which plot is given up; it takes a few


@dataclass(frozen=True, kw_only=True)
class Plots:
    """What there is to show of some trainings."""

    table: str  # Markdown
    images: tuple[tuple[str, Path], ...]  # caption and file of each


class Plotter:
    """Makes charts, one set at a time, and keeps the newest of each choice of trainings."""

    def __init__(self, service: Service) -> None:
        """Keep charts where visitors' files are."""
        self._service = service
        self._lock = threading.Lock()
        self._kept: dict[tuple[Path, ...], tuple[object, Path, Plots]] = {}

    def plots(self, runs: tuple[Path, ...]) -> Plots:
        """The charts of these trainings as they are now.

        Raises:
            UserError: there is nothing to show.
        """
        with self._lock:
            state = [_state(run) for run in runs]
            former = self._kept.get(runs)
            if former is not None and former[0] == state:
                return former[2]
            folder = self._service.visitors.new_folder()
            try:
                made = _plot(self._service.processes, runs, folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._kept[runs] = state, folder, made
            if former is not None:
                shutil.rmtree(former[1], ignore_errors=True)
            return made


def _state(run: Path) -> list[object]:
    """What changes when a training goes on."""
    files = [run / METRICS, run / FILM_STRIP, *sorted(run.glob(SHEETS))[-1:]]
    return [(str(file), file_state(file)) for file in files if file.is_file()]


def _plot(processes: Processes, runs: Sequence[Path], folder: Path) -> Plots:
    config = PlotConfig(runs=tuple(runs), outdir=folder)
    printed = processes.run(["wav2lip_npu", "plot", *option_words(config)], PLOT_SECONDS)
    strips = []
    for number, run in enumerate(runs):
        if (run / FILM_STRIP).is_file():
            copy = folder / f"film_strip_{number}.png"
            shutil.copyfile(run / FILM_STRIP, copy)
            strips.append((f"{run.name}: the same windows at each validation", copy))
    charts = [("curves", "curves.png"), ("last samples", "samples.png"), ("offsets", "offsets.png")]
    made = [(caption, folder / name) for caption, name in charts if (folder / name).exists()]
    return Plots(table=printed, images=(*made, *strips))
