"""The options of the commands that measure and compare: sync and plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import Options, option, spelled
from wav2lip_npu.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SyncConfig(Options):
    """Measure how far sound and lips are apart in preprocessed clips, and mend it."""

    data_root: Path = option("folder with the clips, at any depth")
    fix: bool = option(
        "shift the sound of clips that are off, by whole frames; the sound as it was is kept "
        "beside it as audio.original.wav",
        False,
    )
    filter: Path | None = option(
        "folder to write the lists of --filelists to, without clips that are unclear or off "
        "(default: no lists)",
        None,
    )
    filelists: Path = option("folder of the lists for --filter", Path("filelists"))
    overwrite: bool = option("replace lists that are in the folder of --filter", False)
    outdir: Path | None = option("folder of report and histogram (default: --data_root)", None)
    min_offset: int = option("frames from which on a clip is off", 2)
    min_confidence: float = option(
        "below it a clip is unclear: its sound goes with the mouth hardly better than that of "
        "other clips does (in standard deviations)",
        1.25,
    )
    num_workers: int | None = option("processes (default: one per core)", None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "min_offset", "num_workers")
        self.require_above_0("min_confidence")
        if self.overwrite and self.filter is None:
            raise UserError("--overwrite: has no effect without --filter")


@dataclass(frozen=True, kw_only=True)
class PlotConfig(Options):
    """Plot and compare trainings and sync reports: curves, histograms, samples, a table."""

    runs: tuple[Path, ...] = option(
        "folders to show, side by side: of trainings (their --checkpoint_dir), or with a report of "
        "sync"
    )
    labels: tuple[str, ...] | None = option(
        "names to show, one for each folder (default: the folders' names)", None
    )
    metrics: tuple[str, ...] | None = option(
        "metrics to show, as metrics.jsonl names them (default: all but speed and memory)", None
    )
    outdir: Path = option(
        "folder to write to; what an earlier plot has written there is replaced", Path("plots")
    )
    smooth: float = option(
        "weight of the past in a moving average of the training curves, below 1; 0: none", 0.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.smooth < 1:
            raise UserError(f"--smooth {self.smooth}: must be 0 or more, and below 1")
        if self.labels is not None and len(self.labels) != len(self.runs):
            raise UserError(
                f"--labels {spelled(self.labels)}: must be one for each of the {len(self.runs)} "
                "folders of --runs"
            )
