"""The options of every command: one frozen dataclass each, checked when it is made.

The command line is built from these classes (see ``cli``): a field's name is the option's, its
default and its text are what ``--help`` shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config_base import (
    DEVICE_NAMES,
    PRECISIONS,
    DetectorOptions,
    DeviceOptions,
    NetworkOptions,
    Options,
    option,
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


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(DetectorOptions):
    """Cut videos into face crops and audio."""

    data_root: Path = option("folder with the videos, at any depth")
    preprocessed_root: Path = option("folder to write to; a clip keeps its path in --data_root")
    batch_size: int = option("frames that the face detector sees at once", 32)
    num_workers: int | None = option(
        "clips cut at the same time (default: one on each core, up to four on each card)", None
    )
    devices: str | None = option(
        "numbers of the cards to spread the clips over, as in 0,2,3 (default: the first --ngpu)",
        None,
    )
    ngpu: int = option("cards to spread the clips over, the first ones", 1)
    precision: str = option(
        "arithmetic of S3FD; auto: the fastest that the device does natively",
        "fp32",
        choices=PRECISIONS,
    )
    detect_every: int = option(
        "look for faces in each so manieth frame, and interpolate between", 1
    )
    smooth_boxes: bool = option("average the face boxes over five frames, as infer does", False)
    scene_cuts: str = option(
        "a video with scene cuts: keep it as one clip, split it into NAME-shot1, -shot2 …, or "
        "reject it; a face is never followed over a cut",
        "keep",
        choices=SCENE_CUT_POLICIES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "batch_size", "num_workers", "ngpu", "detect_every")
        if self.devices is not None and not re.fullmatch(r"\d+(,\d+)*", self.devices):
            raise UserError(f"--devices {self.devices}: numbers of cards, as in 0,2,3")

    @property
    def cards(self) -> list[int]:
        """The numbers of the cards to use."""
        return [int(n) for n in self.devices.split(",")] if self.devices else [*range(self.ngpu)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(NetworkOptions):
    """What every training has in common."""

    data_root: Path = option("folder of the preprocessed clips; file lists are relative to it")
    checkpoint_dir: Path = option("folder for checkpoints, metrics and samples")
    checkpoint_path: Path | None = option(
        "checkpoint to start from; once --checkpoint_dir has some, the newest there is continued, "
        "or the one named here if it is there",
        None,
    )
    filelists: Path = option("folder of train.txt and val.txt", Path("filelists"))
    batch_size: int = option("items a step, of each process", 16)
    accumulate: int = option("batches whose gradients make a step together", 1)
    learning_rate: float = option("Adam's step size", 1e-4)
    warmup_steps: int = option("steps in which the step size rises to --learning_rate", 0)
    schedule: str = option(
        "step size after that; cosine falls to 0 at --max_steps", "constant", choices=SCHEDULES
    )
    clip_grad_norm: float | None = option("scale longer gradients down to this norm", None)
    ema: float | None = option(
        "also keep a moving average of the weights, of which each step leaves this share (0.99 for "
        "thousands of steps, 0.999 for tens of thousands); it is evaluated and saved beside them",
        None,
    )
    augment_flip: bool = option("mirror every other window", False)
    augment_colour: float = option(
        "vary each window's colours and brightness by up to this share, 0 to 0.5", 0.0
    )
    compile: bool = option("have torch.compile translate the networks", False)
    max_steps: int | None = option("stop when this many steps have been done in all", None)
    max_hours: float | None = option("stop, saved, after this time", None)
    stop_at_loss: float | None = option(
        "stop when an evaluation's loss (of Wav2Lip: sync loss) is this or less; of the average "
        "with --ema",
        None,
    )
    eval_interval: int = option("steps between evaluations", 3000)
    eval_windows: int = option("windows of each validation clip that an evaluation judges", 5)
    checkpoint_interval: int = option("steps between checkpoints", 3000)
    keep_last: int = option("checkpoints to keep besides the best; 0 keeps all", 5)
    log_interval: int = option("steps between lines of the log", 50)
    overfit_check: bool = option(
        "before the first step, see whether a copy of the networks can learn one batch by heart",
        False,
    )
    num_workers: int | None = option(
        "processes that read training data (default: 2 for packed crops, one for each core, up to "
        "16, for JPEGs)",
        None,
    )
    cache_gb: float | None = option(
        "GiB that the crops of a list may take once packed for reading; 0 reads the JPEGs "
        "(default: half of what is free)",
        None,
    )
    cache_dir: Path | None = option(
        "folder of the packed crops (default: .packed in --data_root)", None
    )
    data_on_device: bool = option(
        "keep the packed crops in the device's memory, and load nothing while training", False
    )
    seed: int = option("seed of the weights and of the windows drawn", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(
            *(1, "batch_size", "max_steps", "eval_interval", "eval_windows"),
            *("checkpoint_interval", "log_interval", "accumulate"),
        )
        self.at_least(0, "num_workers", "seed", "cache_gb", "warmup_steps", "keep_last")
        self.above_0("learning_rate", "max_hours", "clip_grad_norm")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"--ema {self.ema}: must be between 0 and 1, as 0.999")
        if not 0 <= self.augment_colour <= 0.5:
            raise UserError(f"--augment_colour {self.augment_colour}: must be from 0 to 0.5")
        if self.schedule == "cosine" and self.max_steps is None:
            raise UserError("--schedule cosine: needs --max_steps, where the step size reaches 0")


@dataclass(frozen=True, kw_only=True)
class SyncNetConfig(TrainConfig):
    """Train the lip-sync expert (SyncNet)."""

    batch_size: int = option("items a step, of each process", 64)
    eval_interval: int = option("steps between evaluations", 10_000)
    checkpoint_interval: int = option("steps between checkpoints", 10_000)
    objective: str = option(
        "bce is the original's: one pair an item; contrastive takes four windows of a clip "
        "together, and holds the speech of each against the faces of all four",
        "bce",
        choices=OBJECTIVES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "contrastive" and self.batch_size % 4:
            raise UserError(f"--objective contrastive: --batch_size {self.batch_size} is no 4, 8 …")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(TrainConfig):
    """Train Wav2Lip, the generator."""

    syncnet_checkpoint_path: Path = option("checkpoint of the trained lip-sync expert")
    syncnet_ema: bool = option("judge with the moving average in the expert's checkpoint", False)
    eval_windows: int = option("windows of each validation clip that an evaluation judges", 1)
    disc: bool = option("train with the visual quality discriminator", False)
    disc_checkpoint_path: Path | None = option(
        "checkpoint of the discriminator to start from (default: the one beside the generator's)",
        None,
    )
    expert_mode: str = option(
        "mode of the frozen expert; train is the original's, whose sync loss depends on the batch",
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
    outfile: Path = option("file to write; other suffixes are written beside it")
    weights: str = option(
        "which weights: the moving average, the raw ones, or the average where there is one",
        "auto",
        choices=EXPORTED_WEIGHTS,
    )
    onnx: bool = option("also write .onnx, for any batch size, and compare it with torch", False)


@dataclass(frozen=True, kw_only=True)
class LipSyncConfig(DetectorOptions, NetworkOptions):
    """What a ``LipSync`` needs to know, whatever it is given to see and to hear."""

    checkpoint_path: Path = option("generator: a checkpoint, or what export writes")
    backend: str = option(
        "what runs the generator; onnx takes the .onnx file that export writes",
        "torch",
        choices=BACKENDS,
    )
    wav2lip_batch_size: int = option(
        "frames that the generator makes at once; of large pictures fewer", 128
    )
    face_det_batch_size: int = option("frames that are looked at for faces together", 16)
    detect_every: int = option(
        "look for faces in each so manieth frame, and in those between where faces move", 1
    )
    face_select: str = option(
        "whose mouth speaks, of several people: largest or center (as they come into view), first, "
        "or track:N, the N-th to appear; the same person all along",
        "largest",
    )
    no_face: str = option(
        "a frame without the face: pass it through untouched, hold the last box, or stop",
        "pass",
        choices=NO_FACE_POLICIES,
    )
    pads: tuple[int, int, int, int] = option(
        "pixels added to the face box: top bottom left right; take in the chin", (0, 10, 0, 0)
    )
    box: tuple[int, int, int, int] = option(
        "the face's box for the whole video, instead of detection: top bottom left right",
        (-1, -1, -1, -1),
    )
    smooth: str = option(
        "face boxes: averaged over two frames to each side, never over a scene cut; the "
        "original's average over the next four; or as they are found",
        "centred",
        choices=SMOOTHINGS,
    )
    nosmooth: bool = option("the same as --smooth none", False)
    blend: str = option(
        "how the drawn face comes into the picture: pasted, as in the original; its mouth through "
        "a soft mask, in the picture's colours; or by OpenCV's Poisson cloning",
        "paste",
        choices=BLENDS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "face_det_batch_size", "wav2lip_batch_size", "detect_every")
        if min(self.pads) < 0:
            raise UserError(f"--pads {self.pads}: must not be negative")
        if self.face_select not in FACE_RULES and not re.fullmatch(
            r"track:[1-9]\d*", self.face_select
        ):
            rules = ", ".join((*FACE_RULES, "track:N"))
            raise UserError(f"--face_select {self.face_select}: choose from {rules}")


@dataclass(frozen=True, kw_only=True)
class InferConfig(LipSyncConfig):
    """Lip-sync videos or still images to speech."""

    face: Path | None = option("video or image with the face", None)
    audio: Path | None = option("audio file, or video whose sound is taken", None)
    outfile: Path = option("video to write", Path("results/result_voice.mp4"))
    jobs: Path | None = option(
        "CSV file with a line for each of many videos, instead of the three above: its first line "
        "is face,audio,outfile",
        None,
    )
    resume: bool = option("of --jobs, leave out those whose outfile is there", False)
    static: bool = option("use the first frame only; so it is for an image", False)
    fps: float = option("frames a second, for an image only", 25.0)
    loop: str = option(
        "sound that is longer than the video: repeat the video, play it there and back, hold its "
        "last frame, or cut the sound",
        "repeat",
        choices=LOOPS,
    )
    resize_factor: int = option("divide the picture's sides by this", 1)
    crop: tuple[int, int, int, int] = option(
        "part of the picture to keep, after --resize_factor and --rotate: top bottom left right; "
        "-1 is the far edge",
        (0, -1, 0, -1),
    )
    rotate: bool = option("turn the picture clockwise by 90 degrees", False)
    face_cache: Path | None = option(
        "folder in which detections are kept, by the video's content, for the next time", None
    )
    crf: int = option("x264's quality, 0 (lossless) to 51", 18)
    preset: str = option("x264's preset: slower is smaller", "veryfast", choices=PRESETS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "resize_factor", "fps")
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf {self.crf}: must be from 0 to 51")
        if self.jobs is None and (self.face is None or self.audio is None):
            missing = "--face" if self.face is None else "--audio"
            raise UserError(f"{missing}: is needed, or --jobs with a file of many")
        for path in (self.face, self.audio):
            if path is not None and path.resolve() == self.outfile.resolve():
                raise UserError(f"--outfile {self.outfile}: is also an input, name another")
        if self.resume and self.jobs is None:
            raise UserError("--resume: has no effect without --jobs")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DeviceOptions):
    """Make a small talking-head set and run everything on it."""

    outdir: Path = option("folder to write to; an earlier demo there is replaced", Path("demo"))
    clips: int = option("talking heads in the set", 12)
    expert_steps: int = option("training steps of the expert", 60)
    generator_steps: int = option("training steps of the generator", 60)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(4, "clips")
        self.at_least(1, "expert_steps", "generator_steps")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(DeviceOptions):
    """Tell what this machine has, what it lacks, and what to do about it."""

    device: str = option(
        f"device that the exit code is about, 0 if all that it needs is there: "
        f"{', '.join(DEVICE_NAMES)}, or one card, as in NAME:1",
        "auto",
    )
    s3fd: Path | None = option("S3FD's weight file (default: where preprocess looks)", None)
    syncnet_checkpoint_path: Path | None = option(
        "checkpoint of the lip-sync expert (default: checkpoints/lipsync_expert.pth)", None
    )
    json: bool = option("print JSON, for programs", False)


@dataclass(frozen=True, kw_only=True)
class FilelistsConfig(Options):
    """Divide preprocessed clips into train.txt, val.txt and test.txt."""

    data_root: Path = option("folder of the preprocessed clips, as in training")
    filelists: Path = option("folder to write to, as in training", Path("filelists"))
    val: float = option("share of the clips for validation, above 0 and up to 0.5", 0.05)
    test: float = option("share of the clips to test with, 0 to 0.5", 0.05)
    seed: int = option("another number chooses other speakers", 0)
    overwrite: bool = option("replace lists of other clips that are there", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(0, "seed")
        if not 0 < self.val <= 0.5:
            raise UserError(f"--val {self.val}: must be above 0 and at most 0.5")
        if not 0 <= self.test <= 0.5:
            raise UserError(f"--test {self.test}: must be from 0 to 0.5")
        if self.val + self.test == 1:
            raise UserError("--val 0.5 --test 0.5: leaves nothing to train on")
