"""What option classes are made of: fields with their help text, and their checks."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import face_detection
from wav2lip_npu.errors import UserError

NPU, CUDA, CPU = "npu", "cuda", "cpu"
DEVICE_NAMES = ("auto", NPU, CUDA, CPU)  # auto tries the others in this order
DEVICE_HELP = f"auto (the first of {NPU}, {CUDA} and {CPU} that works), one of these, or {NPU}:1 …"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ALIGNMENTS = ("off", "tilt")
STRICT_FP32_HELP = (
    "with --precision fp32: no shorter numbers (HF32 on an NPU, TF32 on CUDA) in convolutions; "
    "several times slower"
)
MAX_CARD_INDEX = 127  # torch keeps it in a signed byte
MAX_BATCH_SIZE = 2**16  # a slip of the finger fills the memory of the machine
_INT64_LIMIT = 2**63  # what torch, NumPy and FFmpeg can hold


def check_device_name(name: str) -> None:
    """Accept ``auto``, a device's name, or a name with a card's index.

    Raises:
        UserError: anything else.
    """
    match = re.fullmatch(r"auto|cpu|(?:npu|cuda)(?::(0|[1-9][0-9]{0,2}))?", name)
    if match is None or int(match[1] or 0) > MAX_CARD_INDEX:
        choices = ", ".join(DEVICE_NAMES)
        raise UserError(f"--device {name}: choose from {choices}, or one card as in npu:1")


def card_indices(devices: str | None) -> list[int]:
    """The indices of cards that ``--devices`` names, as in 0,2,3; none for None.

    Raises:
        UserError: it is anything else.
    """
    if devices is None:
        return []
    if not re.fullmatch(r"\d+(,\d+)*", devices):
        raise UserError(f"--devices {devices}: must be indices of cards, as in 0,2,3")
    return [int(index) for index in devices.split(",")]


def option(
    help: str,
    default: Any = MISSING,
    *,
    choices: tuple[str, ...] = (),
    other_names: tuple[str, ...] = (),
    positional: bool = False,
) -> Any:
    """A dataclass field with its help text; without a default the option is required.

    Args:
        help: the text.
        default: its value where it is not given.
        choices: the values that are allowed; none: all.
        other_names: by which the command line knows it too, without dashes.
        positional: it is given without its name.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "other_names": other_names,
        "positional": positional,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all option classes: checks choices and numbers when an object is made.

    Raises:
        UserError: a value is not allowed. Subclasses check their own fields in ``__post_init__``.
    """

    command: ClassVar[str] = ""  # the one that has these options

    def __post_init__(self) -> None:
        for item in fields(self):
            value, choices = getattr(self, item.name), item.metadata["choices"]
            if choices and value not in choices and value != item.default:
                raise UserError(f"--{item.name} {value}: choose from {', '.join(choices)}")
            for number in value if isinstance(value, tuple) else (value,):
                _check_number(item.name, number)

    def plain(self) -> dict[str, Any]:
        """The options as JSON and checkpoints can hold them: paths as text, tuples as lists."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    def require_at_least(self, minimum: float, *names: str) -> None:
        """Raise a UserError if one of these fields is set and below ``minimum``."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UserError(f"--{name} {value}: must be {minimum} or more")

    def require_batch_size(self, *names: str) -> None:
        """Raise a UserError if one of these fields is no number of images or samples together."""
        self.require_at_least(1, *names)
        for name in names:
            if getattr(self, name) > MAX_BATCH_SIZE:
                raise UserError(f"--{name} {getattr(self, name)}: must be {MAX_BATCH_SIZE} or less")

    def require_above_0(self, *names: str) -> None:
        """Raise a UserError if one of these fields is set and not above 0."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name} {value}: must be above 0")

    def require_rectangle(self, name: str) -> None:
        """Raise a UserError if a field of top, bottom, left and right is none of an image.

        -1 as bottom or right is the far edge.
        """
        edges: tuple[int, int, int, int] = getattr(self, name)
        top, bottom, left, right = edges
        for near, far in ((top, bottom), (left, right)):
            if near < 0 or (far <= near and far != -1):
                raise UserError(
                    f"--{name} {spelled(edges)}: must be top bottom left right, with "
                    "top < bottom and left < right"
                )


def spelled(value: Any) -> str:
    """A value of an option as one would type it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _check_number(option_name: str, value: object) -> None:
    """Raise a UserError if it is a number that cannot be computed with."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{option_name} {value}: must be a finite number")
    if isinstance(value, int) and not -_INT64_LIMIT <= value < _INT64_LIMIT:
        raise UserError(f"--{option_name} {value}: is too large a number")


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Options of commands that use a device."""

    device: str = option(f"where the networks run: {DEVICE_HELP}", "auto")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device_name(self.device)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(DeviceOptions):
    """Options of commands that run the networks of Wav2Lip."""

    precision: str = option(
        "arithmetic of the networks; auto: the fastest that the device supports natively",
        "auto",
        choices=PRECISIONS,
    )
    strict_fp32: bool = option(STRICT_FP32_HELP, False)


@dataclass(frozen=True, kw_only=True)
class CropOptions(Options):
    """What of a frame a generator is shown."""

    pads: tuple[int, int, int, int] = option(
        "pixels added to the face box: top bottom left right; include the chin", (0, 10, 0, 0)
    )
    align: str = option(
        "tilt: turn tilted heads upright for the generator, by landmarks, and back after it; off: "
        "leave them as they are, as the original does",
        "tilt",
        choices=ALIGNMENTS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.pads) < 0:
            raise UserError(f"--pads {spelled(self.pads)}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(DeviceOptions):
    """Options of commands that detect faces."""

    detector_batch_option: ClassVar[str] = "--batch_size"  # which says how many frames at a time

    detector: str = option(
        "face detector; auto: S3FD if its weight file is on this machine, else CenterFace",
        "auto",
        choices=face_detection.CHOICES,
    )
    s3fd: Path | None = option(
        "S3FD's weight file (default: face_detection/detection/sfd/s3fd.pth, else a download)", None
    )
    detect_every: int = option(
        "detect faces in every N-th frame, at scene cuts, and in between wherever a face moved, "
        "came or went; interpolate the other frames",
        1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "detect_every")
