"""The options of lip-sync: of ``infer``, of ``LipSync`` as a library, and of ``export``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wav2lip_npu.config.base import (
    PRECISIONS,
    CropOptions,
    DetectorOptions,
    NetworkOptions,
    Options,
    card_indices,
    option,
)
from wav2lip_npu.errors import UserError

NO_FACE_POLICIES = ("pass", "hold", "error")
FACE_RULES = ("largest", "first", "center")  # or track:N
SPEAKING = "speaking"  # a rule of infer alone, as it needs the sound of the video
SMOOTHINGS = ("centred", "original", "none")
BLENDS = ("paste", "feather", "poisson", "mouth")
SILENCES = ("network", "source", "still")
AUDIO_WINDOWS = ("training", "original")
LOOPS = ("repeat", "pingpong", "hold", "cut")
BACKENDS = ("torch", "onnx")
PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow"),
)
EXPORTED_WEIGHTS = ("auto", "ema", "raw")
MAX_STRENGTH = 2  # from which on lips look torn
MAX_SECONDS = 1e6  # of a video: eleven days
MAX_FPS = 240  # of the videos that infer makes of still images


def is_face_rule(rule: str) -> bool:
    """Whether a rule chooses a person: one of ``FACE_RULES``, or ``track:N``."""
    return rule in FACE_RULES or re.fullmatch(r"track:[1-9]\d*", rule) is not None


def require_face_rule(name: str, rule: str, *others: str) -> None:
    """Raise a UserError if a rule chooses nobody, and is none of the others that are allowed."""
    if not is_face_rule(rule) and rule not in others:
        rules = ", ".join((*FACE_RULES, "track:N", *others))
        raise UserError(f"{name} {rule}: choose from {rules}")


@dataclass(frozen=True, kw_only=True)
class LipSyncConfig(DetectorOptions, NetworkOptions, CropOptions):
    """What a ``LipSync`` needs to know, apart from its video and audio."""

    detector_batch_option = "--face_det_batch_size"
    more_face_rules: ClassVar[tuple[str, ...]] = ()
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
        "appear), first, or track:N (the N-th to appear): it stays the same person throughout; "
        "infer also has speaking: in each shot whoever speaks there in the video itself",
        "largest",
    )
    no_face: str = option(
        "frames without the face: pass them through unchanged, hold the last box, or stop with an "
        "error",
        "pass",
        choices=NO_FACE_POLICIES,
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
        "how the generated face is put into the frame: mouth: what lies within jaw, cheeks and "
        "nose by landmarks of the face, with matched colours, and as feather where there are none; "
        "feather: only mouth and chin of the box, with soft edges and matched colours; poisson: "
        "OpenCV's seamless cloning of them; paste: the whole box, as in the original",
        "mouth",
        choices=BLENDS,
    )
    strength: float = option(
        "the generated mouth is opened so many times as wide, 0 to 2, by moving its lips", 1.0
    )
    enhance: Path | None = option(
        "ONNX file of a face restorer (GFPGAN, GPEN, RestoreFormer, CodeFormer), which is applied "
        "to the generated mouth (default: none)",
        None,
    )
    silence: str | None = option(
        "the mouth where nobody speaks: network: what the generator makes of the sound, as in the "
        "original; source: the video's own; still: shut, by a frame in which it was shut "
        "(default: network, with --voices still)",
        None,
        choices=SILENCES,
    )
    audio_window: str = option(
        "when the 0.2 s of sound that a frame hears begin: training: 40 ms before the frame, as "
        "in the training; original: with the frame, as in the original, whose mouths come 40 ms "
        "early",
        "training",
        choices=AUDIO_WINDOWS,
    )
    keep_in_front: bool = option(
        "keep what comes before the lower face (a microphone, a glass, a hand), as far as it looks "
        "unlike the face that was seen before",
        False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_batch_size("face_det_batch_size", "wav2lip_batch_size")
        if not 0 <= self.strength <= MAX_STRENGTH:
            raise UserError(f"--strength {self.strength}: must be from 0 to {MAX_STRENGTH}")
        if set(self.box) != {-1}:
            self.require_rectangle("box")
            needs_face = {
                "strength": self.strength != 1,
                "enhance": self.enhance is not None,
                "silence": self.silence == "still",
                "face_select": self.face_select == SPEAKING,
            }
            for name, given in needs_face.items():
                if given:
                    raise UserError(f"--{name} {getattr(self, name)}: has no effect with --box")
            if self.keep_in_front:
                raise UserError("--keep_in_front: has no effect with --box")
        require_face_rule("--face_select", self.face_select, *self.more_face_rules)

    def needs_points(self, voices: int) -> bool:
        """Whether so many voices are blended in by landmarks of the faces."""
        ways = self.blend == "mouth" or self.silence_of(voices) == "still"
        return ways or self.strength != 1 or self.enhance is not None or self.keep_in_front

    def silence_of(self, voices: int) -> str:
        """What the mouths of so many voices do where nobody speaks: one of ``SILENCES``."""
        return self.silence or ("network" if voices == 1 else "still")


@dataclass(frozen=True, kw_only=True)
class InferConfig(LipSyncConfig):
    """Lip-sync videos or still images to speech."""

    command = "infer"
    more_face_rules = (SPEAKING,)
    face: Path | None = option("video or image with the face; required without --jobs", None)
    audio: Path | None = option(
        "audio file, or video with sound; required without --jobs or --voices", None
    )
    voices: Path | None = option(
        "CSV file with one line per person who speaks, instead of --audio; its first line is "
        "person,audio,gain (default: one person)",
        None,
    )
    outfile: Path = option(
        "video to write; .mov, .webm and PNG files (out/%05d.png) keep transparency",
        Path("results/result_voice.mp4"),
    )
    final_audio: Path | None = option(
        "sound of the result, which lasts as long as --audio; the mouth follows that alone "
        "(default: --audio)",
        None,
    )
    jobs: Path | None = option(
        "CSV file with one line per video, instead of --face, --audio and --outfile; its first "
        "line is face,audio,outfile, and may have voices,final_audio,face_select,start,end besides "
        "(default: one video)",
        None,
    )
    resume: bool = option("with --jobs, skip lines whose outfile exists", False)
    devices: str | None = option(
        "with --jobs, indices of the cards that share them, as in 0,2,3 (default: one card)", None
    )
    start: float = option(
        "second of the video from which on it is used", 0.0, other_names=("from",)
    )
    end: float | None = option(
        "second of the video up to which it is used (default: its end)", None, other_names=("to",)
    )
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
    crf: int = option(
        "quality of H.264, 0 (lossless) to 51; in .webm VP9's, on a scale of its own", 18
    )
    preset: str = option(
        "x264's preset; slower ones give smaller files; not for .webm", "veryfast", choices=PRESETS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "resize_factor")
        if not 1 <= self.fps <= MAX_FPS:
            raise UserError(f"--fps {self.fps}: must be from 1 to {MAX_FPS}")
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_SECONDS:
                raise UserError(f"--{name} {value}: must be from 0 to {MAX_SECONDS:.0f}")
        if self.end is not None and self.end <= self.start:
            raise UserError(f"--end {self.end}: must be after --start {self.start}")
        if self.end is not None and self.static:
            raise UserError(f"--end {self.end}: has no effect with --static")
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf {self.crf}: must be from 0 to 51")
        suffix = self.outfile.suffix.lower()
        for name in {".webm": ("preset",), ".png": ("crf", "preset")}.get(suffix, ()):
            value = getattr(self, name)
            if value != getattr(InferConfig, name):
                raise UserError(f"--{name} {value}: has no effect with {suffix} as --outfile")
        self.require_rectangle("crop")
        self._check_sounds()
        if self.resume and self.jobs is None:
            raise UserError("--resume: has no effect without --jobs")
        if self.devices is not None and self.jobs is None:
            raise UserError("--devices: has no effect without --jobs; --device chooses one card")
        card_indices(self.devices)

    def _check_sounds(self) -> None:
        """Raise a UserError if something to be seen or heard is missing, or has no effect."""
        if self.jobs is None and self.face is None:
            raise UserError("--face: is required, or --jobs with a list of videos")
        if self.jobs is None and self.audio is None and self.voices is None:
            raise UserError("--audio: is required, or --voices with a list of them, or --jobs")
        if self.jobs is not None:
            for name in ("voices", "final_audio"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"--{name} {getattr(self, name)}: has no effect with --jobs, whose list "
                        "may have a column for it"
                    )
        if self.voices is not None:
            singles = {"audio": None, "face_select": "largest", "box": (-1, -1, -1, -1)}
            for name, default in singles.items():
                if getattr(self, name) != default:
                    raise UserError(f"--{name} {getattr(self, name)}: has no effect with --voices")

    @property
    def network_files(self) -> list[Path]:
        """The files that networks are read from, as far as they were named."""
        files = (self.checkpoint_path, self.s3fd, self.enhance)
        return [file for file in files if file is not None]

    @property
    def cards(self) -> list[int]:
        """How far each card to use is from the one of ``--device``."""
        return card_indices(self.devices) or [0]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Options):
    """Write a generator for inference only: .pth and .safetensors."""

    command = "export"
    checkpoint_path: Path = option("checkpoint of the generator")
    outfile: Path = option("file to write; files with other suffixes are written beside it")
    weights: str = option(
        "which weights: ema, raw, or auto (ema if the checkpoint has them, else raw)",
        "auto",
        choices=EXPORTED_WEIGHTS,
    )
    onnx: bool = option("also write .onnx, and compare it with torch", False)
    onnx_batch: int | None = option(
        "with --onnx: the one number of faces in a batch, as Ascend's atc wants it (default: any)",
        None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.onnx_batch is not None:
            self.require_batch_size("onnx_batch")
            if not self.onnx:
                raise UserError(f"--onnx_batch {self.onnx_batch}: has no effect without --onnx")
