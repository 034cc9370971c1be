"""The options of the commands that measure: sync and evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import PRECISIONS, DetectorOptions, NetworkOptions, Options, option
from wav2lip_npu.errors import UserError

PROTOCOLS = ("track", "frame")


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
class EvaluateConfig(DetectorOptions, NetworkOptions):
    """Measure lip-synced videos: sync, quality of the face, movement of the mouth."""

    videos: Path | None = option(
        "video, or folder of videos at any depth, to measure (default: those that "
        "--checkpoint_path generates)",
        None,
    )
    sources: Path | None = option(
        "with --videos: the video, or folder of the videos, that they were made of, by the same "
        "names; any suffix (default: metrics that compare with the source are left empty)",
        None,
    )
    checkpoint_path: Path | None = option(
        "generator that makes the videos to measure, instead of --videos (default: none)", None
    )
    filelist: Path | None = option(
        "with --checkpoint_path: list of what is generated; a line names audio and video, or one "
        "video that is given its own sound (default: none)",
        None,
    )
    data_root: Path | None = option(
        "with --checkpoint_path: folder that --filelist is relative to (default: none)", None
    )
    outdir: Path = option("folder for the reports, and videos that are made", Path("evaluation"))
    syncnet_v2: Path | None = option(
        "published weights of SyncNet v2, syncnet_v2.model, for LSE-D and LSE-C (default: these "
        "are left empty)",
        None,
    )
    protocol: str = option(
        "what SyncNet v2 sees; track: the face, followed and cut out, for videos of any kind; "
        "frame: the whole frame, for videos that are cut out already, as LRS's",
        "track",
        choices=PROTOCOLS,
    )
    syncnet_checkpoint_path: Path | None = option(
        "checkpoint of the lip-sync expert, for its loss, offset and confidence (default: these "
        "are left empty)",
        None,
    )
    inception: Path | None = option(
        "weights of InceptionV3 of torch-fidelity, for FID (default: no FID)", None
    )
    reconstruction: bool | None = option(
        "whether videos have the sound of their source, so that frames can be compared one by one "
        "(default: for --filelist if a line names one video, for --videos by comparing the sounds)",
        None,
    )
    smooth_boxes: bool = option(
        "average the face boxes of the expert's crops over five frames, if preprocess did so for "
        "its training",
        False,
    )
    batch_size: int = option("frames per batch of the face detector", 32)
    wav2lip_batch_size: int = option("largest batch of the generator, in frames", 128)
    precision: str = option(
        "arithmetic of the generator; what measures computes in fp32", "auto", choices=PRECISIONS
    )
    num_workers: int | None = option(
        "videos measured at the same time (default: one per core, at most four per card)", None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_batch_size("batch_size", "wav2lip_batch_size")
        self.require_at_least(1, "num_workers")
        generator = ("checkpoint_path", "filelist", "data_root")
        given = [name for name in generator if getattr(self, name) is not None]
        if self.videos is not None and given:
            raise UserError(f"--videos: has no effect with --{given[0]}; give one of them")
        if self.videos is None:
            missing = [name for name in generator if getattr(self, name) is None]
            if not given:
                raise UserError("--videos: is required, or --checkpoint_path with --filelist")
            if missing:
                raise UserError(f"--{missing[0]}: is required with --{given[0]}")
            if self.sources is not None:
                raise UserError("--sources: has no effect without --videos; --filelist names them")
