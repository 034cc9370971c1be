"""What the folders of ``--runs`` hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.images import read_image
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.sync.report import REPORT, ClipSync, read_report
from wav2lip_npu.training.figures import TITLE_HEIGHT, sheet_paths
from wav2lip_npu.training.metrics import METRICS, Curves, MetricsFile, optional
from wav2lip_npu.training.validation import SHEET_TITLES

SHEETS = "samples_step….png"  # in messages
MAX_LABEL_CHARACTERS = 40  # more would leave no room for the chart

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a folder holds; at least one of the three."""

    label: str
    curves: Curves  # empty without metrics
    sheet: tuple[int, np.ndarray] | None  # step and image (h, w, 3) BGR of the last sheet
    clips: list[ClipSync]  # of the sync report


def read_runs(folders: Sequence[Path], labels: Sequence[str] | None) -> list[Run]:
    """Read the folders; those of which nothing can be shown are left out with a warning.

    Args:
        folders: of trainings, or of sync reports.
        labels: one for each; None takes the folders' names, or paths where two have one name.

    Raises:
        UserError: nothing can be shown of any.
    """
    runs, faults = [], []
    for folder, label in zip(folders, labels or _names(folders), strict=True):
        try:
            runs.append(_read_run(folder, _printable(label)))
        except (UserError, OSError) as error:
            faults.append(reason(error))
    if not runs:
        raise UserError(f"--runs: nothing to plot; {faults[0]}")
    for fault in faults:
        log.warning("left out: %s", fault)
    return runs


def _read_run(folder: Path, label: str) -> Run:
    """Read a folder; a file that cannot be read is left out with a warning.

    Raises:
        UserError: no such folder, or nothing in it.
        OSError: it cannot be looked into.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    curves: Curves = {}
    clips: list[ClipSync] = []
    with optional(str(folder / METRICS)):
        curves = MetricsFile(folder).read()
    if (report := folder / REPORT).exists():
        with optional(str(report)):
            clips = read_report(report)
    run = Run(label=label, curves=curves, sheet=_last_sheet(folder), clips=clips)
    if not (run.curves or run.sheet or run.clips):
        raise UserError(f"{folder}: has no {METRICS}, {SHEETS} or {REPORT} that can be shown")
    return run


def _last_sheet(folder: Path) -> tuple[int, np.ndarray] | None:
    """Step and image of the last sheet of samples that can be read."""
    for step, path in reversed(sheet_paths(folder).items()):
        with optional(str(path)):
            sheet = read_image(path)
            if sheet.shape[1] % len(SHEET_TITLES) or len(sheet) <= TITLE_HEIGHT:
                raise UserError("is no sheet of samples")
            return step, sheet
    return None


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, or their paths where two have one name."""
    names = [folder.name or folder.resolve().name for folder in folders]  # of "." as well
    return [
        name if name and names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]


def _printable(label: str) -> str:
    """A label of one line that matplotlib can draw, shortened in its middle."""
    text = "".join(one if one.isprintable() else "?" for one in label)  # "?" also for no UTF-8
    if len(text) > MAX_LABEL_CHARACTERS:
        half = MAX_LABEL_CHARACTERS // 2
        text = f"{text[:half]}…{text[1 - half :]}"
    return f" {text}" if text.startswith("_") else text  # matplotlib shows no key of "_name"
