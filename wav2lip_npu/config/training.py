"""The options of both training commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import NetworkOptions, option
from wav2lip_npu.constants import WINDOW_FRAMES
from wav2lip_npu.errors import UserError

EXPERT_MODES = ("eval", "train")
OBJECTIVES = ("bce", "contrastive")
SCHEDULES = ("constant", "cosine")
MAX_MOVE = 0.2  # of a face's size; more takes the mouth out of the picture
MAX_VIEWS = 4  # as many numbers are drawn for each sample
MAX_MOUTH_WEIGHT = 100  # with it L1 is the mouth's region to 96 %
MAX_SYNC_WEIGHT = 0.9  # the rest is left for the discriminator and L1


@dataclass(frozen=True, kw_only=True)
class TrainConfig(NetworkOptions):
    """Options of both training commands."""

    data_root: Path = option("folder of the preprocessed clips; file lists are relative to it")
    checkpoint_dir: Path = option("folder for checkpoints, metrics and samples")
    checkpoint_path: Path | None = option(
        "checkpoint or weights to start a new training from (default: random weights); not used "
        "once --checkpoint_dir has a checkpoint, which is resumed",
        None,
    )
    reset_optimizer: bool = option(
        "start without the optimizer's moments that --checkpoint_path has", False
    )
    filelists: Path = option("folder of train.txt and val.txt", Path("filelists"))
    batch_size: int = option("samples per batch and process", 16)
    accumulate: int = option("batches per optimizer step; their gradients are averaged", 1)
    learning_rate: float = option("learning rate of Adam", 1e-4)
    adam_beta2: float = option(
        "how much of its average of squared gradients Adam keeps in each step: the original's "
        "0.999 looks back a thousand steps, too far for a training of hundreds; 0.95 looks back 20",
        0.999,
    )
    warmup_steps: int = option("steps in which the learning rate rises to --learning_rate", 0)
    schedule: str = option(
        "learning rate after the warm-up; cosine falls to 0 at --max_steps",
        "constant",
        choices=SCHEDULES,
    )
    clip_grad_norm: float | None = option(
        "scale gradients with a larger norm down to this one (default: no clipping)", None
    )
    ema: float | None = option(
        "decay of an exponential moving average (EMA) of the weights, which is then validated and "
        "saved too: 0.99 for thousands of steps, 0.999 for tens of thousands (default: no EMA)",
        None,
    )
    augment_flip: bool = option("mirror half of the samples", False)
    augment_colour: float = option(
        "vary colours and brightness of each sample by up to this fraction, 0 to 0.5", 0.0
    )
    compile: bool = option("compile the networks with torch.compile", False)
    profile: int | None = option(
        "record so many steps with torch's profiler, after the first ten, and write a trace into "
        "the folder profile of --checkpoint_dir (default: none)",
        None,
    )
    max_steps: int | None = option(
        "stop when this many steps are done, those of earlier runs included (default: no limit)",
        None,
    )
    max_hours: float | None = option("save and stop after this time (default: no limit)", None)
    stop_at_loss: float | None = option(
        "stop when the validation loss (train: the sync loss) is this or less; with --ema the loss "
        "of the averaged weights (default: no limit)",
        None,
    )
    eval_interval: int = option("steps between validations", 3000)
    eval_windows: int = option("windows of each validation clip", 5)
    checkpoint_interval: int = option("steps between checkpoints", 3000)
    keep_last: int = option("checkpoints to keep besides the best one; 0 keeps all", 5)
    log_interval: int = option("steps between lines of the log", 50)
    overfit_check: bool = option(
        "before the first step, check that a copy of the networks can overfit one batch", False
    )
    num_workers: int | None = option(
        "processes that load training data (default: 2 with the memmap cache, else one per core, "
        "at most 16)",
        None,
    )
    cache_gb: float | None = option(
        "largest memmap cache of the crops of a file list, in GiB; 0 reads JPEG files instead "
        "(default: half of the free disk space)",
        None,
    )
    cache_dir: Path | None = option(
        "folder of the memmap cache (default: .packed in --data_root)", None
    )
    data_on_device: bool = option(
        "keep the memmap cache in the device's memory and load nothing while training", False
    )
    seed: int = option("seed of the weights and of the samples", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_batch_size("batch_size")
        intervals = ("eval_interval", "checkpoint_interval", "log_interval")
        self.require_at_least(1, "max_steps", "eval_windows", "accumulate", *intervals)
        self.require_at_least(0, "num_workers", "seed", "cache_gb", "warmup_steps", "keep_last")
        self.require_above_0("learning_rate", "max_hours", "clip_grad_norm")
        if not 0 <= self.adam_beta2 < 1:
            raise UserError(f"--adam_beta2 {self.adam_beta2}: must be from 0 to below 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"--ema {self.ema}: must be between 0 and 1, as in 0.999")
        if not 0 <= self.augment_colour <= 0.5:
            raise UserError(f"--augment_colour {self.augment_colour}: must be from 0 to 0.5")
        if self.reset_optimizer and self.checkpoint_path is None:
            raise UserError("--reset_optimizer: has no effect without --checkpoint_path")
        if self.schedule == "cosine" and self.max_steps is None:
            raise UserError("--schedule cosine: needs --max_steps, where the learning rate is 0")

    @property
    def augments(self) -> bool:
        """Whether samples are varied."""
        return self.augment_flip or self.augment_colour > 0


@dataclass(frozen=True, kw_only=True)
class SyncNetConfig(TrainConfig):
    """Train the lip-sync expert (SyncNet)."""

    command = "train-syncnet"
    batch_size: int = option("samples per batch and process", 64)
    eval_interval: int = option("steps between validations", 10_000)
    checkpoint_interval: int = option("steps between checkpoints", 10_000)
    objective: str = option(
        "bce: one audio-face pair per sample, as in the original; contrastive: four windows of a "
        "clip together, the audio of each compared with the faces of all four",
        "bce",
        choices=OBJECTIVES,
    )
    augment_move: float = option(
        "shift and scale the crops of each sample by up to this fraction of their size, 0 to 0.2",
        0.0,
    )
    augment_quality: float = option(
        "share of the samples that are blurred, noisy and compressed, 0 to 1", 0.0
    )
    generator_path: Path | None = option(
        "checkpoint of a generator, whose faces are shown as faces that match no sound: an eighth "
        "of the samples more (default: none)",
        None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("augment_move", MAX_MOVE), ("augment_quality", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"--{name} {getattr(self, name)}: must be from 0 to {most:g}")
        if self.objective == "contrastive" and self.batch_size % 4:
            raise UserError(
                f"--objective contrastive: --batch_size {self.batch_size} must be a multiple of 4"
            )

    @property
    def augments(self) -> bool:
        """Whether samples are varied."""
        return super().augments or self.augment_move > 0 or self.augment_quality > 0


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(TrainConfig):
    """Train Wav2Lip, the generator."""

    command = "train"
    syncnet_checkpoint_path: Path = option("checkpoint of the trained lip-sync expert")
    more_experts: tuple[Path, ...] = option(
        "checkpoints of further experts; the sync loss is the mean of all (default: none)", ()
    )
    syncnet_ema: bool = option("use the EMA weights of the expert's checkpoint", False)
    eval_windows: int = option("windows of each validation clip", 1)
    disc: bool = option("train with the visual quality discriminator", False)
    disc_checkpoint_path: Path | None = option(
        "checkpoint of the discriminator to start from (default: the one beside the generator's)",
        None,
    )
    expert_mode: str = option(
        "mode of the frozen expert; train is the original's: its sync loss depends on the batch",
        "eval",
        choices=EXPERT_MODES,
    )
    sync_weight: float | None = option(
        "weight of the sync loss when the gate is open; 0 leaves the gate closed (default: the "
        "original's 0.01, with --disc 0.03)",
        None,
    )
    mouth_weight: float = option(
        "how often L1 counts each pixel of the mouth's region, 1 to 100; above 1 the square of "
        "its error counts too. 1 is the original's, by which a mouth, a small part of the face, is "
        "learned last",
        1.0,
    )
    closed_gate_frames: int = option(
        "frames that are generated of each window while the gate is closed, 1 to 5: L1 needs no "
        "whole windows, and with 1 a step takes a fifth of the time",
        WINDOW_FRAMES,
    )
    sync_weight_steps: int = option(
        "steps in which this weight rises when the gate has opened; 1: at once", 1
    )
    sync_views: int = option(
        f"views of each generated window that the experts judge, 1 to {MAX_VIEWS}: the first as it "
        "is, the others shifted and scaled",
        1,
    )
    sync_view_shift: float = option(
        "largest shift and change of size of these views, as a fraction of the face, 0 to 0.2",
        0.03,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.disc_checkpoint_path is not None and not self.disc:
            raise UserError("--disc_checkpoint_path: has no effect without --disc")
        self.require_at_least(1, "sync_weight_steps", "sync_views")
        if self.sync_views > MAX_VIEWS:
            raise UserError(f"--sync_views {self.sync_views}: must be {MAX_VIEWS} or less")
        if self.sync_weight is not None and not 0 <= self.sync_weight < MAX_SYNC_WEIGHT:
            raise UserError(
                f"--sync_weight {self.sync_weight}: must be 0 or more, and below {MAX_SYNC_WEIGHT}"
            )
        if self.sync_weight == 0 and (self.sync_weight_steps > 1 or self.sync_views > 1):
            raise UserError(
                "--sync_weight 0: --sync_weight_steps and --sync_views have no effect with it"
            )
        if not 1 <= self.mouth_weight <= MAX_MOUTH_WEIGHT:
            raise UserError(
                f"--mouth_weight {self.mouth_weight}: must be from 1 to {MAX_MOUTH_WEIGHT}"
            )
        if not 1 <= self.closed_gate_frames <= WINDOW_FRAMES:
            raise UserError(
                f"--closed_gate_frames {self.closed_gate_frames}: must be from 1 to {WINDOW_FRAMES}"
            )
        if not 0 <= self.sync_view_shift <= MAX_MOVE:
            raise UserError(
                f"--sync_view_shift {self.sync_view_shift}: must be from 0 to {MAX_MOVE}"
            )

    @property
    def augments(self) -> bool:
        """Whether samples are varied."""
        return super().augments or self.sync_views > 1
