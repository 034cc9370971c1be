"""The options of every command: one frozen dataclass each, checked when it is made.

``cli`` builds the command line from these classes: a field's name is the option's name, and its
text and default appear in ``--help``. A new option is one new field here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config_base import (
    DEVICE_HELP,
    PRECISIONS,
    DetectorOptions,
    DeviceOptions,
    NetworkOptions,
    Options,
    option,
    spelled,
)
from wav2lip_npu.errors import UserError

NO_FACE_POLICIES = ("pass", "hold", "error")
FACE_RULES = ("largest", "first", "center")  # or track:N
SMOOTHINGS = ("centred", "original", "none")
BLENDS = ("paste", "feather", "poisson")
LOOPS = ("repeat", "pingpong", "hold", "cut")
BACKENDS = ("torch", "onnx")
PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow"),
)
EXPERT_MODES = ("eval", "train")
SCENE_CUT_POLICIES = ("keep", "split", "reject")
OBJECTIVES = ("bce", "contrastive")
SCHEDULES = ("constant", "cosine")
EXPORTED_WEIGHTS = ("auto", "ema", "raw")
MAX_FPS = 240  # of the videos that infer makes of still images


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(DetectorOptions, NetworkOptions):
    """Cut videos into face crops and audio."""

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
        if self.devices is not None and not re.fullmatch(r"\d+(,\d+)*", self.devices):
            raise UserError(f"--devices {self.devices}: must be indices of cards, as in 0,2,3")

    @property
    def cards(self) -> list[int]:
        """The indices of the cards to use."""
        return [int(n) for n in self.devices.split(",")] if self.devices else [*range(self.ngpu)]


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
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"--ema {self.ema}: must be between 0 and 1, as in 0.999")
        if not 0 <= self.augment_colour <= 0.5:
            raise UserError(f"--augment_colour {self.augment_colour}: must be from 0 to 0.5")
        if self.reset_optimizer and self.checkpoint_path is None:
            raise UserError("--reset_optimizer: has no effect without --checkpoint_path")
        if self.schedule == "cosine" and self.max_steps is None:
            raise UserError("--schedule cosine: needs --max_steps, where the learning rate is 0")


@dataclass(frozen=True, kw_only=True)
class SyncNetConfig(TrainConfig):
    """Train the lip-sync expert (SyncNet)."""

    batch_size: int = option("samples per batch and process", 64)
    eval_interval: int = option("steps between validations", 10_000)
    checkpoint_interval: int = option("steps between checkpoints", 10_000)
    objective: str = option(
        "bce: one audio-face pair per sample, as in the original; contrastive: four windows of a "
        "clip together, the audio of each compared with the faces of all four",
        "bce",
        choices=OBJECTIVES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "contrastive" and self.batch_size % 4:
            raise UserError(
                f"--objective contrastive: --batch_size {self.batch_size} must be a multiple of 4"
            )


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(TrainConfig):
    """Train Wav2Lip, the generator."""

    syncnet_checkpoint_path: Path = option("checkpoint of the trained lip-sync expert")
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.disc_checkpoint_path is not None and not self.disc:
            raise UserError("--disc_checkpoint_path: has no effect without --disc")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Options):
    """Write a generator for inference only: .pth and .safetensors."""

    checkpoint_path: Path = option("checkpoint of the generator")
    outfile: Path = option("file to write; files with other suffixes are written beside it")
    weights: str = option(
        "which weights: ema, raw, or auto (ema if the checkpoint has them, else raw)",
        "auto",
        choices=EXPORTED_WEIGHTS,
    )
    onnx: bool = option("also write .onnx, for any batch size, and compare it with torch", False)


@dataclass(frozen=True, kw_only=True)
class LipSyncConfig(DetectorOptions, NetworkOptions):
    """What a ``LipSync`` needs to know, apart from its video and audio."""

    detector_batch_option = "--face_det_batch_size"
    checkpoint_path: Path = option("generator: a checkpoint, or a file that export wrote")
    backend: str = option(
        "what runs the generator; onnx needs the .onnx file that export writes",
        "torch",
        choices=BACKENDS,
    )
    detector_precision: str = option(
        "arithmetic of S3FD; fp32 gives the boxes that preprocess gives by default",
        "fp32",
        choices=PRECISIONS,
    )
    wav2lip_batch_size: int = option(
        "largest batch of the generator, in frames; smaller for large images", 128
    )
    face_det_batch_size: int = option("frames per batch of the face detector", 16)
    face_select: str = option(
        "whose face is lip-synced if there are several: largest or center (when they first "
        "appear), first, or track:N (the N-th to appear); it stays the same person throughout",
        "largest",
    )
    no_face: str = option(
        "frames without the face: pass them through unchanged, hold the last box, or stop with an "
        "error",
        "pass",
        choices=NO_FACE_POLICIES,
    )
    pads: tuple[int, int, int, int] = option(
        "pixels added to the face box: top bottom left right; include the chin", (0, 10, 0, 0)
    )
    box: tuple[int, int, int, int] = option(
        "face box for all frames, instead of detection: top bottom left right; -1: detect",
        (-1, -1, -1, -1),
    )
    smooth: str = option(
        "face boxes: centred averages over two frames to each side, never across a scene cut; "
        "original averages over the next four frames; none keeps them as detected",
        "centred",
        choices=SMOOTHINGS,
    )
    nosmooth: bool = option("the same as --smooth none", False)
    blend: str = option(
        "how the generated face is put into the frame: paste, as in the original; feather: only "
        "the mouth, with soft edges and matched colours; poisson: OpenCV's seamless cloning",
        "paste",
        choices=BLENDS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_batch_size("face_det_batch_size", "wav2lip_batch_size")
        if min(self.pads) < 0:
            raise UserError(f"--pads {spelled(self.pads)}: must not be negative")
        if set(self.box) != {-1}:
            self.require_rectangle("box")
        if self.face_select not in FACE_RULES and not re.fullmatch(
            r"track:[1-9]\d*", self.face_select
        ):
            rules = ", ".join((*FACE_RULES, "track:N"))
            raise UserError(f"--face_select {self.face_select}: choose from {rules}")


@dataclass(frozen=True, kw_only=True)
class InferConfig(LipSyncConfig):
    """Lip-sync videos or still images to speech."""

    face: Path | None = option("video or image with the face; required without --jobs", None)
    audio: Path | None = option("audio file, or video with sound; required without --jobs", None)
    outfile: Path = option("video to write", Path("results/result_voice.mp4"))
    jobs: Path | None = option(
        "CSV file with one line per video, instead of --face, --audio and --outfile; its first "
        "line is face,audio,outfile (default: one video)",
        None,
    )
    resume: bool = option("with --jobs, skip lines whose outfile exists", False)
    static: bool = option("use the first frame only; always so for an image", False)
    fps: float = option("frames per second of the result, for an image only", 25.0)
    loop: str = option(
        "if the audio is longer than the video: repeat the video, play it forwards and backwards, "
        "hold its last frame, or cut the audio",
        "repeat",
        choices=LOOPS,
    )
    resize_factor: int = option("divide width and height of the video by this", 1)
    crop: tuple[int, int, int, int] = option(
        "part of the frame to keep, after --resize_factor and --rotate: top bottom left right; "
        "-1 is the far edge",
        (0, -1, 0, -1),
    )
    rotate: bool = option("rotate the video clockwise by 90 degrees", False)
    face_cache: Path | None = option(
        "folder that keeps detections for the next run, by the video's content (default: none are "
        "kept)",
        None,
    )
    crf: int = option("x264's quality, 0 (lossless) to 51", 18)
    preset: str = option(
        "x264's preset; slower ones give smaller files", "veryfast", choices=PRESETS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "resize_factor")
        if not 1 <= self.fps <= MAX_FPS:
            raise UserError(f"--fps {self.fps}: must be from 1 to {MAX_FPS}")
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf {self.crf}: must be from 0 to 51")
        self.require_rectangle("crop")
        if self.jobs is None and (self.face is None or self.audio is None):
            missing = "--face" if self.face is None else "--audio"
            raise UserError(f"{missing}: is required, or --jobs with a list of videos")
        if self.resume and self.jobs is None:
            raise UserError("--resume: has no effect without --jobs")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DeviceOptions):
    """Make a small talking-head data set and run every step on it."""

    outdir: Path = option("folder to write to; an earlier demo there is replaced", Path("demo"))
    clips: int = option("clips in the data set", 12)
    expert_steps: int = option("training steps of the expert", 60)
    generator_steps: int = option("training steps of the generator", 60)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(4, "clips")
        self.require_at_least(1, "expert_steps", "generator_steps")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(DeviceOptions):
    """Show what this machine has, what it lacks, and what to do about it."""

    device: str = option(f"the exit code is 0 if this device can be used: {DEVICE_HELP}", "auto")
    s3fd: Path | None = option("S3FD's weight file (default: as for preprocess)", None)
    syncnet_checkpoint_path: Path | None = option(
        "checkpoint of the lip-sync expert (default: checkpoints/lipsync_expert.pth)", None
    )
    json: bool = option("print JSON, for programs", False)


@dataclass(frozen=True, kw_only=True)
class FilelistsConfig(Options):
    """Divide preprocessed clips into train.txt, val.txt and test.txt."""

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
