"""The options of the commands that measure and compare: sync, evaluate and plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import (
    PRECISIONS,
    CropOptions,
    DetectorOptions,
    NetworkOptions,
    Options,
    card_indices,
    option,
    spelled,
)
from wav2lip_npu.errors import UserError

COMPARED_BY = ("auto", "mouth", "expert", "both")
PROTOCOLS = ("track", "frame")
# Of 100 clips, 20 of them with another clip's sound, these leave out some 18 and 19 of the 20, and
# one to three of the others (docs/sync.md).
MOUTH_CONFIDENCE, EXPERT_CONFIDENCE = 1.25, 2.5


@dataclass(frozen=True, kw_only=True)
class SyncConfig(NetworkOptions):
    """Measure how far sound and lips are apart in preprocessed clips, and mend it."""

    command = "sync"
    data_root: Path = option("folder with the clips, at any depth")
    videos: Path | None = option(
        "folder of videos that are preprocessed into --data_root first, with preprocess's defaults "
        "(default: the clips are there)",
        None,
    )
    by: str = option(
        "what is compared with the sound: the shape of the mouth, which needs no training; what "
        "the expert sees; or both together; auto: both if there is an expert, else the mouth",
        "auto",
        choices=COMPARED_BY,
    )
    syncnet_checkpoint_path: Path | None = option(
        "lip-sync expert: a checkpoint of ours or of the original, or the published "
        "syncnet_v2.model (default: none)",
        None,
    )
    fix: bool = option(
        "shift the sound of clips that are off, by whole frames; the sound as it was is kept "
        "beside it as audio.original.wav",
        False,
    )
    fractional: bool = option("with --fix, shift by fractions of a frame too", False)
    filter: Path | None = option(
        "folder to write the lists of --filelists to, without clips that are unclear, off or jump "
        "(default: no lists)",
        None,
    )
    filelists: Path = option("folder of the lists for --filter", Path("filelists"))
    overwrite: bool = option("replace lists that are in the folder of --filter", False)
    outdir: Path | None = option("folder of report and histogram (default: --data_root)", None)
    min_offset: int = option("frames from which on a clip is off", 2)
    min_confidence: float | None = option(
        "below it a clip is unclear: its sound goes with the face hardly better than sound that "
        f"is not the clip's, in standard deviations (default: {MOUTH_CONFIDENCE} by the mouth "
        f"alone, {EXPERT_CONFIDENCE} with an expert)",
        None,
    )
    num_workers: int | None = option("processes that look for mouths (default: one per core)", None)
    devices: str | None = option(
        "indices of the cards that share the clips for the expert, as in 0,2,3 (default: one card)",
        None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "min_offset", "num_workers")
        self.require_above_0("min_confidence")
        if self.overwrite and self.filter is None:
            raise UserError("--overwrite: has no effect without --filter")
        if self.fractional and not self.fix:
            raise UserError("--fractional: has no effect without --fix")
        if self.by in ("expert", "both") and self.syncnet_checkpoint_path is None:
            raise UserError(f"--by {self.by}: needs --syncnet_checkpoint_path")
        if self.devices is not None and not self.by_expert:
            raise UserError("--devices: has no effect without an expert")
        card_indices(self.devices)

    @property
    def least_confidence(self) -> float:
        """What ``--min_confidence`` says, or its default."""
        default = EXPERT_CONFIDENCE if self.by_expert else MOUTH_CONFIDENCE
        return default if self.min_confidence is None else self.min_confidence

    @property
    def by_mouth(self) -> bool:
        """Whether mouths are compared with the sound."""
        return self.by != "expert"

    @property
    def by_expert(self) -> bool:
        """Whether the expert is asked."""
        return self.by != "mouth" and self.syncnet_checkpoint_path is not None

    @property
    def cards(self) -> list[int]:
        """How far each card to use is from the one of ``--device``."""
        return card_indices(self.devices) or [0]


@dataclass(frozen=True, kw_only=True)
class PlotConfig(Options):
    """Plot and compare trainings and sync reports: curves, histograms, samples, a table."""

    command = "plot"
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


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DetectorOptions, NetworkOptions, CropOptions):
    """Measure lip-synced videos: sync, quality of the face, movement of the mouth."""

    command = "evaluate"
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
