"""What option classes are made of: fields with their text for ``--help``, and their checks."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import face_detection
from wav2lip_npu.errors import UserError

NPU, CUDA, CPU = "npu", "cuda", "cpu"
DEVICE_NAMES = ("auto", NPU, CUDA, CPU)  # auto tries the others in this order
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def check_device_name(name: str) -> None:
    """Accept ``auto``, a device's name, or a name with a card's number.

    Raises:
        UserError: anything else.
    """
    if not re.fullmatch(r"auto|cpu|(npu|cuda)(:\d+)?", name):
        choices = ", ".join(DEVICE_NAMES)
        raise UserError(f"--device {name}: choose from {choices}, or one card as in npu:1")


def option(help: str, default: Any = MISSING, *, choices: tuple[str, ...] = ()) -> Any:
    """A field with its text for ``--help``; without a default the option must be given."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of any command."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value, choices = getattr(self, item.name), item.metadata["choices"]
            if choices and value not in choices:
                raise UserError(f"--{item.name} {value}: choose from {', '.join(choices)}")

    def at_least(self, minimum: float, *names: str) -> None:
        """Refuse smaller values of these fields, by a UserError."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UserError(f"--{name} {value}: must be {minimum} or more")

    def above_0(self, *names: str) -> None:
        """Refuse values of these fields that are not above 0, by a UserError."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name} {value}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Of commands that compute."""

    device: str = option(
        f"where the networks run: {', '.join(DEVICE_NAMES)} (auto asks in this order), or one card "
        "of several, as in NAME:1",
        "auto",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device_name(self.device)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(DeviceOptions):
    """Of commands that run the networks."""

    precision: str = option(
        "arithmetic of the networks; auto: the fastest that the device does natively",
        "auto",
        choices=PRECISIONS,
    )


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(DeviceOptions):
    """Of commands that look for faces."""

    detector: str = option(
        "face detector; auto takes S3FD where its weights are, else CenterFace",
        "auto",
        choices=face_detection.CHOICES,
    )
    s3fd: Path | None = option(
        "S3FD's weight file (default: face_detection/detection/sfd/s3fd.pth, else a download)", None
    )
