"""The options of the commands that measure: sync."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import Options, option
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
