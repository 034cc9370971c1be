"""The options of the commands that make data sets: preprocess and filelists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import (
    ALIGNMENTS,
    PRECISIONS,
    DetectorOptions,
    NetworkOptions,
    Options,
    card_indices,
    option,
)
from wav2lip_npu.errors import UserError

SCENE_CUT_POLICIES = ("keep", "split", "reject")


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(DetectorOptions, NetworkOptions):
    """Cut videos into face crops and audio."""

    command = "preprocess"
    data_root: Path = option("folder with the videos, at any depth")
    preprocessed_root: Path = option("folder to write to; a clip keeps its path in --data_root")
    batch_size: int = option("frames per batch of the face detector", 32)
    num_workers: int | None = option(
        "videos processed at the same time (default: one per core, at most four per card)", None
    )
    devices: str | None = option(
        "indices of the cards to use, as in 0,2,3 (default: the first --ngpu cards)", None
    )
    ngpu: int = option("number of cards to use, from the first one on", 1)
    precision: str = option(
        "arithmetic of S3FD; auto: the fastest that the device supports natively",
        "fp32",
        choices=PRECISIONS,
    )
    smooth_boxes: bool = option(
        "average the face boxes over five frames, as infer's --smooth centred does", False
    )
    align: str = option(
        "tilt: turn the crops of tilted heads upright, by landmarks, as infer's --align does",
        "off",
        choices=ALIGNMENTS,
    )
    scene_cuts: str = option(
        "what to do with a video that has scene cuts: keep it as one clip, split it into "
        "NAME-shot1, -shot2 …, or reject it; no face is tracked across a cut",
        "keep",
        choices=SCENE_CUT_POLICIES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_batch_size("batch_size")
        self.require_at_least(1, "num_workers", "ngpu")
        card_indices(self.devices)

    @property
    def cards(self) -> list[int]:
        """The indices of the cards to use."""
        return card_indices(self.devices) or [*range(self.ngpu)]


@dataclass(frozen=True, kw_only=True)
class FilelistsConfig(Options):
    """Divide preprocessed clips into train.txt, val.txt and test.txt."""

    command = "filelists"
    data_root: Path = option("folder of the preprocessed clips, as for training")
    filelists: Path = option("folder to write to, as for training", Path("filelists"))
    val: float = option("fraction of the clips for validation, above 0 and up to 0.5", 0.05)
    test: float = option("fraction of the clips for testing, 0 to 0.5", 0.05)
    seed: int = option("seed of the division; another one selects other speakers", 0)
    overwrite: bool = option("replace existing lists of other clips", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(0, "seed")
        if not 0 < self.val <= 0.5:
            raise UserError(f"--val {self.val}: must be above 0 and at most 0.5")
        if not 0 <= self.test <= 0.5:
            raise UserError(f"--test {self.test}: must be from 0 to 0.5")
        if self.val + self.test == 1:
            raise UserError("--val 0.5 --test 0.5: leaves no clips to train on")
